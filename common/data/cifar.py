"""CIFAR-10 as distributed: the binary version, or the pickled one read without executing anything.

Source of the formats: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from common.data.arrays import data_from_arrays
from common.data.raw import RawData, SourceRequest
from common.exits import InputFileError

_SHAPE = (3, 32, 32)
_BYTES_PER_IMAGE = 3072
_TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST_BATCH = "test_batch"
_CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _latin_1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes as {encoding!r} text")
    return text.encode("latin-1")


# All that pickled arrays consist of, whichever Python and NumPy wrote them.
_ALLOWED_GLOBALS = {
    ("_codecs", "encode"): _latin_1,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def read_cifar10(request: SourceRequest) -> RawData:
    """``request.root`` is the folder of the batch files, or one that has them in ``cifar-10-batches-{bin,py}/``."""
    root = request.require_root("the folder of the CIFAR-10 batches")
    folder, suffix = _find(root)
    read = read_binary_batch if suffix else read_pickled_batch
    train = [read(folder / f"{name}{suffix}") for name in _TRAIN_BATCHES]
    x_test, y_test = read(folder / f"{_TEST_BATCH}{suffix}")
    arrays = {
        "x_train": np.concatenate([images for images, _ in train]),
        "y_train": np.concatenate([labels for _, labels in train]),
        "x_test": x_test,
        "y_test": y_test,
        "class_names": np.array(_CLASS_NAMES),
    }
    return data_from_arrays(arrays, request, name="cifar10", where=folder)


def read_binary_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, 3, 32, 32) and labels uint8 (N,): each record is the label, then the red, green, blue plane.

    Raises:
        InputFileError: missing, or of no whole number of records.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise InputFileError(f"cannot be read: {error.strerror}", path=path) from error
    if content.size == 0 or content.size % (_BYTES_PER_IMAGE + 1):
        raise InputFileError(f"is no whole number of {_BYTES_PER_IMAGE + 1}-byte records", path=path)
    records = content.reshape(-1, _BYTES_PER_IMAGE + 1)
    return records[:, 1:].reshape(-1, *_SHAPE), records[:, 0]


# What unpickling damaged bytes can end in; a length that is damaged asks for more memory than there is.
_DAMAGED = (
    OSError, ValueError, TypeError, LookupError, EOFError, AttributeError, MemoryError, pickle.UnpicklingError,
)  # fmt: skip


def read_pickled_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same from the Python version: a pickled dict of ``data`` uint8 (N, 3072) and ``labels``.

    Raises:
        InputFileError: missing, damaged, of other content, or it asks for anything but NumPy arrays.
    """
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
    except _DAMAGED as error:
        raise InputFileError(f"cannot be read as a CIFAR-10 batch: {error}", path=path) from error
    images = content.get(b"data") if isinstance(content, dict) else None
    labels = content.get(b"labels") if isinstance(content, dict) else None
    fits = isinstance(images, np.ndarray) and images.dtype == np.uint8 and isinstance(labels, list)
    if not fits or images.shape != (len(labels), _BYTES_PER_IMAGE) or not all(isinstance(i, int) for i in labels):
        raise InputFileError("holds no images and labels of CIFAR-10", path=path)
    return images.reshape(-1, *_SHAPE), np.array(labels, dtype=np.int64)


class _ArraysOnly(pickle.Unpickler):
    """Resolves the names that a pickled array consists of, and refuses every other."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        allowed = _ALLOWED_GLOBALS.get((module_name, global_name))
        if allowed is None:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which is never loaded")
        return allowed


def _find(root: Path) -> tuple[Path, str]:
    for folder, suffix in (
        (root, ".bin"),
        (root / "cifar-10-batches-bin", ".bin"),
        (root, ""),
        (root / "cifar-10-batches-py", ""),
    ):
        if (folder / f"{_TEST_BATCH}{suffix}").is_file():
            return folder, suffix
    raise InputFileError(
        "holds no CIFAR-10 batches", path=root, field="data.root", hint="expected data_batch_1.bin and so on"
    )
