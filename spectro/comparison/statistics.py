"""Everything that a comparison computes: scores with intervals, tests, look-alikes, records that all get wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from spectro.comparison.load import Run
from spectro.comparison.models import Model
from spectro.comparison.names import MAJORITY
from spectro.comparison.pairs import Pair, compare_pairs
from spectro.evaluation.curves import PairCurves, pair_curves
from spectro.evaluation.intervals import design_effects, number_sources, wilson
from spectro.evaluation.metrics import METRICS
from spectro.evaluation.paired import Estimate, score_over_seeds
from spectro.evaluation.selective import accuracy_at, confidence_of

OTHER = "another class"
# Shares of the records that are automatic, the most confident ones, in per cent.
COVERAGES = (100, 90, 80, 50)
# Scores that have tables of their own.
_OF_A_PART = ("recall/", "accuracy_at/")


@dataclass(frozen=True)
class LookAlikes:
    """The records that truly are of a group of look-alikes.

    Attributes:
        group: Its merged label.
        members: Its classes.
        confusion: Model -> rows (truth, as ``members``) of counts by vote over seeds; columns are ``members`` and any
            other class.
        curves: Model -> ROC and precision-recall of the second class, by its share of the two probabilities; empty
            unless the group has exactly two classes and both have records.
    """

    group: str
    members: tuple[str, ...]
    confusion: Mapping[str, Sequence[Sequence[int]]]
    curves: Mapping[str, PairCurves]


@dataclass(frozen=True)
class WrongRecord:
    """A record that every model gets wrong: likely a label error, or a hard record.

    Attributes:
        path: Its path below the data's root.
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
        models: Models, then baselines.
        support: Class -> number of records.
        scores: Model -> every metric, mean over seeds with its interval: ``macro_f1``; ``hard_pair_f1/<group>`` of a
            look-alike group with records; ``recall/<class>`` of a class with records, with its Wilson interval;
            ``accuracy_at/<per cent>`` of so many most confident records, see `accuracy_at`.
        between: Tests of every two models.
        against: Tests of every model and baseline, and of every two baselines; then of all of them and the majority.
        look_alikes: The look-alike groups that the task separates.
        wrong: Records that every model gets wrong, most certain agreement of the models first.
        reports: Model -> metrics, confusion matrix and reliability of its first run; without the majority class.
        notes: What else a person should know.
    """

    split: str
    models: Sequence[Model]
    support: Mapping[str, int]
    scores: Mapping[str, Mapping[str, Estimate]]
    between: Sequence[Pair]
    against: Sequence[Pair]
    look_alikes: Sequence[LookAlikes]
    wrong: Sequence[WrongRecord]
    reports: Mapping[str, Mapping[str, Any]]
    notes: Sequence[str] = ()

    @property
    def candidates(self) -> list[Model]:
        """The models that are not baselines."""
        return [model for model in self.models if not model.is_baseline]

    @property
    def ranked(self) -> list[Model]:
        """All models, the highest macro-F1 first."""
        return sorted(self.models, key=lambda model: -self.scores[model.name]["macro_f1"].value)

    def is_better(self, a: Model, b: Model) -> bool:
        """Whether a is shown to be better than b."""
        return any(p.is_better for p in (*self.between, *self.against) if (p.a, p.b) == (a.name, b.name))

    @property
    def runs(self) -> list[Run]:
        """The runs of all models."""
        return [run for model in self.models for run in model.runs]

    @property
    def n_records(self) -> int:
        """Number of records."""
        return sum(self.support.values())

    @property
    def metrics(self) -> dict[str, str]:
        """The keys of ``scores`` that some model has, but recalls, with what people read in their place."""
        keys = dict.fromkeys(key for scores in self.scores.values() for key in scores)
        split = {key: key.partition("/")[::2] for key in keys if not key.startswith(_OF_A_PART)}
        several = len({of for _, of in split.values()} - {""}) > 1
        return {key: METRICS[name].label + (f" of {of}" if of and several else "") for key, (name, of) in split.items()}

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
                    "scores": {name: asdict(e) for name, e in self.scores[model.name].items()},
                    "cost": asdict(model.cost),
                }
                for model in self.models
            },
            "pairs": [{**asdict(pair), "is_better": pair.is_better} for pair in (*self.between, *self.against)],
            "look_alikes": [
                {key: value for key, value in vars(group).items() if key != "curves"} for group in self.look_alikes
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
        notes: What a person should know of the models.
    """
    models = sorted(models, key=lambda model: model.is_baseline)
    first = models[0].predictions[0]
    look_alikes = {
        group: members
        for group, members in look_alikes.items()
        if set(members) <= set(first.classes) and np.isin(first.y_true, list(members)).any()
    }
    scores = {model.name: _scores(model, look_alikes, seed) for model in models}
    ranked = sorted(models, key=lambda model: -scores[model.name]["macro_f1"].value)
    # Three questions, and a correction for each: which of the models, against what is simple, against no model at all.
    questions: list[list[tuple[Model, Model]]] = [[], [], []]
    for a, b in combinations(ranked, 2):
        questions[2 if MAJORITY in (a.name, b.name) else a.is_baseline or b.is_baseline].append((a, b))
    between, against, above = (compare_pairs(pairs, seed) for pairs in questions)
    return Result(
        split=split,
        models=models,
        support={str(label): int((first.y_true == label).sum()) for label in first.classes},
        scores=scores,
        between=between,
        against=[*against, *above],
        look_alikes=[_look_alikes(ranked, group, tuple(members)) for group, members in look_alikes.items()],
        wrong=_wrong_for_all(models),
        reports={m.name: m.predictions[0].report(seed=m.seeds[0]) for m in ranked if m.runs},
        notes=notes,
    )


def _scores(model: Model, look_alikes: Mapping[str, Sequence[str]], seed: int) -> dict[str, Estimate]:
    first, predicted = model.predictions[0], model.predicted
    # Of a single run the intervals are those of its metrics.json.
    single = len(model.seeds) == 1
    options: dict[str, Any] = {"seed": model.seeds[0] if single else seed, "resamples": 1000 if single else 2000}
    estimate = partial(score_over_seeds, first.y_true, predicted, first.classes, sources=first.sources, **options)
    scores = estimate()
    right = (predicted == first.y_true).mean(axis=0)
    true, source = np.searchsorted(first.classes, first.y_true), number_sources(first.sources)
    effects = dict(zip(first.classes, design_effects(true, right, source, len(first.classes)), strict=True))
    for label in first.classes[np.isin(first.classes, first.y_true)]:
        of_seeds = (predicted[:, first.y_true == label] == label).mean(axis=1)
        value = float(of_seeds.mean())
        # Seeds are no further records: the interval is that of the mean recall over the records that there are.
        n = (first.y_true == label).sum() / effects[label]
        scores[f"recall/{label}"] = Estimate(value, *wilson(min(value * n, n), n), None, tuple(of_seeds.tolist()))
    confidences = [confidence_of(predictions.probabilities) for predictions in model.predictions]
    for percent in COVERAGES if model.name != MAJORITY else ():
        value, low, high, values = accuracy_at(percent / 100, confidences, predicted == first.y_true, first.sources)
        scores[f"accuracy_at/{percent}"] = Estimate(value, low, high, None, values)
    for group, members in look_alikes.items():
        of_group = estimate(look_alikes=members)
        scores |= {f"{name}/{group}": e for name, e in of_group.items() if METRICS[name].needs_look_alikes}
    return scores


def _look_alikes(models: Sequence[Model], group: str, members: tuple[str, ...]) -> LookAlikes:
    first = models[0].predictions[0]
    in_group = np.isin(first.y_true, members)
    columns = [list(first.classes).index(label) for label in members]
    confusion, curves = {}, {}
    for model in models:
        votes = np.where(np.isin(model.votes, members), model.votes, OTHER)
        counts = Counter(zip(first.y_true, votes, strict=True))
        confusion[model.name] = [[counts[true, predicted] for predicted in (*members, OTHER)] for true in members]
        if len(members) == 2 and len(set(first.y_true[in_group])) == 2 and model.name != MAJORITY:
            # (seeds, records, 2)
            pairs = np.stack([predictions.probabilities[in_group][:, columns] for predictions in model.predictions])
            total = pairs.sum(axis=2)
            # A model that gives neither of them any probability has no preference.
            shares = np.divide(pairs[..., 1], total, out=np.full(total.shape, 0.5), where=total > 0)
            sources = np.array(first.sources)[in_group]
            curves[model.name] = pair_curves(first.y_true[in_group] == members[1], shares.mean(axis=0), sources=sources)
    return LookAlikes(group, members, confusion, curves)


def _wrong_for_all(models: Sequence[Model]) -> list[WrongRecord]:
    """Records that every model and the pixels baseline, by the vote of their seeds, predict wrong."""
    models = [model for model in models if model.name != MAJORITY]
    candidates, first = [model.name for model in models if not model.is_baseline], models[0].predictions[0]
    column = {str(label): i for i, label in enumerate(first.classes)}
    votes, p = {model.name: model.votes for model in models}, {model.name: model.probabilities for model in models}
    records = []
    for i in np.flatnonzero(np.all([vote != first.y_true for vote in votes.values()], axis=0)).tolist():
        predicted = {name: str(vote[i]) for name, vote in votes.items()}
        counts = Counter(predicted[name] for name in candidates)
        agreed = min(counts, key=lambda label: (-counts[label], label))
        certainty = float(np.mean([p[name][i, column[agreed]] for name in candidates]))
        shown = {name: (label, float(p[name][i, column[label]])) for name, label in predicted.items()}
        path = first.records[i].path.as_posix()
        records.append(WrongRecord(path, str(first.y_true[i]), shown, (agreed, counts[agreed], certainty)))
    return sorted(records, key=lambda record: (-record.agreed[1], -record.agreed[2], record.path))
