"""Whether batches are as mixed as the data they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

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
        self._shuffled: _Shuffled | None = None

    def label_entropy_ratio(self, index_batches: Iterable[Tensor]) -> float | None:
        """Mean entropy of the labels in a batch over that in shuffled batches.

        Near 1 for shuffled data, near 0 where batches hold one class each (data sorted by class, not shuffled).

        Args:
            index_batches: sample numbers of an epoch's batches, int64, in order; the first 50 are looked at.
        Returns:
            None without batches, or where shuffled ones hold a single class too.
        """
        some = list(islice(index_batches, _MAX_BATCHES))
        if not some:
            return None
        sizes = [batch.numel() for batch in some]
        if self._shuffled is None or self._shuffled.sizes != sizes:
            self._shuffled = self._shuffled_batches(sizes)
        return ratio(self._mean_entropy(torch.cat(some), self._shuffled), self._shuffled.mean_entropy)

    def _shuffled_batches(self, sizes: list[int]) -> _Shuffled:
        counts = np.arange(max(sizes) + 1)
        shuffled = _Shuffled(
            sizes=sizes,
            sizes_K=np.array(sizes),
            first_cells_B=np.repeat(np.arange(len(sizes)) * self._num_classes, sizes),
            count_log_counts=counts * np.log(np.maximum(counts, 1)),
        )
        # Spread over the whole split, as a shuffled epoch's first batches are.
        hashes_B = counter_random.hash_indices(torch.arange(sum(sizes)), _KEY)
        shuffled.mean_entropy = self._mean_entropy(hashes_B.remainder(len(self._labels_N)), shuffled)
        return shuffled

    def _mean_entropy(self, indices_B: Tensor, batches: _Shuffled) -> float:
        """In nats, averaged over batches of the same sizes as those."""
        cells_B = batches.first_cells_B + self._labels_N[indices_B.numpy()]
        num_batches = len(batches.sizes)
        counts_KC = np.bincount(cells_B, minlength=num_batches * self._num_classes).reshape(num_batches, -1)
        # Of a batch of n samples: ln n - sum(count * ln count) / n, over the classes that occur in it.
        sums_K = np.add.reduce(batches.count_log_counts[counts_KC], axis=1)
        return float((np.log(batches.sizes_K) - sums_K / batches.sizes_K).mean())


@dataclass
class _Shuffled:
    """Shuffled batches to compare those of the same sizes with, and what is reckoned once for all of them.

    ``first_cells_B`` is, for each sample, its batch's number times C; ``count_log_counts`` n ln n for each n up to the
    largest batch.
    """

    sizes: list[int]
    sizes_K: np.ndarray
    first_cells_B: np.ndarray
    count_log_counts: np.ndarray
    mean_entropy: float = 0.0
