"""Choices inside the training records: no group on both sides, and the better candidate."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spectro.classifiers.inner_cv import choose


@settings(max_examples=40)
@given(data=st.data(), n_classes=st.integers(2, 4), views=st.integers(1, 4))
def test_no_group_is_on_both_sides_and_every_row_is_new_once(data, n_classes, views):
    """A view of a record among the new rows would be recognised, and the most complex candidate chosen."""
    records = data.draw(st.lists(st.integers(0, n_classes - 1), min_size=2 * n_classes, max_size=30))
    records = [*range(n_classes), *range(n_classes), *records]
    labels, groups = np.repeat(records, views), np.repeat(np.arange(len(records)), views)
    seen: dict[float, list[int]] = {1.0: [], 2.0: []}

    def predict(candidate, train, new):
        assert not set(groups[train]) & set(groups[new])
        assert set(labels[train]) == set(range(n_classes))
        seen[candidate] += new.tolist()
        return labels[new] if candidate == 2.0 else (labels[new] + 1) % n_classes

    assert choose([1.0, 2.0], predict, labels, groups) == 2.0
    assert all(sorted(rows) == list(range(len(labels))) for rows in seen.values())


def test_equal_candidates_and_classes_of_one_group():
    def constant(candidate, train, new):
        return np.zeros(len(new), dtype=int)

    labels = np.array([0, 0, 1, 1])
    assert choose([0.1, 1.0, 10.0], constant, labels, np.arange(4)) == 0.1
    assert choose([0.1, 1.0, 10.0], constant, labels, np.array([0, 1, 2, 2])) == 1.0
