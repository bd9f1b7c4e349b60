"""Requests to a model: samples of the test data, prepared exactly as the model was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from common.data import Dataset, load_test_set
from common.data.image_files import UnreadableImageError, decode_image
from common.exits import InputFileError
from common.model_metadata import ModelMetadata

# Different inputs in turn, as in use, but not so many that they themselves fill the memory.
PREPARED_BYTES = 64 * 2**20


class RequestSource:
    """The test data cut into batches of one size, the last filled up from the beginning.

    Attributes:
        dataset: the data; its only split is ``test``.
        labels: int64 (N,).
        batch_size: samples per request.
    """

    def __init__(self, dataset: Dataset, root: Path, batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self._split = dataset.splits["test"]
        self.labels = self._split.labels.numpy()
        self._normalizer = dataset.normalizer()
        self._paths = _image_paths(dataset, root)

    @property
    def num_samples(self) -> int:
        return len(self.labels)

    @property
    def num_requests(self) -> int:
        """How many it takes until every sample has been asked about."""
        return -(-self.num_samples // self.batch_size)

    @property
    def steps(self) -> str:
        """What ``prepare`` does, for people."""
        if self._paths is None:
            return "normalise"
        return "read, decode, resize, normalise" if self.dataset.resize else "read, decode, normalise"

    def indices(self, number: int) -> npt.NDArray[np.int64]:
        """Sample numbers of request ``number``, int64 (batch_size,); after the last request it starts over."""
        first = (number % self.num_requests) * self.batch_size
        return np.arange(first, first + self.batch_size) % self.num_samples

    def prepare(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """float32 (B, *input_shape), contiguous: images from their files, table rows and arrays from memory.

        Raises:
            InputFileError: an image could be read before and cannot be now.
        """
        if self._paths is None:
            assert self._split.inputs is not None
            raw = self._split.inputs[torch.from_numpy(indices)]
        else:
            raw = torch.from_numpy(np.stack([self._decoded(self._paths[index]) for index in indices]))
        return self._normalizer(raw).numpy()

    def prepared(self, max_bytes: int = PREPARED_BYTES) -> list[npt.NDArray[np.float32]]:
        """Prepared requests to go round in: all of them, or as many as ``max_bytes`` hold, at least one."""
        first = self.prepare(self.indices(0))
        count = min(self.num_requests, max(1, max_bytes // first.nbytes))
        return [first, *(self.prepare(self.indices(number)) for number in range(1, count))]

    def _decoded(self, path: str) -> npt.NDArray[np.uint8]:
        channels, height, width = self.dataset.input_shape
        try:
            return decode_image(path, (channels, height, width), resize=self.dataset.resize is not None)
        except UnreadableImageError as error:
            raise InputFileError(f"{error} any more", path=path) from error


def load_requests(path: str | Path, metadata: ModelMetadata) -> Dataset:
    """The test data for a model: class folders, ``.npz``, ``.csv`` or ``.parquet``; classes are matched by name.

    Raises:
        InputFileError: it cannot be read, or does not fit the model.
    """
    return load_test_set(
        path,
        class_names=metadata.class_names,
        input_shape=metadata.input_shape,
        preprocessing=metadata.preprocessing,
    )


def _image_paths(dataset: Dataset, root: Path) -> Sequence[str] | None:
    split = dataset.splits["test"]
    if split.image_files is not None:
        return split.image_files.paths
    if root.is_dir() and split.file_names:
        return [str(root / name) for name in split.file_names]
    return None
