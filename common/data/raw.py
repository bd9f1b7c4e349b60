"""What a data source hands over: arrays or files with labels, not yet split, checked or measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.data.dataset import DataProblem, ImageFiles, SplitFractions
from common.data.normalization import pixel_sums
from common.exits import InputFileError

if TYPE_CHECKING:
    from common.data.dataset import Dataset

# The name of a part that is still to be split into train, val and test.
UNSPLIT = "all"

CACHE_MODES = ("auto", "memory", "none")
_BLOCK = 256


@dataclass(frozen=True)
class ExpectedInput:
    """What a trained model takes: the classes it knows, and the shape of one input, (C, H, W) or (F,)."""

    class_names: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class SourceRequest:
    """What a user asked for.

    ``image_size`` is (H, W); ``memory_budget_bytes`` bounds images held in memory; ``num_threads`` decode them.
    ``expected`` is set where the data is read for a model that exists already.
    """

    source: str
    root: Path | None
    split: SplitFractions
    image_size: tuple[int, int] | None
    cache: str
    label_column: str | None
    memory_budget_bytes: int
    num_threads: int
    expected: ExpectedInput | None = None

    def require_root(self, what: str) -> Path:
        """The path in ``data.root``; raises InputFileError where it is missing or does not exist."""
        if self.root is None:
            raise InputFileError(f"the source {self.source} needs {what}", field="data.root", hint="name it there")
        if not self.root.exists():
            raise InputFileError("does not exist", path=self.root, field="data.root", hint=f"it should be {what}")
        return self.root


@dataclass
class RawSamples:
    """Samples of one part: uint8 or float32 ``inputs`` in the layout of ``Split.inputs``, or ``image_files``.

    ``digests`` (N, 32) are SHA-256 of each sample's decoded pixels and ``sums`` the ``pixel_sums``, both uint8 images
    only; made here where the source did not make them while decoding.
    """

    labels: np.ndarray
    names: list[str]
    inputs: np.ndarray | None = None
    image_files: ImageFiles | None = None
    digests: np.ndarray | None = None
    sums: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> RawSamples:
        """The samples at ``indices``, in that order."""
        files = self.image_files
        return RawSamples(
            labels=self.labels[indices],
            names=[self.names[index] for index in indices],
            inputs=None if self.inputs is None else self.inputs[indices],
            image_files=None if files is None else replace(files, paths=[files.paths[index] for index in indices]),
            digests=None if self.digests is None else self.digests[indices],
            sums=None if self.sums is None else self.sums[indices],
        )

    def measure(self) -> None:
        """Fill in ``digests``, and ``sums`` for uint8 images, where the source has not."""
        if self.digests is None and self.inputs is not None:
            self.digests = sample_digests(self.inputs)
        if self.sums is None and self.inputs is not None and self.inputs.dtype == np.uint8:
            self.sums = pixel_sums(self.inputs)


@dataclass
class RawData:
    """All parts of a source: ``train`` (with ``val``, ``test``) or the one part ``UNSPLIT``.

    ``after_split`` is called with the finished dataset and returns notices.
    """

    name: str
    kind: str
    class_names: list[str]
    parts: dict[str, RawSamples]
    input_shape: tuple[int, ...]
    resize: tuple[int, int] | None = None
    column_names: list[str] | None = None
    problems: list[DataProblem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    after_split: Callable[[Dataset], list[str]] | None = None


def sample_digests(inputs: np.ndarray) -> np.ndarray:
    """SHA-256 of each sample's bytes: uint8 (N, 32)."""
    digests = np.empty((len(inputs), 32), dtype=np.uint8)
    for index, sample in enumerate(np.ascontiguousarray(inputs)):
        digests[index] = np.frombuffer(hashlib.sha256(sample.data).digest(), dtype=np.uint8)
    return digests


def for_each_in_threads(work: Callable[[int], None], count: int, num_threads: int) -> None:
    """Call ``work(index)`` for 0..count-1 in threads, in no particular order. Pays where ``work`` leaves the GIL."""

    def work_through(block: Sequence[int]) -> None:
        for index in block:
            work(index)

    blocks = [range(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]
    with ThreadPoolExecutor(max_workers=num_threads) as pool:
        for _ in pool.map(work_through, blocks):
            pass
