"""Several members, mostly of one configuration, whose probabilities are averaged."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import clone

from spectro.classifiers.base import Attribution, ImageClassifier
from spectro.classifiers.fit_context import current, part
from spectro.classifiers.registry import load_part, register_family
from spectro.classifiers.temperature import ScoringClassifier, scores_of
from spectro.data.decode import ImageSpec
from spectro.data.images import groups_of_rows
from spectro.data.splits import bootstrap


@register_family("ensemble")
@dataclass(eq=False, repr=False)
class EnsembleClassifier(ScoringClassifier):
    """The mean of the members' probabilities, with one temperature on top (see `ScoringClassifier`).

    Members of a family with a seed differ by it: seed, seed + 1 and so on; so do all stages of a cascade. Others are
    fitted to bootstrap samples of the training groups, drawn within classes (Breiman, 1996, "Bagging predictors").
    One member alone is the classifier itself.

    Args:
        estimator: A classifier of any family, or a list of them; they are cloned, not fitted themselves. Parameters of
            those of a list are ``estimator_1__<name>`` and so on.
        members: Number of members of each estimator.
        seed: Of the bootstrap samples.
    """

    _instead: ClassVar[str] = "the family of a member (ensemble.members=5)"

    estimator: ImageClassifier | list[ImageClassifier]
    members: int = 5
    seed: int = 0

    @classmethod
    def of(cls, fitted: Sequence[ImageClassifier]) -> Self:
        """The mean of classifiers that are fitted, of the same classes; its temperature is 1."""
        ensemble = cls(list(fitted), 1)
        ensemble.members_, ensemble.classes_ = list(fitted), fitted[0].classes_
        ensemble.temperature_, ensemble.temperature_fitted_ = 1.0, False
        return ensemble

    @property
    def _estimators(self) -> list[ImageClassifier]:
        return self.estimator if isinstance(self.estimator, list) else [self.estimator]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters, with those of the estimators."""
        params: dict[str, Any] = super().get_params(deep)
        for number, estimator in enumerate(self._estimators if deep and isinstance(self.estimator, list) else [], 1):
            name = f"estimator_{number}"
            params |= {name: estimator, **{f"{name}__{key}": value for key, value in estimator.get_params().items()}}
        return params

    @property
    def draws_views(self) -> bool:  # type: ignore[override]
        """Whether all members do."""
        return all(estimator.draws_views for estimator in self._estimators)

    @property
    def specs(self) -> list[ImageSpec]:
        """Those of all members."""
        return list(dict.fromkeys(spec for estimator in self._estimators for spec in estimator.specs))

    @property
    def chooses_on_val(self) -> bool:
        """Whether a member does."""
        return any(estimator.chooses_on_val for estimator in self._estimators)

    @property
    def facts(self) -> dict[str, Any]:
        """Those of the first network, with the parameters of all of them."""
        facts = [facts for member in getattr(self, "members_", []) if (facts := member.facts)]
        if not facts:
            return {}
        total = {name: sum(each["parameters"][name] for each in facts) for name in facts[0]["parameters"]}
        return {**facts[0], "parameters": total, "members": len(self.members_)}

    def prepare(self) -> None:
        """Prepares a member of each estimator."""
        for estimator in self._estimators:
            estimator.prepare()

    def _fit(self, X: Any, y: np.ndarray, X_val: Any, y_val: np.ndarray) -> None:
        groups, context = groups_of_rows(X), current()
        stage = context.stage.removesuffix(context.fold).rstrip()
        self.members_: list[ImageClassifier] = []
        for (i, estimator), number in itertools.product(enumerate(self._estimators, 1), range(self.members)):
            member, rows, n = clone(estimator), np.arange(len(X)), len(self.members_)
            seeds = {k: v + n for k, v in member.get_params().items() if k.split("__")[-1] == "seed"}
            member.set_params(**seeds)
            if not seeds and self.members > 1:
                rows = bootstrap(y, groups, [self.seed, number])
            name = f"{stage} settings {i}" if isinstance(self.estimator, list) else stage
            name += f" member {number + 1}" if self.members > 1 or name == stage else ""
            with part(name.lstrip(), f"member_{n + 1}"):
                self.members_.append(member.fit(X[rows], y[rows], X_val, y_val))
        # One member has its temperature already.
        self._fit_temperature(self._scores(X_val) if len(y_val) and len(self.members_) > 1 else None, y_val)

    def _scores_and_features(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """The features are those of the first member."""
        stages, features = self.members_[0].outputs(X)
        others = [member.predict_proba(X) for member in self.members_[1:]]
        return scores_of(np.mean([stages[""].probabilities, *others], axis=0)), features

    def _check_params(self) -> None:
        """Those of a member are checked when it is fitted."""
        if not isinstance(self.members, int) or self.members < 1:
            raise ValueError(f"members: got {self.members!r}; allowed: 1 or more")

    def _attributions(self, X: Any, labels: np.ndarray, others: np.ndarray) -> list[Attribution | None]:
        """The mean of the members' maps that have the shape of the first one."""
        of_members = [member._attributions(X, labels, others) for member in self.members_]
        means: list[Attribution | None] = []
        for maps in zip(*of_members, strict=True):
            there = [attribution for attribution in maps if attribution is not None]
            alike = [attribution.map for attribution in there if attribution.map.shape == there[0].map.shape]
            mean = np.mean(alike, axis=0) if there else None
            means.append(None if mean is None else replace(there[0], map=mean / (mean.max() or 1)))
        return means

    def _params(self) -> dict[str, Any]:
        return {"members": self.members, "seed": self.seed}

    @classmethod
    def _from_params(cls, params: dict[str, Any]) -> Self:
        return cls(estimator=None, **params)  # type: ignore[arg-type]  # `_load` sets it

    def _save(self, folder: Path) -> dict[str, Any]:
        for number, member in enumerate(self.members_, 1):
            member.save(folder / f"member_{number}")
        return {"n": len(self.members_), **self._temperature_state()}

    def _load(self, folder: Path, fitted: dict[str, Any]) -> None:
        self.members_ = [load_part(folder / f"member_{number + 1}") for number in range(fitted["n"])]
        if any(list(member.classes_) != list(self.classes_) for member in self.members_):
            raise ValueError("the classes of the members are not those of the ensemble")
        # A loaded ensemble has fitted members in place of unfitted ones.
        first = self.members_[:: self.members]
        self.estimator = first if len(first) > 1 else first[0]
        self._load_temperature(fitted)
