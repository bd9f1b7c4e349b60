"""Whether batches are as mixed as the data they come from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.data import counter_random
from common.health.numbers import ratio

_MAX_BATCHES = 50
_KEY = counter_random.derive_key("shuffled batches to compare with")


def batch_label_entropy_ratio(index_batches: Sequence[Tensor], labels_N: Tensor, num_classes: int) -> float | None:
    """Mean entropy of the labels in a batch over that of shuffled batches of the same sizes.

    Near 1 for shuffled data, near 0 where batches hold one class each (data sorted by class, not shuffled). Small
    batches have less entropy than the whole split even when shuffled, so that is what they are held against.

    Args:
        index_batches: sample numbers of an epoch's batches, int64, in order; the first 50 are looked at.
        labels_N: class indices of all samples of the split, int64, on the CPU.
    Returns:
        None without batches, or where shuffled ones hold a single class too.
    """
    some = list(index_batches[:_MAX_BATCHES])
    if not some:
        return None
    observed_B = torch.cat(some)
    # Spread over the whole split, as a shuffled epoch's first batches are.
    shuffled_B = counter_random.hash_indices(torch.arange(len(observed_B)), _KEY).remainder_(len(labels_N))
    batch_B = torch.repeat_interleave(torch.tensor([len(batch) for batch in some]))
    cells = torch.cat([batch_B, batch_B + len(some)]) * num_classes + labels_N[torch.cat([observed_B, shuffled_B])]
    counts_2KC = torch.bincount(cells, minlength=2 * len(some) * num_classes).reshape(2, len(some), num_classes)
    shares_2KC = counts_2KC / counts_2KC.sum(dim=2, keepdim=True)
    observed, expected = torch.special.entr(shares_2KC).sum(dim=2).mean(dim=1).tolist()
    return ratio(observed, expected)
