"""Two stages: the easy one sees look-alike classes as one, a hard one for each group separates them."""

import warnings
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import clone

from spectro.classifiers.attribution import Attribution
from spectro.classifiers.base import ImageClassifier, StageOutput
from spectro.classifiers.fit_context import part
from spectro.classifiers.registry import load, register_family
from spectro.data.decode import ImageSpec
from spectro.data.images import Images
from spectro.data.mapping import Mapping, hard_stage_names
from spectro.errors import ConfigError

GATES = ("soft", "hard")


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

    _constant_if_one_class: ClassVar[bool] = False

    easy: ImageClassifier
    hard: ImageClassifier
    look_alikes: MappingType[str, Sequence[str]]
    gate: str = "soft"

    @classmethod
    def from_config(cls, values: MappingType[str, Any], *, seed: int, prefix: str = "", context: str = "") -> Self:
        """A cascade is made of the classifiers of its stages.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("model.family: got 'cascade'; allowed: the family of a stage (cascade_stage=full makes two)")

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
        names = hard_stage_names(list(self.look_alikes))
        return {"easy": self.easy_, **{names[group]: classifier for group, classifier in self.hard_.items()}}

    def prepare(self) -> None:
        """Prepares both stages."""
        self.easy.prepare()
        self.hard.prepare()

    def merged(self, y: np.ndarray) -> np.ndarray:
        """Labels ``(n,)`` as the easy stage sees them."""
        return merge(y, self.look_alikes)

    def stage_labels(self, y: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """As the base class states; a hard stage is for the records of its group."""
        rows, names = np.arange(len(y)), hard_stage_names(list(self.look_alikes))
        hard = {names[group]: (y, rows[np.isin(y, list(labels))]) for group, labels in self.look_alikes.items()}
        return {"": (y, rows), "easy": (self.merged(y), rows), **hard}

    def stage_probabilities(self, X: Images | np.ndarray) -> dict[str, StageOutput]:
        """Outputs for all records of the whole cascade, whose name is empty, and of each stage, see `stages_`."""
        stages = {name: StageOutput(c.classes_, c.predict_proba(X)) for name, c in self.stages_.items()}
        return {"": StageOutput(self.classes_, self._compose(self.classes_, stages)), **stages}

    def stages_out_of_fold(self, X: Any, y: np.ndarray, X_val: Any, y_val: Any, X_new: Any) -> dict[str, StageOutput]:
        """`out_of_fold` of the whole cascade and of each stage, by the names of `stage_probabilities`."""
        y = np.asarray(y, dtype=object)
        if X_val is None or y_val is None:
            X_val, y_val = X[:0], y[:0]
        stages = {}
        for name, folder, classifier, data in self._stages(X, y, X_val, np.asarray(y_val, dtype=object)):
            with part(name, folder):
                p = classifier.out_of_fold(*data, X_new)
            stages[name] = StageOutput(np.array(sorted(set(data[1])), dtype=object), p)
        classes = np.array(sorted(set(y)), dtype=object)
        return {"": StageOutput(classes, self._compose(classes, stages)), **stages}

    def out_of_fold(self, X: Any, y: np.ndarray, X_val: Any, y_val: Any, X_new: Any) -> np.ndarray:
        """As the base class states, composed from the outputs of the stages."""
        return self.stages_out_of_fold(X, y, X_val, y_val, X_new)[""].probabilities

    def save(self, folder: Path) -> None:
        """Writes the cascade and, in sub-folders, its stages."""
        super().save(folder)
        self.easy_.save(folder / "easy")
        for number, classifier in enumerate(self.hard_.values()):
            classifier.save(folder / f"hard_{number}")

    def _stages(
        self, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray
    ) -> Iterator[tuple[str, str, ImageClassifier, tuple[Any, np.ndarray, Any, np.ndarray]]]:
        """Name, folder, unfitted classifier and data (images and labels of train and val) of each stage."""
        self._check_look_alikes(y)
        yield "easy", "easy", self.easy, (X, self.merged(y), X_val, self.merged(y_val))
        names = hard_stage_names(list(self.look_alikes))
        groups = [group for group, labels in self.look_alikes.items() if np.isin(y, list(labels)).any()]
        for number, group in enumerate(groups):
            train, val = (np.isin(labels, list(self.look_alikes[group])) for labels in (y, y_val))
            yield names[group], f"hard_{number}", self.hard, (X[train], y[train], X_val[val], y_val[val])

    def _fit(self, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray) -> None:
        fitted = {}
        for name, folder, classifier, data in self._stages(X, y, X_val, y_val):
            with part(name, folder):
                fitted[name] = clone(classifier).fit(*data)
        self.easy_ = fitted["easy"]
        names = hard_stage_names(list(self.look_alikes))
        self.hard_ = {group: fitted[name] for group, name in names.items() if name in fitted}

    def _predict_proba(self, X: Any) -> np.ndarray:
        return self.stage_probabilities(X)[""].probabilities

    def _compose(self, classes: np.ndarray, stages: MappingType[str, StageOutput]) -> np.ndarray:
        """Outputs of the stages -> probabilities ``(n, k)`` of ``classes``."""
        names, easy = hard_stage_names(list(self.look_alikes)), stages["easy"]
        p_easy = easy.probabilities
        if self.gate == "hard":
            p_easy = np.eye(p_easy.shape[1])[p_easy.argmax(axis=1)]
        out = np.zeros((len(p_easy), len(classes)))
        for p, label in zip(p_easy.T, easy.classes, strict=True):
            if names.get(label) in stages:
                hard = stages[names[label]]
                out[:, np.searchsorted(classes, hard.classes)] += p[:, None] * hard.probabilities
            else:
                out[:, np.searchsorted(classes, label)] += p
        return out

    def _check_params(self) -> None:
        """Those of the stages are checked when the stages are fitted."""
        if self.gate not in GATES:
            raise ValueError(f"gate: got {self.gate!r}; allowed: {', '.join(GATES)}")
        if not self.look_alikes:
            raise ValueError("look_alikes: got none; allowed: one group or more, {merged: [class, class]}")
        for group, labels in self.look_alikes.items():
            if isinstance(labels, str):
                raise ValueError(f"look_alikes.{group}: got {labels!r}; allowed: a list of classes")
        for key, text in Mapping(look_alikes={k: list(v) for k, v in self.look_alikes.items()}).contradictions():
            raise ValueError(f"{key}: {text}")

    def _check_look_alikes(self, y: np.ndarray) -> None:
        self._check_params()
        for group, labels in self.look_alikes.items():
            if group in y and group not in labels:
                raise ValueError(f"look_alikes: got group {group!r}, which is also a class outside the group")
            if absent := sorted(set(labels) - set(y)):
                # No error: a fold of a rare class may be without it.
                warnings.warn(f"look_alikes: no training records of {', '.join(absent)}", stacklevel=6)

    def _attributions(self, X: Any, labels: np.ndarray, others: np.ndarray) -> list[Attribution | None]:
        """Those of the stage that separates the two labels: the hard one if they are look-alikes of one group."""
        labels, others = self.classes_[labels], self.classes_[others]
        merged, merged_others = self.merged(labels), self.merged(others)
        attributions: list[Attribution | None] = [None] * len(labels)
        names = hard_stage_names(list(self.look_alikes))
        parts = [("easy", self.easy_, merged != merged_others, merged, merged_others)]
        for group, classifier in self.hard_.items():
            in_group = (merged == merged_others) & (merged == group)
            parts.append((names[group], classifier, in_group, labels, others))
        for stage, classifier, rows, stage_labels, stage_others in parts:
            maps = classifier.attribution(X[rows], stage_labels[rows], stage_others[rows])
            for i, attribution in zip(np.flatnonzero(rows), maps, strict=True):
                attributions[i] = attribution and replace(attribution, stage=stage)
        return attributions

    def _params(self) -> dict[str, Any]:
        return {"look_alikes": {group: list(labels) for group, labels in self.look_alikes.items()}, "gate": self.gate}

    @classmethod
    def _from_params(cls, params: dict[str, Any], folder: Path) -> Self:
        # A loaded cascade has its fitted stages in place of the unfitted ones.
        easy = load(folder / "easy")
        hard = load(folder / "hard_0") if (folder / "hard_0").exists() else easy
        return cls(easy=easy, hard=hard, **params)

    def _save(self, folder: Path) -> dict[str, Any]:
        # Merged labels may hold any character: they stand in the JSON, and folders have numbers.
        return {"groups": list(self.hard_)}

    def _load(self, folder: Path, fitted: dict[str, Any]) -> None:
        self.easy_ = self.easy
        self.hard_ = {group: load(folder / f"hard_{number}") for number, group in enumerate(fitted["groups"])}


def merge(y: np.ndarray, look_alikes: MappingType[str, Sequence[str]]) -> np.ndarray:
    """Labels with look-alikes merged, ``(n,)``."""
    group_of = {label: group for group, labels in look_alikes.items() for label in labels}
    return np.array([group_of.get(label, label) for label in y], dtype=object)
