"""Every split of every set of labels: nothing lost, nothing twice, shares kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import SplitFractions
from common.data.splitting import split_indices

SETTINGS = settings(deadline=None, derandomize=True, max_examples=150)
labels = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(np.array)
fractions = st.tuples(st.floats(0, 0.49), st.floats(0, 0.49), st.booleans()).map(lambda parts: SplitFractions(*parts))


@SETTINGS
@given(labels, fractions)
def test_every_sample_is_in_exactly_one_split(labels, fractions):
    splits = split_indices(labels, fractions)
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(labels)))
    assert all((np.diff(indices) > 0).all() for indices in splits.values())
    assert set(splits) == {"train"} | ({"val"} if fractions.val else set()) | ({"test"} if fractions.test else set())


@SETTINGS
@given(labels, fractions)
def test_sizes_and_class_shares(labels, fractions):
    splits = split_indices(labels, fractions)
    for name, share in (("val", fractions.val), ("test", fractions.test)):
        if share == 0:
            continue
        assert len(splits[name]) <= np.floor(share * len(labels) + 0.5)
        if fractions.stratify:
            for count, chosen in _per_class(labels, splits[name]):
                # At most one from the exact share, and one more where the class had to keep one for training.
                assert share * count - 2 < chosen < share * count + 1
    if fractions.stratify:
        assert set(labels[splits["train"]]) == set(labels)


@SETTINGS
@given(st.integers(2, 6), st.integers(20, 40), fractions.filter(lambda fractions: fractions.stratify))
def test_sizes_are_exact_where_classes_have_room(num_classes, per_class, fractions):
    labels = np.arange(num_classes * per_class) % num_classes
    splits = split_indices(labels, fractions)
    for name, share in (("val", fractions.val), ("test", fractions.test)):
        assert len(splits.get(name, ())) == np.floor(share * len(labels) + 0.5)


@SETTINGS
@given(labels, fractions, st.permutations(range(6)))
def test_names_of_classes_do_not_matter(labels, fractions, new_numbers):
    renamed = np.array(new_numbers)[labels]
    sizes = {name: len(indices) for name, indices in split_indices(labels, fractions).items()}
    assert {name: len(indices) for name, indices in split_indices(renamed, fractions).items()} == sizes


def test_the_split_never_changes():
    # Written down: another split would move test samples of existing models into their training set.
    splits = split_indices(np.arange(20) % 2, SplitFractions(val=0.2, test=0.2))
    assert splits["val"].tolist() == [1, 2, 7, 10] and splits["test"].tolist() == [0, 5, 6, 15]


def _per_class(labels, indices):
    return [((labels == label).sum(), (labels[indices] == label).sum()) for label in np.unique(labels)]
