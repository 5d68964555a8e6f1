"""Figures of a search: its history, which hyperparameters matter, and the score along each of these."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectro.figures import Job, draw
from spectro.figures.style import COLOURS, FAINT, FIXED_SPACE, INK, MUTED, fit_text, page, panels, save, shades, styled

_NAME_IN, _N_SLICES, _COLUMNS = 1.9, 5, 3
# Ends of names that are units.
_UNITS = {"_px": "pixels", "_percent": "%", "_s": "s", "_hz": "Hz", " x": "multiples of scale"}
# Early trials are light.
_AGES = ("#cfe2f0", COLOURS[0])


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter that is searched.

    Attributes:
        name: Its key.
        choices: Its values as text; empty for a range.
        low, high: The ends of a range.
        log: Whether the range is logarithmic.
    """

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @property
    def label(self) -> str:
        """The key and the unit of its values."""
        for end, unit in _UNITS.items():
            if self.name.endswith(end):
                return f"{self.name.removesuffix(' x')}, {unit}"
        return self.name


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Attributes:
        state: ``COMPLETE``, ``PRUNED`` or ``FAIL``.
        value: Its score; None unless it is complete.
        params: The value of each hyperparameter; of a choice its number; NaN where there is none.
    """

    number: int
    state: str
    value: float | None
    params: Sequence[float]


def search_figures(
    folder: Path, trials: Sequence[Trial], parameters: Sequence[Parameter], objective: str, name: str
) -> list[str]:
    """Draws all figures of a search into a folder, and returns a line for each that failed.

    Args:
        objective: What the score is, in words.
    """
    from spectro.evaluation.importance import MIN_TRIALS, total_effects

    done = [trial for trial in trials if trial.value is not None]
    content: dict[str, Any] = {"trials": trials, "objective": objective, "title": f"{name}: history"}
    jobs: list[Job] = [(history_figure, content, folder / "optimization_history.png")]
    order, of_them = range(len(parameters)), "the first five"
    if len({tuple(trial.params) for trial in done}) >= MIN_TRIALS:
        logs = np.array([p.log for p in parameters])
        X = np.array([trial.params for trial in done], dtype=float)
        ends = np.array([(0, len(p.choices) - 1) if p.choices else (p.low, p.high) for p in parameters], dtype=float).T
        X, low, high = (np.where(logs, np.log(np.where(logs, v, 1.0)), v) for v in (X, *ends))
        is_choice = np.array([bool(p.choices) for p in parameters])
        shares, explained = total_effects(X, np.array([trial.value for trial in done]), low, high, is_choice)
        order, of_them = np.argsort(-shares.mean(axis=0), kind="stable").tolist(), "the five most important"
        title = f"{name}: importance of hyperparameters"
        content = {"parameters": parameters, "shares": shares, "explained": explained, "n": len(done), "title": title}
        jobs.append((importance_figure, content, folder / "parameter_importance.png"))
    if done:
        which, several = list(order)[:_N_SLICES], len(parameters) > _N_SLICES
        title = f"{name}: {of_them} hyperparameters" if several else f"{name}: hyperparameters"
        content = {"trials": done, "parameters": parameters, "which": which, "objective": objective, "title": title}
        jobs.append((slices_figure, content, folder / "slices.png"))
    return draw(jobs)


@styled
def history_figure(trials: Sequence[Trial], objective: str, path: str | Path, title: str) -> Path:
    """Draws the score of each trial and the best so far; what was pruned or failed stands at the bottom.

    Args:
        objective: What the score is, in words.
    """
    from matplotlib.ticker import MaxNLocator

    fig, ax = page(6.4, 3.2)
    done = sorted((t.number, t.value) for t in trials if t.value is not None)
    ended = {state: [t.number for t in trials if t.state == state] for state in ("PRUNED", "FAIL")}
    if done:
        numbers, values = zip(*done, strict=True)
        best = np.maximum.accumulate(values)
        last = max(t.number for t in trials)
        ax.step([*numbers, last], [*best, best[-1]], where="post", color=COLOURS[0], linewidth=1.6, label="best so far")
        ax.plot(numbers, values, "o", color=COLOURS[0], markersize=5, alpha=0.55, markeredgewidth=0, label="trial")
        first = values.index(best[-1])
        ax.plot(
            [numbers[first]], [best[-1]], "o", color=COLOURS[1], markersize=7, label=f"best: trial {numbers[first]}"
        )
        ax.annotate(f"{best[-1]:.3f}", (last, best[-1]), (6, 0), textcoords="offset points", va="center", color=INK)
    for state, marker, word in (("PRUNED", "|", "pruned"), ("FAIL", "x", "failed")):
        if ended[state]:
            at: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "clip_on": False}
            ax.plot(ended[state], [0] * len(ended[state]), marker, color=MUTED, markersize=7, label=word, **at)
    ax.set(xlabel="trial", ylabel=objective)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=5, borderaxespad=0)
    counts = [f"{len(done)} complete", *(f"{len(ended[s])} {w}" for s, w in (("PRUNED", "pruned"), ("FAIL", "failed")))]
    return save(fig, path, title, f"{len(trials)} trials: {', '.join(counts)}")


@styled
def importance_figure(
    parameters: Sequence[Parameter], shares: np.ndarray, explained: float, n: int, path: str | Path, title: str
) -> Path:
    """Draws what `spectro.evaluation.importance.total_effects` returns, the most important hyperparameter first.

    Args:
        parameters: What is searched, ``p``.
        shares: The index of each by each part of the forest, ``(parts, p)``.
        explained: The share of the trials' variance that the forest explains.
    """
    mean, low, high = shares.mean(axis=0), shares.min(axis=0), shares.max(axis=0)
    order = np.argsort(-mean, kind="stable")
    fig, ax = page(3.6, 0.27 * len(order))
    for row, j in enumerate(order):
        ax.barh(row, mean[j], height=0.62, color=COLOURS[0], alpha=0.35, linewidth=0)
        ax.plot([low[j], high[j]], [row, row], color=COLOURS[0], linewidth=1.6)
        text = f"{mean[j]:.2f} [{low[j]:.2f}, {high[j]:.2f}]"
        ax.text(1.04, row, text, transform=ax.get_yaxis_transform(), va="center", size=8, color=INK)
    names = [fit_text(fig, parameters[j].name.removesuffix(" x"), _NAME_IN, 9) for j in order]
    ax.set_yticks(range(len(order)), names, fontsize=9, color=INK)
    ax.set(ylim=(len(order) - 0.4, -0.6), xlim=(0, max(1.0, float(high.max()))))
    ax.set_xlabel("share of the score's variance over the search space")
    ax.grid(axis="x", linewidth=0.6)
    ax.spines[:].set_visible(False)
    trust = f"it explains {100 * explained:.0f}{FIXED_SPACE}% of the variance of trials that it was not fitted to"
    doubt = "it predicts trials that it was not fitted to no better than their mean does, so read nothing into this"
    forest = f"Total effect (Sobol) by a random forest fitted to {n} trials; {trust if explained > 0 else doubt}."
    about = f"{forest} Lines: range over eighths of the forest."
    return save(fig, path, title, about)


@styled
def slices_figure(
    trials: Sequence[Trial],
    parameters: Sequence[Parameter],
    which: Sequence[int],
    objective: str,
    path: str | Path,
    title: str,
) -> Path:
    """Draws the score of the trials along some hyperparameters, a panel for each; later trials are darker.

    Args:
        trials: Complete trials, at least one.
        which: The numbers of those that are drawn, at least one.
        objective: What the score is, in words.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    columns = min(_COLUMNS, len(which))
    fig, axes = panels(-(-len(which) // columns), columns, 2.5, 2.0, 0.75)
    values = np.array([trial.value for trial in trials])
    best, ages = int(values.argmax()), np.linspace(0, 1, len(trials))
    margin = 0.06 * (np.ptp(values) or 0.1)
    for ax, j in zip(axes.flat, which, strict=False):
        parameter, x = parameters[j], np.array([trial.params[j] for trial in trials])
        if parameter.choices:
            # Side by side, by the golden ratio, so that equal values are all seen.
            x = x + 0.5 * (np.array([trial.number for trial in trials]) * 0.618034 % 1) - 0.25
            texts = [fit_text(fig, text, 2.2 / len(parameter.choices), 8) for text in parameter.choices]
            ax.set_xticks(range(len(texts)), texts)
            ax.set_xlim(-0.6, len(texts) - 0.4)
        elif parameter.log:
            ax.set_xscale("log")
            ax.set_xlim(parameter.low / 1.15, parameter.high * 1.15)
            decades = math.log10(parameter.high / parameter.low)
            few = LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 3.0) if decades > 1 else (1.0, 2.0, 5.0))
            ax.xaxis.set_major_locator(few)
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
        else:
            room = 0.05 * ((parameter.high - parameter.low) or 1.0)
            ax.set_xlim(parameter.low - room, parameter.high + room)
            ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.scatter(x, values, c=ages, cmap=shades(_AGES), s=22, linewidth=0.4, edgecolor="white", zorder=3)
        ax.plot([x[best]], [values[best]], "o", markersize=8, fillstyle="none", color=COLOURS[1], markeredgewidth=1.8)
        ax.set_ylim(values.min() - margin, values.max() + margin)
        ax.set_xlabel(fit_text(fig, parameter.label, 2.5, 9), color=INK)
        ax.grid(linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[:].set_color(FAINT)
    for ax in axes.flat[len(which) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel(fit_text(fig, objective, 2.0, 9))
    text = f"{len(trials)} complete trials, the later the darker; ring: the best, trial {trials[best].number}"
    return save(fig, path, title, text)
