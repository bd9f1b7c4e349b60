"""Equal samples, found by their bytes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from common.data.raw import sample_digests


class EqualSamples:
    """Which samples equal which, within and across the parts of a data set.

    A CRC of each sample tells most apart; those it does not are told apart by SHA-256.

    Args:
        parts: samples (N, ...) by name.
    """

    def __init__(self, parts: Mapping[str, np.ndarray]) -> None:
        checksums_N = np.concatenate([_checksums(samples) for samples in parts.values()])
        sorted_N = np.sort(checksums_N)
        # Numbers by part, the same for equal samples; None where all are different, and nothing more to be found.
        self._groups: dict[str, np.ndarray] | None = None
        if (sorted_N[1:] == sorted_N[:-1]).any():
            self._groups = _groups(parts, checksums_N)
        self._sizes = {name: len(samples) for name, samples in parts.items()}

    def num_compared(self, part: str) -> int:
        return self._sizes[part]

    def num_repeated(self, part: str) -> int:
        """Samples that equal one before them in the part."""
        return 0 if self._groups is None else self._sizes[part] - len(np.unique(self._groups[part]))

    def num_in(self, part: str, other: str) -> int:
        """Samples of ``part`` that equal one of another part."""
        return 0 if self._groups is None else int(np.isin(self._groups[part], self._groups[other]).sum())

    def num_with_several_labels(self, labels: Mapping[str, np.ndarray]) -> int:
        """Samples of any part that equal one with another label; ``labels`` int64 (N,) by part."""
        if self._groups is None:
            return 0
        group_N = np.concatenate([self._groups[name] for name in labels])
        labels_N = np.concatenate(list(labels.values()))
        num_labels = int(labels_N.max()) + 1
        pairs = np.unique(group_N.astype(np.int64) * num_labels + labels_N)
        groups, labels_of_group = np.unique(pairs // num_labels, return_counts=True)
        return int(np.isin(group_N, groups[labels_of_group > 1]).sum())


def _groups(parts: Mapping[str, np.ndarray], checksums_N: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers int64 (N,) for the samples of every part: the same for equal samples, whatever part they are in."""
    _, group_N, sizes = np.unique(checksums_N, return_inverse=True, return_counts=True)
    bounds = np.cumsum([len(samples) for samples in parts.values()])[:-1]
    unsure_N = sizes[group_N] > 1
    unsure = zip(parts.values(), np.split(unsure_N, bounds), strict=True)
    digests = np.concatenate([sample_digests(samples[chosen]) for samples, chosen in unsure])
    _, by_content = np.unique(digests.view("V32")[:, 0], return_inverse=True)
    group_N[unsure_N] = len(sizes) + by_content
    return dict(zip(parts, np.split(group_N, bounds), strict=True))


def _checksums(samples: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(samples)
    return np.fromiter(map(zlib.crc32, rows), np.uint32, len(rows))
