"""The look-alike classes by themselves: the records that truly are one of them, and what became of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spectro.comparison.contenders import Contender
from spectro.comparison.numbers import truth_of

OTHER = "another class"


@dataclass(frozen=True)
class LookAlikes:
    """A group of look-alikes that the task tells apart.

    Attributes:
        group: Its merged label.
        members: Its classes.
        support: Class -> number of records.
        confusion: Contender -> rows (truth, as ``members``) of counts by vote over seeds; columns are ``members`` and,
            last, any other class.
        truth: Which records of the group are of the second class, ``(m,)`` bool; None where the group has not exactly
            two classes, or only one of them has records.
        sources: Their sources, ``(m,)``.
        second: Contender -> probability of the second class, renormalised over the two and meant over seeds,
            ``(m,)``; a contender without probabilities is not there.
    """

    group: str
    members: tuple[str, ...]
    support: Mapping[str, int]
    confusion: Mapping[str, Sequence[Sequence[int]]]
    truth: np.ndarray | None
    sources: Sequence[str]
    second: Mapping[str, np.ndarray]


def look_alikes_of(contenders: Sequence[Contender], groups: Mapping[str, Sequence[str]]) -> list[LookAlikes]:
    """The look-alike groups of a mapping, as far as the task tells them apart and the split has records of them."""
    return [
        _group(contenders, group, tuple(members))
        for group, members in groups.items()
        if set(members) <= set(contenders[0].classes) and np.isin(truth_of(contenders[0]), list(members)).any()
    ]


def _group(contenders: Sequence[Contender], group: str, members: tuple[str, ...]) -> LookAlikes:
    truth = truth_of(contenders[0])
    own = np.isin(truth, list(members))
    confusion = {}
    for one in contenders:
        votes = np.where(np.isin(one.votes, list(members)), one.votes, OTHER)
        confusion[one.name] = [
            [int(((truth == row) & (votes == column)).sum()) for column in (*members, OTHER)] for row in members
        ]
    support = {label: int((truth == label).sum()) for label in members}
    is_pair = len(members) == 2 and all(support.values())
    return LookAlikes(
        group=group,
        members=members,
        support=support,
        confusion=confusion,
        truth=truth[own] == members[1] if is_pair else None,
        sources=[row.source for row, is_own in zip(contenders[0].rows, own, strict=True) if is_own],
        second={
            one.name: _renormalised(one, members, own)
            for one in contenders
            if is_pair and one.probabilities is not None
        },
    )


def _renormalised(contender: Contender, members: tuple[str, ...], own: np.ndarray) -> np.ndarray:
    assert contender.probabilities is not None
    columns = [contender.classes.index(label) for label in members]
    pair = contender.probabilities[:, own][:, :, columns]
    total = pair.sum(axis=2)
    # Where a model gives neither of them any probability it says nothing.
    second = np.divide(pair[:, :, 1], total, out=np.full(total.shape, 0.5), where=total > 0)
    return np.asarray(second.mean(axis=0))
