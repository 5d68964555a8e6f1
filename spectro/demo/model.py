"""What a demo shot record is made from: the survey, and the parameters of the physical model.

Amplitudes are relative: 1 is a reflection of unit strength after spreading has been compensated.
Every name carries its unit; a name without one is a count, a share or a relative amplitude.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Span = tuple[float, float]
"""Smallest and largest value of a parameter; each record draws its own, uniformly."""

TRACE_COUNT = 180
TRACE_SPACING_M = 25.0
SAMPLE_COUNT = 300
SAMPLE_INTERVAL_S = 0.008

# The stations lie symmetrically about the source, so that a mirrored record is a record of the same survey.
OFFSET_M: Array = (np.arange(TRACE_COUNT) - (TRACE_COUNT - 1) / 2) * TRACE_SPACING_M
TIME_S: Array = np.arange(SAMPLE_COUNT) * SAMPLE_INTERVAL_S


@dataclass(frozen=True, kw_only=True)
class RecordModel:
    """How the records of one class come about; a `Span` is drawn anew for each record.

    Distances are along the line, in metres from the source; times are from the shot. Counts are spans of floats
    whose drawn value is rounded. The defaults are a clean record.
    """

    # Body waves.
    near_velocity_m_per_s: Span = (1450.0, 1750.0)
    refractor_velocity_m_per_s: Span = (2700.0, 3500.0)
    refractor_intercept_s: Span = (0.02, 0.12)
    body_wavelet_hz: Span = (19.0, 24.0)
    direct_absorption_m: Span = (350.0, 550.0)
    refracted_absorption_m: Span = (800.0, 1300.0)
    body_amplitude: Span = (14.0, 26.0)
    reverberation_period_s: Span = (0.045, 0.075)
    reverberation_decay: Span = (0.70, 0.84)

    # Reflections: coefficients vary in strength and sign from layer to layer.
    reflector_count: Span = (34.0, 50.0)
    reflection_amplitude: Span = (2.4, 4.0)
    reflection_velocity_m_per_s: Span = (2300.0, 2900.0)
    reflection_velocity_growth_m_per_s2: Span = (250.0, 550.0)
    reflection_dip_s_per_m: Span = (-1.2e-5, 1.2e-5)
    reflection_decay_s: Span = (1.2, 2.4)

    # Ground roll: phase velocity falls from slow to fast frequencies about the corner frequency.
    roll_wavelet_hz: Span = (12.0, 16.0)
    roll_slow_velocity_m_per_s: Span = (330.0, 480.0)
    roll_fast_velocity_m_per_s: Span = (900.0, 1300.0)
    roll_corner_hz: Span = (8.0, 12.0)
    roll_absorption_m: Span = (250.0, 500.0)
    roll_amplitude: Span = (10.0, 22.0)

    # Coda: waves scattered near the surface; a narrow column about the source rings on much longer.
    coda_amplitude: Span = (16.0, 26.0)
    coda_reach_m: Span = (300.0, 450.0)
    coda_decay_s: Span = (0.30, 0.50)
    column_amplitude: Span = (12.0, 22.0)
    column_reach_m: Span = (55.0, 95.0)
    column_decay_s: Span = (1.0, 2.2)

    # Every station: how well it is coupled to the ground, and what it hears all the time.
    coupling_spread: Span = (0.18, 0.30)
    static_shift_s: float = 0.002
    ambient_amplitude: Span = (0.10, 0.20)

    # Noisy stations: wind, traffic, a bad cable; loud from start to end.
    noisy_station_count: Span = (0.0, 2.0)
    noisy_station_amplitude: Span = (2.0, 6.0)
    noisy_station_hz: Span = (15.0, 30.0)

    # Ringing stations, badly coupled or tipped over: shaken by the first arrival, they ring in their own band.
    ringing_station_count: Span = (0.0, 2.0)
    ringing_station_amplitude: Span = (3.0, 8.0)
    ringing_station_hz: Span = (18.0, 24.0)
    ringing_bandwidth_hz: Span = (7.0, 10.0)
    ringing_decay_s: Span = (0.7, 1.6)

    # Machines (pumps) beside the line: a steady hum that the nearest stations hear, moved out by their distance.
    machine_count_per_side: Span = (0.0, 0.0)
    machine_position_m: Span = (500.0, 2000.0)
    machine_standoff_m: Span = (15.0, 40.0)
    machine_amplitude: Span = (3.0, 8.0)
    machine_hz: Span = (11.0, 17.0)
    machine_bandwidth_hz: Span = (1.5, 4.0)
    machine_velocity_m_per_s: Span = (500.0, 900.0)

    # Ice cracks: a crack tip runs outwards along the ice and each station records a burst as the tip passes.
    crack_count_per_side: Span = (0.0, 0.0)
    crack_start_m: Span = (150.0, 650.0)
    crack_start_s: Span = (0.4, 1.0)
    crack_velocity_m_per_s: Span = (190.0, 290.0)
    crack_duration_s: Span = (0.9, 1.5)
    crack_burst_s: Span = (0.07, 0.11)
    crack_amplitude: Span = (6.0, 14.0)

    # A regular row of stations beside a noisy structure, which the slow surface wave sets going.
    row_period_m: Span = (0.0, 0.0)
    row_width_m: Span = (20.0, 40.0)
    row_amplitude: Span = (8.0, 16.0)
    row_velocity_m_per_s: Span = (450.0, 800.0)

    # Missing traces: dead groups on either side of the source, or none.
    dead_zone_count_per_side: Span = (0.0, 0.0)
    dead_zone_start_m: Span = (150.0, 1500.0)
    dead_zone_width_m: Span = (250.0, 700.0)

    # Display: the gain grows with time to make up for spreading; the clip is the loudest share of the samples.
    display_gain_power: Span = (0.6, 0.9)
    display_clipped_share: Span = (0.14, 0.20)
