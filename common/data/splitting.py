"""Which sample is for training, validation or test: a function of the labels alone."""

from __future__ import annotations

import math

import numpy as np

from common.data import counter_random
from common.data.dataset import SplitFractions

# Fixed for ever: another value would move samples from the test set into the training set of existing models.
_SPLIT_KEY = counter_random.derive_key("split of the data")


def split_indices(labels: np.ndarray, fractions: SplitFractions) -> dict[str, np.ndarray]:
    """Indices of each split, ascending, together every index once; a split with fraction 0 is left out.

    Sizes are the nearest whole numbers of samples. With ``stratify`` each class gives its share to each split, to
    within one sample (largest remainder), and keeps at least one sample for training.
    """
    order = counter_random.permutation(len(labels), _SPLIT_KEY).numpy()
    groups = _by_class(labels, order) if fractions.stratify else [order]
    sizes = np.array([len(group) for group in groups])
    start = np.zeros_like(sizes)
    parts = {}
    for name, share in (("val", fractions.val), ("test", fractions.test)):
        if share > 0:
            stop = start + _largest_remainder(sizes * share, capacity=np.maximum(sizes - start - 1, 0))
            parts[name] = _slices(groups, start, stop)
            start = stop
    return {"train": _slices(groups, start, sizes), **parts}


def _by_class(labels: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
    by_label = order[np.argsort(labels[order], kind="stable")]
    class_sizes = np.unique(labels, return_counts=True)[1]
    return np.split(by_label, np.cumsum(class_sizes)[:-1])


def _largest_remainder(quotas: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """Whole numbers within one of ``quotas`` and at most ``capacity`` that add up to the rounded sum, if they can."""
    counts = np.minimum(np.floor(quotas).astype(int), capacity)
    missing = math.floor(quotas.sum() + 0.5) - counts.sum()
    for group in np.argsort(np.floor(quotas) - quotas, kind="stable"):
        if missing > 0 and counts[group] < capacity[group]:
            counts[group] += 1
            missing -= 1
    return counts


def _slices(groups: list[np.ndarray], start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    return np.sort(np.concatenate([group[a:b] for group, a, b in zip(groups, start, stop, strict=True)]))
