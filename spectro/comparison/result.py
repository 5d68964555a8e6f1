"""All that a comparison found, computed from runs; nothing is written here."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spectro.comparison.contenders import PIXELS, Contender, as_text, contenders_of, differing
from spectro.comparison.look_alikes import LookAlikes, look_alikes_of
from spectro.comparison.numbers import Pair, Scores, agreed, pairs_of, scores_of, truth_of, wrong_for_all
from spectro.comparison.references import Images, majority_line, pixels_line
from spectro.comparison.runs import Run
from spectro.comparison.words import Verdict, verdict
from spectro.errors import SpectroError


@dataclass(frozen=True)
class Wrong:
    """A record that every model gets wrong: a likely label error, or a hard one.

    Attributes:
        path: Its path below the data's root.
        label: Its label.
        said: Contender -> its vote and the mean probability of it over seeds.
        agreed: What most models say, how many do, and how sure they are: the mean probability of it.
    """

    path: str
    label: str
    said: Mapping[str, tuple[str, float | None]]
    agreed: tuple[str, int, float]


@dataclass(frozen=True)
class Result:
    """A comparison.

    Attributes:
        split: What was compared.
        runs: The runs that count.
        contenders: Models, then reference lines.
        scores: By contender.
        between: Tests of every two models.
        against: Tests of every model and reference line.
        look_alikes: The look-alike groups.
        wrong: Records that every model gets wrong, those first that the models call the same thing most surely.
        cost: Contender -> an entry ``cost`` of ``run.json``, meant over seeds; None where it is not known.
        settings: Key -> contender -> value, where contenders differ.
        verdict: The sentences.
        notes: What else a person should know.
    """

    split: str
    runs: Sequence[Run]
    contenders: Sequence[Contender]
    scores: Mapping[str, Scores]
    between: Sequence[Pair]
    against: Sequence[Pair]
    look_alikes: Sequence[LookAlikes]
    wrong: Sequence[Wrong]
    cost: Mapping[str, Mapping[str, float | None]]
    settings: Mapping[str, Mapping[str, str]]
    verdict: Verdict
    notes: Sequence[str]

    @property
    def models(self) -> list[Contender]:
        """The contenders that are not reference lines."""
        return [one for one in self.contenders if not one.is_reference]

    @property
    def lines(self) -> list[Contender]:
        """The reference lines."""
        return [one for one in self.contenders if one.is_reference]

    def as_json(self) -> dict[str, Any]:
        """Every number, as plain values."""
        return {
            "split": self.split,
            "n_records": len(self.contenders[0].rows),
            "classes": list(self.contenders[0].classes),
            "contenders": {
                one.name: {
                    "is_reference": one.is_reference,
                    "seeds": one.seeds,
                    "runs": [run.origin for run in one.runs],
                    "scores": asdict(self.scores[one.name]),
                    "cost": dict(self.cost[one.name]),
                }
                for one in self.contenders
            },
            "pairs": [{**asdict(pair), "is_better": pair.is_better} for pair in (*self.between, *self.against)],
            "look_alikes": [
                {"group": own.group, "members": own.members, "support": own.support, "confusion": own.confusion}
                for own in self.look_alikes
            ],
            "wrong_for_all": [asdict(one) for one in self.wrong],
            "settings": self.settings,
            "verdict": asdict(self.verdict),
            "notes": list(self.notes),
        }


def compare_runs(
    runs: Sequence[Run], images: Images, split: str, *, notes: Sequence[str] = (), seed: int = 0
) -> Result:
    """Compares comparable runs with one another and with the reference lines.

    Args:
        runs: Comparable runs, see `spectro.comparison.check`.
        images: Their data set, for the regression on pixels.
        split: ``test`` or ``val``.
        notes: What is known already.
        seed: Seed of the bootstraps.
    """
    contenders, more = contenders_of(runs)
    told = [*notes, *more]
    cost = {one.name: _cost(one.runs) for one in contenders}
    lines = [majority_line(runs[0])]
    if not any(one.runs and one.runs[0].model == PIXELS for one in contenders):
        try:
            if images.dataset is None:
                raise SpectroError(str(images.reason))
            line, its_cost = pixels_line(runs[0], images, split)
            lines.append(line)
            cost[line.name] = its_cost
        except SpectroError as error:
            told.append(f"the pixels line (logistic regression on 20x15 grey pixels) is left out: {error}")
    cost[lines[0].name] = dict.fromkeys(_COST)
    contenders = sorted([*contenders, *lines], key=lambda one: one.is_reference)
    groups = runs[0].mapping["look_alikes"]
    scores = {one.name: scores_of(one, groups, seed) for one in contenders}
    between, against = pairs_of(contenders, seed)
    counted = [run for one in contenders for run in one.runs]
    configured = {one.name: one.settings for one in contenders if one.settings and one.runs}
    keys = [key for key in differing(list(configured.values())) if key != "model.name"]
    return Result(
        split=split,
        runs=counted,
        contenders=contenders,
        scores=scores,
        between=between,
        against=against,
        look_alikes=look_alikes_of(contenders, groups),
        wrong=_all_wrong(contenders),
        cost=cost,
        settings={
            key: {name: as_text(own[key]) if key in own else "–" for name, own in configured.items()} for key in keys
        },
        verdict=verdict(contenders, scores, between, against, split),
        notes=told,
    )


_COST = ("fit_s", "predict_records_per_s", "trainable_parameters", "peak_memory_mb")


def _cost(runs: Sequence[Run]) -> dict[str, float | None]:
    """What the runs of a contender cost, the mean over seeds of each that is known; memory is the most."""
    each = []
    for run in runs:
        networks = (run.info.get("networks") or {}).values()
        # Runs from before there was an entry `cost` know some of it elsewhere.
        older = {
            "fit_s": (run.info.get("wall_s") or {}).get("fit"),
            "trainable_parameters": sum(own["parameters"]["trainable"] for own in networks) if networks else None,
            "peak_memory_mb": run.info.get("peak_memory_mb"),
        }
        each.append({**older, **(run.info.get("cost") or {})})
    found: dict[str, float | None] = {}
    for key in _COST:
        known = [own[key] for own in each if own.get(key) is not None]
        found[key] = None if not known else float(max(known) if key == "peak_memory_mb" else np.mean(known))
    return found


def _all_wrong(contenders: Sequence[Contender]) -> list[Wrong]:
    found = [_wrong(contenders, index) for index in wrong_for_all(contenders)]
    return sorted(found, key=lambda one: (-one.agreed[1], -one.agreed[2], one.path))


def _wrong(contenders: Sequence[Contender], index: int) -> Wrong:
    said: dict[str, tuple[str, float | None]] = {}
    for one in contenders:
        vote = str(one.votes[index])
        p = None if one.probabilities is None else float(one.probabilities[:, index, one.classes.index(vote)].mean())
        said[one.name] = (vote, p)
    row = contenders[0].rows[index]
    label, count = agreed(contenders, index)
    sure = [
        float(one.probabilities[:, index, one.classes.index(label)].mean())
        for one in contenders
        if not one.is_reference and one.probabilities is not None
    ]
    return Wrong(row.path, str(truth_of(contenders[0])[index]), said, (label, count, float(np.mean(sure))))
