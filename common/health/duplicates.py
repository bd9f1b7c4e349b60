"""Equal samples, found by their bytes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from common.data.raw import sample_digests


def group_equal(parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Numbers int64 (N,) for the samples of every part: the same for equal samples, whatever part they are in.

    A CRC of each sample tells most apart; those it does not are told apart by SHA-256.
    """
    checksums_N = np.concatenate([_checksums(samples) for samples in parts.values()])
    _, group_N, sizes = np.unique(checksums_N, return_inverse=True, return_counts=True)
    bounds = np.cumsum([len(samples) for samples in parts.values()])[:-1]
    unsure_N = sizes[group_N] > 1
    if unsure_N.any():
        unsure = zip(parts.values(), np.split(unsure_N, bounds), strict=True)
        digests = np.concatenate([sample_digests(samples[chosen]) for samples, chosen in unsure])
        _, by_content = np.unique(digests.view("V32")[:, 0], return_inverse=True)
        group_N[unsure_N] = len(sizes) + by_content
    return dict(zip(parts, np.split(group_N, bounds), strict=True))


def num_repeated(group_N: np.ndarray) -> int:
    """Samples that equal one before them."""
    return len(group_N) - len(np.unique(group_N))


def num_with_several_labels(group_N: np.ndarray, labels_N: np.ndarray) -> int:
    """Samples that equal one with another label."""
    num_labels = int(labels_N.max()) + 1
    pairs = np.unique(group_N.astype(np.int64) * num_labels + labels_N)
    groups, labels_of_group = np.unique(pairs // num_labels, return_counts=True)
    return int(np.isin(group_N, groups[labels_of_group > 1]).sum())


def _checksums(samples: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(samples)
    return np.fromiter(map(zlib.crc32, rows), np.uint32, len(rows))
