"""Everything that a comparison computes: scores with intervals, tests, look-alikes, records that all get wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from spectro.comparison.load import Run
from spectro.comparison.models import MAJORITY, Model
from spectro.comparison.pairs import Pair, compare_pairs
from spectro.evaluation.curves import PairCurves, pair_curves
from spectro.evaluation.intervals import wilson
from spectro.evaluation.metrics import METRICS
from spectro.evaluation.paired import Estimate, score_over_seeds

OTHER = "another class"


@dataclass(frozen=True)
class Scores:
    """Scores of a model.

    Attributes:
        metrics: Metric -> mean over seeds with its interval.
        recall: Class -> mean recall over seeds with its Wilson interval; only classes with records.
        look_alikes: Look-alike group -> metric of look-alikes -> the same; only groups with records.
    """

    metrics: Mapping[str, Estimate]
    recall: Mapping[str, Estimate]
    look_alikes: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class LookAlikes:
    """The records that truly are of a group of look-alikes.

    Attributes:
        group: Its merged label.
        members: Its classes.
        support: Class -> number of records.
        confusion: Model -> rows (truth, as ``members``) of counts by vote over seeds; columns are ``members`` and any
            other class.
        curves: Model -> ROC and precision-recall of the second class, by its share of the two probabilities; empty
            unless the group has exactly two classes and both have records.
    """

    group: str
    members: tuple[str, ...]
    support: Mapping[str, int]
    confusion: Mapping[str, Sequence[Sequence[int]]]
    curves: Mapping[str, PairCurves]


@dataclass(frozen=True)
class WrongRecord:
    """A record that every model gets wrong: likely a label error, or a hard record.

    Attributes:
        path: Its path below the data's root.
        label: Its label.
        predicted: Model -> predicted label by vote, and its mean probability over seeds.
        agreed: The label that most models predict, how many do, and its mean probability.
    """

    path: str
    label: str
    predicted: Mapping[str, tuple[str, float]]
    agreed: tuple[str, int, float]


@dataclass(frozen=True)
class Result:
    """What a comparison computes.

    Attributes:
        split: The split that is compared.
        models: Models, then baselines.
        support: Class -> number of records.
        scores: By name of a model.
        between: Tests of every two models.
        against: Tests of every model and baseline.
        look_alikes: The look-alike groups that the task separates.
        wrong: Records that every model gets wrong, most certain agreement of the models first.
        notes: What else a person should know.
    """

    split: str
    models: Sequence[Model]
    support: Mapping[str, int]
    scores: Mapping[str, Scores]
    between: Sequence[Pair]
    against: Sequence[Pair]
    look_alikes: Sequence[LookAlikes]
    wrong: Sequence[WrongRecord]
    notes: Sequence[str] = ()

    @property
    def candidates(self) -> list[Model]:
        """The models that are not baselines."""
        return [model for model in self.models if not model.is_baseline]

    @property
    def runs(self) -> list[Run]:
        """The runs of all models."""
        return [run for model in self.models for run in model.runs]

    @property
    def n_records(self) -> int:
        """Number of records."""
        return sum(self.support.values())

    def as_json(self) -> dict[str, Any]:
        """Every number, as plain values."""
        return {
            "split": self.split,
            "n_records": self.n_records,
            "support": self.support,
            "models": {
                model.name: {
                    "is_baseline": model.is_baseline,
                    "seeds": model.seeds,
                    "runs": [run.origin for run in model.runs],
                    "scores": asdict(self.scores[model.name]),
                    "cost": asdict(model.cost),
                }
                for model in self.models
            },
            "pairs": [{**asdict(pair), "is_better": pair.is_better} for pair in (*self.between, *self.against)],
            "look_alikes": [
                {"group": group.group, "members": group.members, "support": group.support, "confusion": group.confusion}
                for group in self.look_alikes
            ],
            "wrong_for_all": [asdict(record) for record in self.wrong],
            "notes": list(self.notes),
        }


def compute(
    models: Sequence[Model],
    look_alikes: Mapping[str, Sequence[str]],
    split: str,
    *,
    notes: Sequence[str] = (),
    seed: int = 0,
) -> Result:
    """Computes a comparison.

    Args:
        models: Models and baselines, of the same records.
        look_alikes: Group -> its classes; groups that the task does not separate are ignored.
        split: The split of the records.
        notes: What a person should know of the models.
        seed: Seed of the bootstraps.
    """
    models = sorted(models, key=lambda model: model.is_baseline)
    first = models[0].predictions[0]
    look_alikes = {g: members for g, members in look_alikes.items() if set(members) <= set(first.classes)}
    scores = {model.name: _scores(model, look_alikes, seed) for model in models}
    ranked = sorted(models, key=lambda model: -scores[model.name].metrics["macro_f1"].value)
    pairs = list(combinations(ranked, 2))
    return Result(
        split=split,
        models=models,
        support={str(label): int((first.y_true == label).sum()) for label in first.classes},
        scores=scores,
        between=compare_pairs([(a, b) for a, b in pairs if not a.is_baseline and not b.is_baseline], seed),
        against=compare_pairs([(a, b) for a, b in pairs if a.is_baseline != b.is_baseline], seed),
        look_alikes=[
            _look_alikes(models, group, tuple(members))
            for group, members in look_alikes.items()
            if np.isin(first.y_true, list(members)).any()
        ],
        wrong=_wrong_for_all(models),
        notes=notes,
    )


def _scores(model: Model, look_alikes: Mapping[str, Sequence[str]], seed: int) -> Scores:
    first, predicted = model.predictions[0], model.predicted
    # Of a single run the intervals are those of its metrics.json.
    options: dict[str, Any] = {"sources": first.sources, "seed": seed}
    if len(model.seeds) == 1:
        options |= {"seed": model.seeds[0], "resamples": 1000}
    recall = {}
    for label in first.classes[np.isin(first.classes, first.y_true)]:
        of_seeds = (predicted[:, first.y_true == label] == label).mean(axis=1)
        n, value = int((first.y_true == label).sum()), float(of_seeds.mean())
        # Seeds are no further records: the interval is that of the mean recall over the records that there are.
        low, high = wilson(min(value * n, n), n)
        recall[str(label)] = Estimate(value, low, high, None, tuple(of_seeds.tolist()))
    by_group = {}
    for group, members in look_alikes.items():
        if np.isin(first.y_true, list(members)).any():
            estimates = score_over_seeds(first.y_true, predicted, first.classes, look_alikes=members, **options)
            by_group[group] = {name: e for name, e in estimates.items() if METRICS[name].needs_look_alikes}
    return Scores(score_over_seeds(first.y_true, predicted, first.classes, **options), recall, by_group)


def _look_alikes(models: Sequence[Model], group: str, members: tuple[str, ...]) -> LookAlikes:
    first = models[0].predictions[0]
    in_group = np.isin(first.y_true, members)
    support = {label: int((first.y_true == label).sum()) for label in members}
    columns = [list(first.classes).index(label) for label in members]
    confusion, curves = {}, {}
    for model in models:
        votes = np.where(np.isin(model.votes, members), model.votes, OTHER)
        confusion[model.name] = [
            [int(((first.y_true == true) & (votes == predicted)).sum()) for predicted in (*members, OTHER)]
            for true in members
        ]
        if len(members) == 2 and all(support.values()) and model.name != MAJORITY:
            shares = []
            for predictions in model.predictions:
                pair = predictions.probabilities[in_group][:, columns]
                total = pair.sum(axis=1)
                # A model that gives neither of them any probability has no preference.
                shares.append(np.divide(pair[:, 1], total, out=np.full(total.shape, 0.5), where=total > 0))
            sources = [source for source, is_in in zip(first.sources, in_group, strict=True) if is_in]
            is_second = first.y_true[in_group] == members[1]
            curves[model.name] = pair_curves(is_second, np.mean(shares, axis=0), sources=sources)
    return LookAlikes(group, members, support, confusion, curves)


def _wrong_for_all(models: Sequence[Model]) -> list[WrongRecord]:
    """Records that every model and the pixels baseline, by the vote of their seeds, predict wrong."""
    models = [model for model in models if model.name != MAJORITY]
    candidates, first = [model for model in models if not model.is_baseline], models[0].predictions[0]
    votes, column = {model.name: model.votes for model in models}, {str(c): i for i, c in enumerate(first.classes)}
    probabilities = {model.name: model.probabilities for model in models}
    records = []
    for i in np.flatnonzero(np.all([vote != first.y_true for vote in votes.values()], axis=0)).tolist():
        predicted = {name: str(vote[i]) for name, vote in votes.items()}
        counts = Counter(predicted[model.name] for model in candidates)
        agreed, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
        certainty = float(np.mean([probabilities[model.name][i, column[agreed]] for model in candidates]))
        records.append(
            WrongRecord(
                first.records[i].path.as_posix(),
                str(first.y_true[i]),
                {name: (label, float(probabilities[name][i, column[label]])) for name, label in predicted.items()},
                (agreed, count, certainty),
            )
        )
    return sorted(records, key=lambda record: (-record.agreed[1], -record.agreed[2], record.path))
