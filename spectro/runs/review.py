"""Which predictions of a run's model a person should look at: uncertain ones, and records unlike the training data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectro.classifiers import ImageClassifier
from spectro.config.schema import ReviewKnobs
from spectro.data.mapping import hard_stage_names
from spectro.data.splits import group_numbers
from spectro.errors import ConfigError, ModelError
from spectro.evaluation.neighbours import MAX_RECORDS, Neighbours, fit_neighbours
from spectro.evaluation.selective import (
    Thresholds,
    automatic_report,
    confidence_of,
    n_enough,
    risk_coverage,
    thresholds,
)
from spectro.files import write_json, write_rows
from spectro.knobs import validate
from spectro.runs.predictions import Predictions

if TYPE_CHECKING:
    from spectro.runs.task import Task

FILE, _ARRAYS = "review.json", "review.safetensors"
# A larger file of arrays is none that was written here.
_MAX_BYTES = 10_000_000


@dataclass(frozen=True)
class Review:
    """Thresholds on confidence, and the neighbours by which a record is like the training data.

    Attributes:
        knobs: What the thresholds were chosen for.
        split: The records that they were chosen on, ``cv`` or ``val``.
        n: Number of these records.
        few: Classes with too few predicted records for a threshold of their own, and how many.
        thresholds: The thresholds.
        neighbours: Training records in feature space.
    """

    knobs: ReviewKnobs
    split: str
    n: int
    few: Mapping[str, int]
    thresholds: Thresholds
    neighbours: Neighbours

    @classmethod
    def of(cls, knobs: ReviewKnobs, split: str, predictions: Predictions, neighbours: Neighbours) -> "Review":
        """Chooses the thresholds on predictions by models that were not fitted to the records."""
        confidence, predicted = confidence_of(predictions.probabilities), predictions.predicted
        right = predicted == predictions.y_true
        chosen = thresholds(confidence, predicted, right, target=knobs.target_accuracy, coverage=knobs.coverage)
        counts = {str(label): int((predicted == label).sum()) for label in predictions.classes}
        few = {} if knobs.coverage else {k: n for k, n in counts.items() if n < n_enough(knobs.target_accuracy)}
        return cls(knobs, split, len(confidence), few, chosen, neighbours)

    def reasons(
        self, classes: Sequence[Any] | np.ndarray, probabilities: np.ndarray, features: np.ndarray
    ) -> list[str]:
        """Why a person should look at each record; empty text where nobody need.

        Args:
            classes: Labels of the columns, ``(k,)``.
            probabilities: ``(n, k)``.
            features: As `ImageClassifier.features` gives them, ``(n, d)``.

        Raises:
            ModelError: The features are not those of this model.
        """
        if features.shape[1] != len(self.neighbours.mean):
            got = f"got {len(self.neighbours.mean)} features; the model has {features.shape[1]}"
            raise ModelError(f"{_ARRAYS}: damaged or not of this model: {got}")
        confidence, limit = confidence_of(probabilities), self.neighbours.limit
        predicted = np.array([str(label) for label in classes], dtype=object)[probabilities.argmax(axis=1)]
        automatic, texts = self.thresholds.automatic(confidence, predicted), []
        distances = self.neighbours.distances(features)
        for label, p, is_automatic, distance in zip(predicted, confidence, automatic, distances, strict=True):
            reasons = [] if is_automatic else [self._uncertain(label, p)]
            if limit is not None and distance > limit:
                reasons.append(f"unlike the training data: distance {distance:.3g} is above {limit:.3g}")
            texts.append("; ".join(reasons))
        return texts

    def _uncertain(self, label: str, confidence: float) -> str:
        threshold, of = self.thresholds.by_class.get(label, self.thresholds.overall), ""
        if label in self.thresholds.by_class:
            of = f" of {label}"
        if threshold is None:
            return f"no confidence{of} is enough for an accuracy of {self.knobs.target_accuracy:g}"
        return f"confidence {confidence:.3f} is below {threshold:.3f}{of}"

    def report(self, predictions: Predictions) -> dict[str, float | None]:
        """Share and accuracy of the records that are automatic by their confidence, see `automatic_report`."""
        predicted = predictions.predicted
        automatic = self.thresholds.automatic(confidence_of(predictions.probabilities), predicted)
        return automatic_report(predicted == predictions.y_true, automatic, predictions.sources)

    def write(self, run_dir: Path, splits: Mapping[str, Predictions]) -> None:
        """Writes ``risk_coverage.csv``, and what `load_review` reads into ``model/``, before its list of files."""
        from safetensors.numpy import save

        rows = [
            {"split": split, **point}
            for split, p in splits.items()
            for point in risk_coverage(confidence_of(p.probabilities), p.predicted == p.y_true, p.sources)
        ]
        write_rows(run_dir / "risk_coverage.csv", rows, ["split"])
        state = asdict(self.neighbours)
        arrays = {name: np.ascontiguousarray(v) for name, v in state.items() if isinstance(v, np.ndarray)}
        content = {
            **self.knobs.model_dump(),
            **{"split": self.split, "n": self.n, "few": self.few, **asdict(self.thresholds)},
            "neighbours": {name: value for name, value in state.items() if name not in arrays},
        }
        (run_dir / "model").mkdir(exist_ok=True)
        write_json(run_dir / "model" / FILE, content)
        (run_dir / "model" / _ARRAYS).write_bytes(save(arrays))


def review_run(
    task: "Task", classifier: ImageClassifier, splits: Mapping[str, Predictions], temperature: Mapping[str, float]
) -> tuple[Review | None, dict[str, Predictions]]:
    """The review of a fitted classifier; None where there are no records to choose thresholds on.

    After a refit the thresholds come from the models before it: their out-of-fold predictions.

    Args:
        task: The task.
        classifier: Its final classifier.
        splits: Predictions of val or, out of fold, of ``cv``, and of others, which choose nothing.
        temperature: Stage -> temperature of the final classifier; out-of-fold predictions have none.

    Returns:
        The review, and the predictions of ``cv`` or val and of test, those of ``cv`` with the temperature.
    """
    split = "cv" if "cv" in splits else "val"
    look_alikes = task.config.mapping.look_alikes if task.config.stage == "full" else {}
    reviewed = {name: splits[name] for name in (split, "test") if name in splits and len(splits[name].records)}
    if split not in reviewed:
        return None, {}
    if split == "cv":
        reviewed["cv"] = tempered(splits["cv"], temperature, look_alikes)
    records, val = task.records["train"], task.records["val"]
    if task.config.is_refit:
        records, val = task.train_and_val, []
    some = np.unique(np.linspace(0, len(records) - 1, min(len(records), MAX_RECORDS)).astype(int))
    records = [records[i] for i in some]
    new = classifier.features(task.dataset.images(val)) if val else None
    # Whose features they are: a network's fit the records that it was trained on more closely than others.
    source: Any = getattr(classifier, "easy_", classifier)
    source = getattr(source, "members_", [source])[0]
    groups = None if source.draws_views else group_numbers(records)
    features = classifier.features(task.dataset.images(records))
    neighbours = fit_neighbours(features, groups, new)
    return Review.of(task.config.common.review, split, reviewed[split], neighbours), reviewed


def tempered(
    predictions: Predictions, temperature: Mapping[str, float], look_alikes: Mapping[str, Sequence[str]]
) -> Predictions:
    """Out-of-fold predictions, whose temperature is 1, with that of the final classifier in each stage.

    ``look_alikes`` are the groups of a cascade; none without one.
    """
    columns = {str(label): i for i, label in enumerate(predictions.classes)}
    names, p = hard_stage_names(list(look_alikes)), predictions.probabilities
    groups = [
        ([columns[label] for label in labels if label in columns], names[group])
        for group, labels in look_alikes.items()
    ]
    members = {column for group, _ in groups for column in group}
    groups += [([column], "") for column in columns.values() if column not in members]
    easy = np.stack([p[:, group].sum(axis=1) for group, _ in groups], axis=1)
    whole, result = _power(easy, temperature.get("easy" if look_alikes else next(iter(temperature), ""), 1.0)), p.copy()
    for (group, stage), share in zip(groups, whole.T, strict=True):
        result[:, group] = share[:, None] * _power(p[:, group], temperature.get(stage, 1.0))
    return replace(predictions, probabilities=result)


def _power(p: np.ndarray, temperature: float) -> np.ndarray:
    """Rows to the power 1 / temperature that sum to 1; rows of zeros stay."""
    largest = p.max(axis=1, keepdims=True, initial=0.0)
    powers = np.divide(p, largest, out=np.zeros_like(p), where=largest > 0) ** (1 / temperature)
    return np.divide(powers, total := powers.sum(axis=1, keepdims=True), out=powers, where=total > 0)


def load_review(model: Path, classes: Sequence[Any]) -> Review | None:
    """What `Review.write` has written into a model's folder, whose files were compared with their list; else None.

    Raises:
        ModelError: Damaged.
    """
    if not (model / FILE).exists():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        content = json.loads((model / FILE).read_text(encoding="utf-8"))
        knobs = validate(ReviewKnobs, {key: content[key] for key in ReviewKnobs.model_fields})
        chosen, few = Thresholds(content["overall"], dict(content["by_class"])), dict(content["few"])
        if (model / _ARRAYS).stat().st_size > _MAX_BYTES:
            raise ValueError(f"{_ARRAYS}: more than {_MAX_BYTES} bytes")
        state: dict[str, Any] = {**content["neighbours"], **load_file(model / _ARRAYS)}
        neighbours = Neighbours(**state)
        (r, d), (m, _) = neighbours.components.shape, neighbours.records.shape
        arrays = [neighbours.mean, neighbours.components, neighbours.records, neighbours.left_out]
        shapes = [(d,), (r, d), (m, r), (m,)]
        if m == 0 or [a.shape for a in arrays] != shapes or not all(np.isfinite(a).all() for a in arrays):
            raise ValueError(f"{_ARRAYS}: arrays of other shapes, or NaN")
        limits = [chosen.overall, *chosen.by_class.values()]
        if any(limit is not None and not 0 <= limit <= 1 for limit in limits):
            raise ValueError(f"thresholds: got {limits}; allowed: 0 to 1")
        if unknown := {*chosen.by_class, *few} - set(map(str, classes)):
            raise ValueError(f"classes: got {', '.join(sorted(unknown))}, which the model does not have")
        far, k = neighbours.limit, neighbours.k
        if (
            (far is not None and not 0 <= far < np.inf)
            or not 0 < neighbours.false_alarms <= 1
            or type(k) is not int
            or k < 1
        ):
            raise ValueError(f"neighbours: got {content['neighbours']}; allowed: possible values")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise ModelError(f"{model / FILE}: damaged ({type(error).__name__}: {error})") from error
    except SafetensorError as error:
        raise ModelError(f"{model / _ARRAYS}: damaged ({error})") from error
    return Review(knobs, str(content["split"]), int(content["n"]), few, chosen, neighbours)
