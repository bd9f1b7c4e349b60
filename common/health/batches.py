"""Whether batches are as mixed as the data they come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from common.data import counter_random
from common.health.numbers import ratio

_MAX_BATCHES = 50
_KEY = counter_random.derive_key("shuffled batches to compare with")


def batch_label_entropy_ratio(index_batches: Sequence[Tensor], labels_N: Tensor, num_classes: int) -> float | None:
    """Mean entropy of the labels in a batch over that in shuffled batches of the same sizes.

    Near 1 for shuffled data, near 0 where batches hold one class each (data sorted by class, not shuffled). Small
    batches hold fewer classes than the whole split even when shuffled, so that is what they are held against.

    Args:
        index_batches: sample numbers of an epoch's batches, int64, in order; the first 50 are looked at.
        labels_N: class indices of all samples of the split, int64, on the CPU.
        num_classes: C.
    Returns:
        None without batches, or where shuffled ones hold a single class too.
    """
    some = list(index_batches[:_MAX_BATCHES])
    if not some:
        return None
    sizes_K = np.array([len(batch) for batch in some])
    # Spread over the whole split, as a shuffled epoch's first batches are.
    shuffled_B = counter_random.hash_indices(torch.arange(int(sizes_K.sum())), _KEY).remainder(len(labels_N))
    observed, expected = (
        _mean_entropy(labels_N[indices_B].numpy(), sizes_K, num_classes) for indices_B in (torch.cat(some), shuffled_B)
    )
    return ratio(observed, expected)


def _mean_entropy(labels_B: np.ndarray, sizes_K: np.ndarray, num_classes: int) -> float:
    """In nats, averaged over the batches of these sizes that the labels are in one after the other."""
    cells = np.repeat(np.arange(len(sizes_K)) * num_classes, sizes_K) + labels_B
    counts_KC = np.bincount(cells, minlength=len(sizes_K) * num_classes).reshape(len(sizes_K), -1)
    # Of a batch of n samples: ln n - sum(count * ln count) / n, over the classes that occur in it.
    sums_K = (counts_KC * np.log(np.maximum(counts_KC, 1))).sum(axis=1)
    return float((np.log(sizes_K) - sums_K / sizes_K).mean())
