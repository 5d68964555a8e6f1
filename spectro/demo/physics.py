"""A small physical model of a seismic shot record.

A source in the middle of a straight line of stations fires at time zero; the model adds up what each station records:
refracted and direct arrivals with their reverberations, dispersive ground roll, reflections, scattered coda,
and the kinds of noise that make a record worth sorting out. No shape is drawn: what an image shows follows from
travel times, wavelets, spreading, absorption and noise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spectro.demo.model import OFFSET_M, SAMPLE_COUNT, SAMPLE_INTERVAL_S, TIME_S, TRACE_COUNT, Array, RecordModel, Span

# Longer than the record, so that what a filter smears past the end doesn't wrap round to time zero.
_FFT_COUNT = 360
_FREQUENCY_HZ: Array = np.fft.rfftfreq(_FFT_COUNT, SAMPLE_INTERVAL_S)


def ricker_spectrum(frequency_hz: Array, peak_hz: float) -> Array:
    """Amplitude spectrum of a zero-phase Ricker wavelet whose largest sample is 1.

    The wavelet is (1 - 2 pi^2 f^2 t^2) exp(-pi^2 f^2 t^2) with f = `peak_hz` (Ricker 1953, The form and laws of
    propagation of seismic wavelets, Geophysics 18, 10-40); this is its Fourier transform over the sample interval.

    Args:
        frequency_hz: Frequencies, any shape.
        peak_hz: Frequency of the largest amplitude.

    Returns:
        Real spectrum of the same shape as `frequency_hz`.
    """
    ratio = (frequency_hz / peak_hz) ** 2
    return 2.0 / (np.sqrt(np.pi) * peak_hz * SAMPLE_INTERVAL_S) * ratio * np.exp(-ratio)


def reflection_time_s(offset_m: Array, zero_offset_s: Array, velocity_m_per_s: Array, dip_s_per_m: float) -> Array:
    """Travel times of reflections from gently dipping layers: t = sqrt(t0^2 + x^2 / v^2) + dip x.

    The normal-moveout hyperbola (Dix 1955, Geophysics 20, 68-86) with the dip's first-order term.

    Args:
        offset_m: Offsets of the traces, shape (traces,).
        zero_offset_s: Two-way times below the source, shape (reflectors,).
        velocity_m_per_s: Stacking velocity of each reflector, shape (reflectors,).
        dip_s_per_m: Time per distance by which the layers dip towards positive offsets.

    Returns:
        Times in seconds, shape (reflectors, traces).
    """
    moveout = (offset_m[None, :] / velocity_m_per_s[:, None]) ** 2
    return np.sqrt(zero_offset_s[:, None] ** 2 + moveout) + dip_s_per_m * offset_m[None, :]


def synthesise(model: RecordModel, rng: np.random.Generator) -> Array:
    """One shot record as displayed: gained, and clipped to -1 ... 1.

    Args:
        model: What kind of record.
        rng: The only source of chance; equal generators give equal records.

    Returns:
        Amplitudes of shape (SAMPLE_COUNT, TRACE_COUNT), time downwards; dead traces are exactly 0.
    """
    record = _Recorder(model, rng)
    first_s = record.add_body_waves()
    record.add_reflections()
    record.add_ground_roll()
    record.add_coda(first_s)
    record.couple()
    record.add_station_noise(first_s)
    record.add_machines()
    record.add_cracks()
    record.add_row()
    record.kill_traces()
    return record.displayed()


def _since(start_s: Array, decay_s: float) -> Array:
    """Envelope of shape (traces, samples): 0 before each trace's start, then a decay to 1/e in `decay_s`."""
    since_s = TIME_S - start_s[:, None]
    return np.where(since_s > 0.0, np.exp(-np.maximum(since_s, 0.0) / decay_s), 0.0)


def _band(centre_hz: float, half_width_hz: float) -> tuple[Array, float]:
    """A band filter with soft edges over `_FREQUENCY_HZ`, and the power it lets through of white noise of power 1."""
    band = np.exp(-(((_FREQUENCY_HZ - centre_hz) / half_width_hz) ** 4))
    return band, 2.0 * float(np.sum(band**2)) / _FFT_COUNT


class _Recorder:
    """One record in the making: `data` has the shape (traces, samples), `rng` is drawn from in a fixed order."""

    def __init__(self, model: RecordModel, rng: np.random.Generator) -> None:
        self.model = model
        self.rng = rng
        self.data: Array = np.zeros((TRACE_COUNT, SAMPLE_COUNT))
        self.static_s: Array = rng.normal(0.0, model.static_shift_s, TRACE_COUNT)

    def draw(self, span: Span) -> float:
        return float(self.rng.uniform(*span))

    def draw_count(self, span: Span) -> int:
        # Half a unit more at both ends gives the end values the same chance as those between.
        return round(float(self.rng.uniform(span[0] - 0.499, span[1] + 0.499)))

    def stations(self, count: Span) -> npt.NDArray[np.int64]:
        return self.rng.choice(TRACE_COUNT, size=self.draw_count(count), replace=False)

    def sides(self, count_per_side: Span) -> list[float]:
        """Sign of the offset for each thing to place: so many on the left, and so many on the right."""
        return [-1.0] * self.draw_count(count_per_side) + [1.0] * self.draw_count(count_per_side)

    def arrivals(self, time_s: Array, amplitude: Array, peak_hz: float) -> Array:
        """Ricker wavelets at the given times; both arguments have the shape (events, traces)."""
        position = (time_s + self.static_s) / SAMPLE_INTERVAL_S
        sample = np.floor(position).astype(np.int64)
        share = position - sample
        inside = (sample >= 0) & (sample < SAMPLE_COUNT)
        cell = (np.arange(TRACE_COUNT) * _FFT_COUNT + sample)[inside]
        spikes = np.bincount(cell, (amplitude * (1.0 - share))[inside], TRACE_COUNT * _FFT_COUNT)
        spikes += np.bincount(cell + 1, (amplitude * share)[inside], TRACE_COUNT * _FFT_COUNT)
        spectrum = np.fft.rfft(spikes.reshape(TRACE_COUNT, _FFT_COUNT), axis=1)
        spectrum *= ricker_spectrum(_FREQUENCY_HZ, peak_hz)
        return np.fft.irfft(spectrum, _FFT_COUNT, axis=1)[:, :SAMPLE_COUNT]

    def band_noise(self, count: int, centre_hz: float, half_width_hz: float) -> Array:
        """Gaussian noise of unit power in a band with soft edges, shape (count, samples)."""
        band, power = _band(centre_hz, half_width_hz)
        white = self.rng.standard_normal((count, _FFT_COUNT))
        filtered = np.fft.irfft(np.fft.rfft(white, axis=1) * band, _FFT_COUNT, axis=1)
        return filtered[:, :SAMPLE_COUNT] / np.sqrt(power)

    def add_body_waves(self) -> Array:
        """Direct and refracted waves and their reverberations; returns the first arrival in s, shape (traces,)."""
        model = self.model
        distance_m = np.abs(OFFSET_M)
        direct_s = distance_m / self.draw(model.near_velocity_m_per_s)
        refracted_s = self.draw(model.refractor_intercept_s) + distance_m / self.draw(model.refractor_velocity_m_per_s)
        period_s, decay = self.draw(model.reverberation_period_s), self.draw(model.reverberation_decay)
        direct_share = np.exp(-distance_m / self.draw(model.direct_absorption_m))
        refracted_share = 0.6 * np.exp(-distance_m / self.draw(model.refracted_absorption_m))
        amplitude = self.draw(model.body_amplitude)
        bounce = np.arange(14)[:, None]
        # Each bounce between surface and bedrock delays the wave by one period and turns its sign.
        strength = amplitude * (-decay) ** bounce
        peak_hz = self.draw(model.body_wavelet_hz)
        for first_s, share in ((direct_s, direct_share), (refracted_s, refracted_share)):
            self.data += self.arrivals(first_s + period_s * bounce, share * strength, peak_hz)
        return np.minimum(direct_s, refracted_s)

    def add_reflections(self) -> None:
        model, rng = self.model, self.rng
        count = self.draw_count(model.reflector_count)
        zero_offset_s = np.sort(rng.uniform(0.15, SAMPLE_COUNT * SAMPLE_INTERVAL_S, count))
        shallow = self.draw(model.reflection_velocity_m_per_s)
        velocity = shallow + self.draw(model.reflection_velocity_growth_m_per_s2) * zero_offset_s
        time_s = reflection_time_s(OFFSET_M, zero_offset_s, velocity, self.draw(model.reflection_dip_s_per_m))
        coefficient = (
            self.draw(model.reflection_amplitude) * rng.gamma(2.0, 0.5, count) * rng.choice((-1.0, 1.0), count)
        )
        amplitude = coefficient[:, None] * np.exp(-time_s / self.draw(model.reflection_decay_s)) / (0.3 + time_s)
        self.data += self.arrivals(time_s, amplitude, self.draw(model.body_wavelet_hz))

    def add_ground_roll(self) -> None:
        model = self.model
        slow, fast = self.draw(model.roll_slow_velocity_m_per_s), self.draw(model.roll_fast_velocity_m_per_s)
        # Slow waves from far stations come after the record's end; a longer transform keeps them from wrapping round.
        count = 2 * _FFT_COUNT
        frequency_hz = np.fft.rfftfreq(count, SAMPLE_INTERVAL_S)
        velocity = slow + (fast - slow) / (1.0 + (frequency_hz / self.draw(model.roll_corner_hz)) ** 2)
        distance_m = OFFSET_M[TRACE_COUNT // 2 :, None]
        phase = 2.0 * np.pi * frequency_hz * (distance_m / velocity + 0.05)
        spectrum = ricker_spectrum(frequency_hz, self.draw(model.roll_wavelet_hz)) * np.exp(-1j * phase)
        # Surface waves spread in two dimensions: their amplitude falls with the root of the distance.
        amplitude = self.draw(model.roll_amplitude) / np.sqrt(1.0 + distance_m / 100.0)
        amplitude = amplitude * np.exp(-distance_m / self.draw(model.roll_absorption_m))
        right = (amplitude * np.fft.irfft(spectrum, count, axis=1))[:, :SAMPLE_COUNT]
        self.data += np.concatenate((right[::-1], right))

    def add_coda(self, first_s: Array) -> None:
        model = self.model
        distance_m = np.abs(OFFSET_M)[:, None]
        wide = self.draw(model.coda_amplitude) * np.exp(-distance_m / self.draw(model.coda_reach_m))
        column = self.draw(model.column_amplitude) * np.exp(-distance_m / self.draw(model.column_reach_m))
        wide = wide * _since(first_s, self.draw(model.coda_decay_s))
        column = column * _since(first_s, self.draw(model.column_decay_s))
        noise = self.band_noise(TRACE_COUNT + 4, 20.0, 11.0)
        # Neighbouring stations hear much the same scatterers: a running mean over five, of power one.
        scattered = sum(w * noise[k : k + TRACE_COUNT] for k, w in enumerate((1.0, 4.0, 6.0, 4.0, 1.0))) / np.sqrt(70.0)
        self.data += (wide + column) * scattered

    def couple(self) -> None:
        """Scales each station by how well it is coupled to the ground."""
        spread = self.draw(self.model.coupling_spread)
        self.data *= np.exp(self.rng.normal(0.0, spread, TRACE_COUNT))[:, None]

    def add_station_noise(self, first_s: Array) -> None:
        """What single stations hear: ambient noise everywhere, steady noise and ringing at some."""
        model = self.model
        self.data += self.draw(model.ambient_amplitude) * self.band_noise(TRACE_COUNT, 20.0, 16.0)
        noisy = self.stations(model.noisy_station_count)
        level = self.rng.uniform(*model.noisy_station_amplitude, noisy.size)
        self.data[noisy] += level[:, None] * self.band_noise(noisy.size, self.draw(model.noisy_station_hz), 12.0)
        ringing = self.stations(model.ringing_station_count)
        level = self.rng.uniform(*model.ringing_station_amplitude, ringing.size)
        centre_hz, width_hz = self.draw(model.ringing_station_hz), self.draw(model.ringing_bandwidth_hz)
        shaken = _since(first_s[ringing], self.draw(model.ringing_decay_s))
        self.data[ringing] += level[:, None] * shaken * self.band_noise(ringing.size, centre_hz, width_hz)

    def add_machines(self) -> None:
        model = self.model
        for side in self.sides(model.machine_count_per_side):
            standoff_m = self.draw(model.machine_standoff_m)
            distance_m = np.hypot(side * OFFSET_M - self.draw(model.machine_position_m), standoff_m)[:, None]
            band, power = _band(self.draw(model.machine_hz), self.draw(model.machine_bandwidth_hz))
            # The hum never starts or stops: noise as long as the transform, which a delay may turn in a circle.
            hum = np.fft.rfft(self.rng.standard_normal(_FFT_COUNT)) * band / np.sqrt(power)
            delay = np.exp(-2j * np.pi * _FREQUENCY_HZ * distance_m / self.draw(model.machine_velocity_m_per_s))
            near = self.draw(model.machine_amplitude) * (standoff_m / distance_m) ** 1.5
            self.data += near * np.fft.irfft(hum * delay, _FFT_COUNT, axis=1)[:, :SAMPLE_COUNT]

    def add_cracks(self) -> None:
        model = self.model
        for side in self.sides(model.crack_count_per_side):
            run_s = (side * OFFSET_M - self.draw(model.crack_start_m)) / self.draw(model.crack_velocity_m_per_s)
            running = (run_s >= 0.0) & (run_s < self.draw(model.crack_duration_s))
            passed_s = TIME_S - self.draw(model.crack_start_s) - run_s[:, None]
            burst = np.exp(-((passed_s / self.draw(model.crack_burst_s)) ** 2)) * running[:, None]
            self.data += self.draw(model.crack_amplitude) * burst * self.band_noise(TRACE_COUNT, 20.0, 10.0)

    def add_row(self) -> None:
        model = self.model
        period_m = self.draw(model.row_period_m)
        if period_m == 0.0:
            return
        aside_m = OFFSET_M - period_m * np.rint(OFFSET_M / period_m)
        near = self.draw(model.row_amplitude) * np.exp(-((aside_m / self.draw(model.row_width_m)) ** 2))
        begun = _since(np.abs(OFFSET_M) / self.draw(model.row_velocity_m_per_s), np.inf)
        self.data += near[:, None] * begun * self.band_noise(TRACE_COUNT, 22.0, 12.0)

    def kill_traces(self) -> None:
        model = self.model
        for side in self.sides(model.dead_zone_count_per_side):
            into_m = side * OFFSET_M - self.draw(model.dead_zone_start_m)
            self.data[(into_m >= 0.0) & (into_m <= self.draw(model.dead_zone_width_m))] = 0.0

    def displayed(self) -> Array:
        model = self.model
        gained = self.data * (TIME_S + 0.1) ** self.draw(model.display_gain_power)
        live = np.abs(gained[np.any(self.data != 0.0, axis=1)])
        clip = np.quantile(live, 1.0 - self.draw(model.display_clipped_share))
        return np.ascontiguousarray(np.clip(gained / clip, -1.0, 1.0).T)
