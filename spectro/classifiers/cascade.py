"""Two stages: the easy one sees look-alike classes as one, a hard one for each group separates them."""

import warnings
from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import clone

from spectro.classifiers.base import Attribution, ImageClassifier, StageOutput
from spectro.classifiers.fit_context import part
from spectro.classifiers.registry import load_part, register_family
from spectro.data.decode import ImageSpec
from spectro.data.images import Images
from spectro.data.mapping import Mapping, hard_stage_names


@register_family("cascade")
@dataclass(eq=False, repr=False)
class CascadeClassifier(ImageClassifier):
    """An easy classifier over all records, and for each look-alike group a hard one over the group's records.

    Args:
        easy: Classifier of the easy stage, of any family; it is cloned, not fitted itself.
        hard: Classifier of the hard stage, of any family; cloned for each group.
        look_alikes: Merged label -> the classes that look alike.
        gate: ``soft``: p(class) = p_easy(merged) * p_hard(class). ``hard``: the easy stage's choice is final; classes
            that it did not choose get no probability, and a merged one is shared out by the hard stage.

    Attributes:
        easy_: The fitted easy classifier; its labels are the merged ones.
        hard_: Merged label -> fitted hard classifier. A group without training records has none.
    """

    _instead: ClassVar[str] = "the family of a stage (cascade_stage=full makes two)"
    _constant_if_one_class: ClassVar[bool] = False

    easy: ImageClassifier
    hard: ImageClassifier
    look_alikes: MappingType[str, Sequence[str]]
    gate: str = "soft"

    @property
    def specs(self) -> list[ImageSpec]:
        """Those of both stages."""
        return list(dict.fromkeys(self.easy.specs + self.hard.specs))

    @property
    def chooses_on_val(self) -> bool:
        """Whether either stage does."""
        return self.easy.chooses_on_val or self.hard.chooses_on_val

    @property
    def stages_(self) -> dict[str, ImageClassifier]:
        """The fitted classifiers by stage: ``easy``, ``hard``, or ``hard/<merged label>`` where there are several."""
        return {"easy": self.easy_, **{self._names[group]: classifier for group, classifier in self.hard_.items()}}

    def prepare(self) -> None:
        """Prepares both stages."""
        self.easy.prepare()
        self.hard.prepare()

    def stage_labels(self, y: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """As the base class states; a hard stage is for the records of its group."""
        rows, merged = np.arange(len(y)), merge(y, self.look_alikes)
        hard = {name: (y, rows[np.isin(y, list(self.look_alikes[group]))]) for group, name in self._names.items()}
        return {"": (y, rows), "easy": (merged, rows), **hard}

    def outputs(self, X: Images | np.ndarray) -> tuple[dict[str, StageOutput], np.ndarray]:
        """As the base class states; the features are those of the easy stage."""
        easy, features = self.easy_.outputs(X)
        hard = {self._names[group]: StageOutput(c.classes_, c.predict_proba(X)) for group, c in self.hard_.items()}
        stages = {"easy": easy[""], **hard}
        return {"": self._compose(self.classes_, stages), **stages}, features

    def stages_out_of_fold(self, X: Any, y: np.ndarray, X_val: Any, y_val: Any, X_new: Any) -> dict[str, StageOutput]:
        """`out_of_fold` of the whole cascade and of each stage, by the names of `outputs`."""
        y = np.asarray(y, dtype=object)
        if X_val is None or y_val is None:
            X_val, y_val = X[:0], y[:0]

        def output(classifier: ImageClassifier, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray) -> StageOutput:
            return classifier.stages_out_of_fold(X, y, X_val, y_val, X_new)[""]

        stages = self._by_stage(output, X, y, X_val, np.asarray(y_val, dtype=object))
        return {"": self._compose(np.array(sorted(set(y)), dtype=object), stages), **stages}

    def out_of_fold(self, X: Any, y: np.ndarray, X_val: Any, y_val: Any, X_new: Any) -> np.ndarray:
        """As the base class states, composed from the outputs of the stages."""
        return self.stages_out_of_fold(X, y, X_val, y_val, X_new)[""].probabilities

    @property
    def _names(self) -> dict[str, str]:
        """Merged label -> the name of its hard stage."""
        return hard_stage_names(list(self.look_alikes))

    def _by_stage(
        self, function: Callable[..., Any], X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray
    ) -> dict[str, Any]:
        """Name of each stage with records -> ``function`` of its unfitted classifier and its own data."""
        self._check_params()
        stages = {"easy": (self.easy, X, merge(y, self.look_alikes), X_val, merge(y_val, self.look_alikes))}
        for group, labels in self.look_alikes.items():
            if group in y and group not in labels:
                raise ValueError(f"look_alikes: got group {group!r}, which is also a class outside the group")
            if absent := sorted(set(labels) - set(y)):
                # No error: a fold of a rare class may be without it.
                warnings.warn(f"look_alikes: no training records of {', '.join(absent)}", stacklevel=5)
            if len(absent) < len(set(labels)):
                train, val = (np.flatnonzero(np.isin(part_y, list(labels))) for part_y in (y, y_val))
                stages[self._names[group]] = (self.hard, X[train], y[train], X_val[val], y_val[val])
        results = {}
        for number, (name, arguments) in enumerate(stages.items()):
            with part(name, _folder(number)):
                results[name] = function(*arguments)
        return results

    def _fit(self, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray) -> None:
        fitted = self._by_stage(lambda classifier, *data: clone(classifier).fit(*data), X, y, X_val, y_val)
        self.easy_ = fitted["easy"]
        self.hard_ = {group: fitted[name] for group, name in self._names.items() if name in fitted}

    def _predict_proba(self, X: Any) -> np.ndarray:
        return self.outputs(X)[0][""].probabilities

    def _compose(self, classes: np.ndarray, stages: MappingType[str, StageOutput]) -> StageOutput:
        """Outputs of the stages -> that of the whole cascade."""
        p_easy = stages["easy"].probabilities
        if self.gate == "hard":
            p_easy = np.eye(p_easy.shape[1])[p_easy.argmax(axis=1)]
        p = np.zeros((len(p_easy), len(classes)))
        for p_label, label in zip(p_easy.T, stages["easy"].classes, strict=True):
            if hard := stages.get(self._names.get(label, "")):
                p[:, np.searchsorted(classes, hard.classes)] += p_label[:, None] * hard.probabilities
            else:
                p[:, np.searchsorted(classes, label)] += p_label
        return StageOutput(classes, p)

    def _check_params(self) -> None:
        """Those of the stages are checked when the stages are fitted."""
        if self.gate not in ("soft", "hard"):
            raise ValueError(f"gate: got {self.gate!r}; allowed: soft, hard")
        if not self.look_alikes:
            raise ValueError("look_alikes: got none; allowed: one group or more, {merged: [class, class]}")
        for key, text in Mapping(look_alikes={k: list(v) for k, v in self.look_alikes.items()}).contradictions():
            raise ValueError(f"{key}: {text}")

    def _attributions(self, X: Any, labels: np.ndarray, others: np.ndarray) -> list[Attribution | None]:
        """Those of the stage that separates the two labels: the hard one if they are look-alikes of one group."""
        labels, others = self.classes_[labels], self.classes_[others]
        merged, merged_others = merge(labels, self.look_alikes), merge(others, self.look_alikes)
        attributions: list[Attribution | None] = [None] * len(labels)
        parts = [("easy", self.easy_, merged != merged_others, merged, merged_others)]
        for group, classifier in self.hard_.items():
            parts.append((self._names[group], classifier, (merged == group) & (merged_others == group), labels, others))
        for stage, classifier, rows, stage_labels, stage_others in parts:
            maps = classifier.attribution(X[rows], stage_labels[rows], stage_others[rows])
            for i, attribution in zip(np.flatnonzero(rows), maps, strict=True):
                attributions[i] = attribution and replace(attribution, stage=stage)
        return attributions

    def _params(self) -> dict[str, Any]:
        return {"look_alikes": {group: list(labels) for group, labels in self.look_alikes.items()}, "gate": self.gate}

    @classmethod
    def _from_params(cls, params: dict[str, Any]) -> Self:
        return cls(easy=None, hard=None, **params)  # type: ignore[arg-type]  # `_load` sets them

    def _save(self, folder: Path) -> dict[str, Any]:
        for number, classifier in enumerate(self.stages_.values()):
            classifier.save(folder / _folder(number))
        return {"groups": list(self.hard_)}

    def _load(self, folder: Path, fitted: dict[str, Any]) -> None:
        self.easy_, *hard = (load_part(folder / _folder(number)) for number in range(len(fitted["groups"]) + 1))
        self.hard_ = dict(zip(fitted["groups"], hard, strict=True))
        expected = {name: set(labels) for name, labels in self.look_alikes.items()}
        wrong = set(self.easy_.classes_) != set(merge(self.classes_, self.look_alikes))
        if wrong or any(not set(part.classes_) <= expected.get(group, set()) for group, part in self.hard_.items()):
            raise ValueError("the classes of the stages are not those of the cascade")
        # A loaded cascade has its fitted stages in place of the unfitted ones.
        self.easy, self.hard = self.easy_, [self.easy_, *hard][-1]


def merge(y: np.ndarray, look_alikes: MappingType[str, Sequence[str]]) -> np.ndarray:
    """Labels with look-alikes merged, ``(n,)``: those that the easy stage sees."""
    group_of = {label: group for group, labels in look_alikes.items() for label in labels}
    return np.array([group_of.get(label, label) for label in y], dtype=object)


def _folder(number: int) -> str:
    """Of a stage in a saved model and among checkpoints: merged labels may hold any character."""
    return f"hard_{number - 1}" if number else "easy"
