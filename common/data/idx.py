"""MNIST and sets of its form (Fashion-MNIST, KMNIST): four idx files, gzipped or not.

Source of the format: http://yann.lecun.com/exdb/mnist/ ("the IDX file format").
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from common.data.arrays import data_from_arrays
from common.data.raw import RawData, SourceRequest
from common.exits import InputFileError

_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
_UNSIGNED_BYTE = 0x08


def read_mnist(request: SourceRequest) -> RawData:
    """``request.root`` is the folder of the four files, or one that has them in ``MNIST/raw/``."""
    root = request.require_root("the folder of the four idx files")
    arrays = {name: read_idx(_find(root, file_name)) for name, file_name in _FILES.items()}
    arrays["class_names"] = np.array([str(digit) for digit in range(10)])
    return data_from_arrays(arrays, request, name="mnist", where=root)


def read_idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in an idx file.

    Raises:
        InputFileError: it is no such file, or shorter or longer than its header says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            zeros, kind, num_dims = struct.unpack(">HBB", file.read(4))
            if zeros != 0 or kind != _UNSIGNED_BYTE or not 1 <= num_dims <= 4:
                raise InputFileError("is no idx file of unsigned bytes", path=path)
            shape = struct.unpack(f">{num_dims}I", file.read(4 * num_dims))
            # One byte more than there should be, never more: a header can promise little and the file hold much.
            content = file.read(math.prod(shape) + 1)
    except (OSError, EOFError, struct.error, zlib.error, OverflowError, MemoryError) as error:
        raise InputFileError(f"cannot be read as an idx file: {error}", path=path) from error
    if len(content) != math.prod(shape):
        fault = "shorter" if len(content) < math.prod(shape) else "longer"
        raise InputFileError(f"is {fault} than its header says, {shape}", path=path)
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _find(root: Path, name: str) -> Path:
    # Distributors write either a dash or a dot before "idx".
    names = [variant + suffix for variant in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz")]
    for folder in (root, root / "MNIST" / "raw"):
        for candidate in names:
            if (folder / candidate).is_file():
                return folder / candidate
    raise InputFileError(f"has no file {name} (or {name}.gz)", path=root, field="data.root")
