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


class BatchMixing:
    """Compares the labels in a split's batches with those in shuffled batches of the same sizes.

    Small batches hold fewer classes than the whole split even when shuffled, so that is what they are held against.

    Args:
        labels_N: class indices of all samples of the split, int64, on the CPU.
        num_classes: C.
    """

    def __init__(self, labels_N: Tensor, num_classes: int) -> None:
        self._labels_N = labels_N.numpy()
        self._num_classes = num_classes
        self._expected: tuple[list[int], float] = ([], 0.0)

    def label_entropy_ratio(self, index_batches: Sequence[Tensor]) -> float | None:
        """Mean entropy of the labels in a batch over that in shuffled batches.

        Near 1 for shuffled data, near 0 where batches hold one class each (data sorted by class, not shuffled).

        Args:
            index_batches: sample numbers of an epoch's batches, int64, in order; the first 50 are looked at.
        Returns:
            None without batches, or where shuffled ones hold a single class too.
        """
        some = list(index_batches[:_MAX_BATCHES])
        if not some:
            return None
        sizes = [len(batch) for batch in some]
        if self._expected[0] != sizes:
            # Spread over the whole split, as a shuffled epoch's first batches are.
            hashes = counter_random.hash_indices(torch.arange(sum(sizes)), _KEY)
            self._expected = (sizes, self._mean_entropy(hashes.remainder(len(self._labels_N)), sizes))
        return ratio(self._mean_entropy(torch.cat(some), sizes), self._expected[1])

    def _mean_entropy(self, indices_B: Tensor, sizes: list[int]) -> float:
        """In nats, averaged over batches of these sizes."""
        cells = np.repeat(np.arange(len(sizes)) * self._num_classes, sizes) + self._labels_N[indices_B.numpy()]
        counts_KC = np.bincount(cells, minlength=len(sizes) * self._num_classes).reshape(len(sizes), -1)
        sizes_K = np.array(sizes)
        # Of a batch of n samples: ln n - sum(count * ln count) / n, over the classes that occur in it.
        sums_K = (counts_KC * np.log(np.maximum(counts_KC, 1))).sum(axis=1)
        return float((np.log(sizes_K) - sums_K / sizes_K).mean())
