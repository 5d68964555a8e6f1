"""Two stages: the easy one sees look-alike classes as one, a hard one for each group tells them apart."""

import warnings
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import clone

from spectro.classifiers.attribution import Attribution
from spectro.classifiers.base import ImageClassifier
from spectro.classifiers.fit_context import part
from spectro.classifiers.registry import load, register_family
from spectro.data.decode import ImageSpec
from spectro.data.images import Images
from spectro.data.mapping import Mapping, hard_stage_names
from spectro.errors import ConfigError

GATES = ("soft", "hard")


@dataclass(frozen=True)
class Said:
    """What a stage says of some records.

    Attributes:
        classes: Its classes, sorted, ``(k,)``.
        probabilities: ``(n, k)``.
    """

    classes: np.ndarray
    probabilities: np.ndarray


@register_family("cascade")
class CascadeClassifier(ImageClassifier):
    """An easy classifier over all records, and for each look-alike group a hard one over the group's records.

    Args:
        easy: Classifier of the easy stage, of any family; it is cloned, not fitted itself.
        hard: Classifier of the hard stage, of any family; cloned for each group.
        look_alikes: Merged label -> the classes that look alike.
        gate: ``soft``: p(class) = p_easy(merged) * p_hard(class). ``hard``: the easy stage's choice is final; the
            classes that it did not choose get no probability, the hard model shares out a merged one.

    Attributes:
        easy_: The fitted easy classifier; its labels are the merged ones.
        hard_: Merged label -> fitted hard classifier.
    """

    _constant_if_one_class: ClassVar[bool] = False

    def __init__(
        self,
        easy: ImageClassifier,
        hard: ImageClassifier,
        look_alikes: MappingType[str, Sequence[str]],
        gate: str = "soft",
    ):
        self.easy = easy
        self.hard = hard
        self.look_alikes = look_alikes
        self.gate = gate

    @classmethod
    def from_config(cls, values: MappingType[str, Any], *, seed: int, prefix: str = "", context: str = "") -> Self:
        """A cascade is made of the classifiers of its stages.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("model.family: got 'cascade'; allowed: the family of a stage (cascade_stage=full makes two)")

    @property
    def specs(self) -> list[ImageSpec]:
        """What both stages want."""
        return list(dict.fromkeys(self.easy.specs + self.hard.specs))

    @property
    def chooses_on_val(self) -> bool:
        """Whether either stage does."""
        return self.easy.chooses_on_val or self.hard.chooses_on_val

    def prepare(self) -> None:
        """What both stages need must be there."""
        self.easy.prepare()
        self.hard.prepare()

    def merged(self, y: np.ndarray) -> np.ndarray:
        """Labels as the easy stage sees them."""
        return merge(y, self.look_alikes)

    def _fit(self, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray) -> None:
        groups = self._groups(y)
        with part("easy", "easy"):
            self.easy_ = clone(self.easy).fit(X, self.merged(y), X_val, self.merged(y_val))
        self.hard_, names = {}, hard_stage_names(list(groups))
        for number, (group, labels) in enumerate(groups.items()):
            own, own_val = np.isin(y, list(labels)), np.isin(y_val, list(labels))
            with part(names[group], f"hard_{number}"):
                self.hard_[group] = clone(self.hard).fit(X[own], y[own], X_val[own_val], y_val[own_val])

    def out_of_fold(self, X: Any, y: np.ndarray, X_val: Any, y_val: Any, X_new: Any) -> np.ndarray:
        """As the contract says, composed from what the stages say out of the fold."""
        return self.stages_out_of_fold(X, y, X_val, y_val, X_new)[""].probabilities

    def stages_out_of_fold(self, X: Any, y: np.ndarray, X_val: Any, y_val: Any, X_new: Any) -> dict[str, Said]:
        """`out_of_fold` of the whole and of each stage, of the same arguments.

        Returns:
            What each says of all new records: the whole task's name is empty, the easy stage's ``easy``, and a hard
            stage is named by its merged label behind ``hard/``. A group without training records has no stage.
        """
        y = np.asarray(y, dtype=object)
        groups = self._groups(y)
        if X_val is None or y_val is None:
            X_val, y_val = X[:0], y[:0]
        y_val = np.asarray(y_val, dtype=object)
        easy_y, names, hard = self.merged(y), hard_stage_names(list(groups)), {}
        with part("easy", "easy"):
            p = self.easy.out_of_fold(X, easy_y, X_val, self.merged(y_val), X_new)
        easy = Said(np.array(sorted(set(easy_y)), dtype=object), p)
        for number, (group, labels) in enumerate(groups.items()):
            own, own_val = np.isin(y, list(labels)), np.isin(y_val, list(labels))
            with part(names[group], f"hard_{number}"):
                p = self.hard.out_of_fold(X[own], y[own], X_val[own_val], y_val[own_val], X_new)
            hard[group] = Said(np.array(sorted(set(y[own])), dtype=object), p)
        classes = np.array(sorted(set(y)), dtype=object)
        whole = Said(classes, _compose(classes, self.gate, easy, hard))
        return {"": whole, "easy": easy, **{f"hard/{group}": said for group, said in hard.items()}}

    def _check_params(self) -> None:
        """Those of the stages are checked when these are fitted."""

    def _groups(self, y: np.ndarray) -> dict[str, Sequence[str]]:
        """The look-alike groups that have training records, after everything was found to make sense."""
        if self.gate not in GATES:
            raise ValueError(f"gate: got {self.gate!r}; allowed: {', '.join(GATES)}")
        self._check_look_alikes(np.array(sorted(set(y)), dtype=object))
        return {group: labels for group, labels in self.look_alikes.items() if np.isin(y, list(labels)).any()}

    def _predict_proba(self, X: Any) -> np.ndarray:
        return self.compose(*self.stage_probabilities(X))

    def _check_look_alikes(self, classes: np.ndarray) -> None:
        if not self.look_alikes:
            raise ValueError("look_alikes: got none; allowed: one group or more, {merged: [class, class]}")
        for group, labels in self.look_alikes.items():
            if isinstance(labels, str):
                raise ValueError(f"look_alikes.{group}: got {labels!r}; allowed: a list of classes")
        for key, text in Mapping(look_alikes=self.look_alikes).contradictions():
            raise ValueError(f"{key}: {text}")
        for group, labels in self.look_alikes.items():
            if group in classes and group not in labels:
                raise ValueError(f"look_alikes: got group {group!r}, which is also a class outside the group")
            unknown = sorted(set(labels) - set(classes))
            if unknown:
                # No error: a fold of a rare class may be without it.
                warnings.warn(f"look_alikes: no training records of {', '.join(unknown)}", stacklevel=5)

    def stage_probabilities(self, X: Images | np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What each stage says of every record: the two arguments of `compose`."""
        hard = {group: classifier.predict_proba(X) for group, classifier in self.hard_.items()}
        return self.easy_.predict_proba(X), hard

    def compose(self, easy: np.ndarray, hard: MappingType[str, np.ndarray]) -> np.ndarray:
        """Probabilities of the stages -> probabilities of the classes.

        Args:
            easy: ``(n, k_easy)``, columns as ``easy_.classes_``.
            hard: Merged label -> ``(n, k_hard)``, columns as ``hard_[group].classes_``.

        Returns:
            ``(n, k)``, columns as ``classes_``, rows sum to 1.
        """
        said = {group: Said(classifier.classes_, hard[group]) for group, classifier in self.hard_.items()}
        return _compose(self.classes_, self.gate, Said(self.easy_.classes_, easy), said)

    def _attributions(self, X: Any, labels: np.ndarray, others: np.ndarray) -> list[Attribution | None]:
        """Those of the stage that tells the two labels apart: the hard one if they are look-alikes of one group."""
        names = hard_stage_names(list(self.hard_))
        given, told_from = self.classes_[labels], self.classes_[others]
        merged, merged_from = self.merged(given), self.merged(told_from)
        found: list[Attribution | None] = [None] * len(labels)
        parts = [("easy", self.easy_, merged != merged_from, merged, merged_from)]
        for group, model in self.hard_.items():
            parts.append((names[group], model, (merged == merged_from) & (merged == group), given, told_from))
        for stage, model, own, of, apart_from in parts:
            where = np.flatnonzero(own)
            for i, one in zip(where, model.attribution(X[where], of[own], apart_from[own]), strict=True):
                found[i] = None if one is None else one.of(stage)
        return found

    def _params(self) -> dict[str, Any]:
        return {"look_alikes": {group: list(labels) for group, labels in self.look_alikes.items()}, "gate": self.gate}

    def save(self, folder: Path) -> None:
        """Writes the cascade and, in sub-folders, its stages."""
        super().save(folder)
        self.easy_.save(folder / "easy")
        for number, classifier in enumerate(self.hard_.values()):
            classifier.save(folder / f"hard_{number}")

    def _save(self, folder: Path) -> dict[str, Any]:
        # Group labels may hold anything: they stand in the JSON, and folders have numbers.
        return {"groups": list(self.hard_)}

    @classmethod
    def _from_params(cls, params: dict[str, Any], folder: Path) -> Self:
        # What a loaded cascade would be cloned from are its fitted stages.
        easy = load(folder / "easy")
        hard = load(folder / "hard_0") if (folder / "hard_0").exists() else easy
        return cls(easy=easy, hard=hard, **params)

    def _load(self, folder: Path, fitted: dict[str, Any]) -> None:
        self.easy_ = self.easy
        self.hard_ = {group: load(folder / f"hard_{number}") for number, group in enumerate(fitted["groups"])}


def _compose(classes: np.ndarray, gate: str, easy: Said, hard: MappingType[str, Said]) -> np.ndarray:
    """What the stages say -> probabilities ``(n, k)`` of ``classes``."""
    p_easy = easy.probabilities
    if gate == "hard":
        chosen = np.zeros_like(p_easy)
        chosen[np.arange(len(p_easy)), p_easy.argmax(axis=1)] = 1.0
        p_easy = chosen
    out = np.zeros((len(p_easy), len(classes)))
    for column, label in zip(p_easy.T, easy.classes, strict=True):
        if label in hard:
            out[:, np.searchsorted(classes, hard[label].classes)] += column[:, None] * hard[label].probabilities
        else:
            out[:, np.searchsorted(classes, label)] += column
    return out


def merge(y: np.ndarray, look_alikes: MappingType[str, Sequence[str]]) -> np.ndarray:
    """Labels with look-alikes merged, ``(n,)``."""
    group_of = {label: group for group, labels in look_alikes.items() for label in labels}
    return np.array([group_of.get(label, label) for label in y], dtype=object)
