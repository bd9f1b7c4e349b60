"""Data as named arrays: what an ``npz`` file or a function by import path holds."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil

from common.data.image_files import resize_images
from common.data.labels import index_labels
from common.data.raw import UNSPLIT, RawData, RawSamples, SourceRequest
from common.exits import EnvironmentLackError, InputFileError

# What NumPy and zipfile raise on files that are damaged, or no archives of arrays.
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
_EXPECTED = "x_train, y_train, x_val, y_val, x_test, y_test, or x, y; and class_names, if any"


def read_npz(request: SourceRequest) -> RawData:
    """``request.root`` is the file."""
    path = request.require_root("an .npz file")
    return data_from_arrays(load_npz(path), request, name=path.stem, where=path)


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file.

    Raises:
        InputFileError: it is no ``.npz`` file, damaged, or holds Python objects (which are never unpickled).
        EnvironmentLackError: it does not fit into memory.
    """
    try:
        with zipfile.ZipFile(path) as container:
            size_bytes = sum(member.file_size for member in container.infolist())
        available_bytes = psutil.virtual_memory().available
        if size_bytes > available_bytes:
            raise EnvironmentLackError(
                f"needs {size_bytes / 2**30:.1f} GiB of memory; {available_bytes / 2**30:.1f} are free",
                path=path,
            )
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except _DAMAGE as error:
        raise InputFileError(f"cannot be read as .npz arrays: {error}", path=path) from error


def data_from_arrays(
    arrays: Mapping[str, np.ndarray], request: SourceRequest, *, name: str, where: str | Path
) -> RawData:
    """Raw data of arrays named as in ``_EXPECTED``.

    ``x`` is (N, F) for tables; (N, H, W), (N, H, W, C) or (N, C, H, W) for images, uint8 or float on the scale 0 to 1.

    Raises:
        InputFileError: names, shapes, types or labels are not as described.
    """
    parts = _part_names(arrays, where, may_lack_training=request.expected is not None)
    inputs = _pixels({part: _inputs(np.asarray(arrays[x]), x, where) for part, (x, _) in parts.items()})
    if not all(len(array) for array in inputs.values()):
        raise InputFileError("holds an array without rows", path=where, hint="leave such a part out")
    known_names = _class_names(arrays, where) or (request.expected and request.expected.class_names)
    labels, class_names = index_labels({y: np.asarray(arrays[y]) for _, y in parts.values()}, known_names, where)
    if request.image_size is not None:
        inputs = {part: _resized(array, request.image_size, where) for part, array in inputs.items()}
    shapes = {array.shape[1:] for array in inputs.values()}
    if len(shapes) > 1:
        raise InputFileError(f"the parts have samples of different shapes: {sorted(shapes)}", path=where)
    data = RawData(
        name=name,
        kind="tabular" if len(next(iter(shapes))) == 1 else "image",
        class_names=class_names,
        parts={},
        input_shape=next(iter(shapes)),
        resize=request.image_size,
        notices=_unused(arrays, parts) + _unusual_scale(inputs),
    )
    for part, (x, y) in parts.items():
        if len(inputs[part]) != len(labels[y]):
            raise InputFileError(f"{x} has {len(inputs[part])} rows, {y} has {len(labels[y])}", path=where)
        names = [f"{x}[{row}]" for row in range(len(labels[y]))]
        data.parts[part] = RawSamples(labels=labels[y], names=names, inputs=inputs[part])
    return data


def _part_names(
    arrays: Mapping[str, np.ndarray], where: str | Path, *, may_lack_training: bool
) -> dict[str, tuple[str, str]]:
    candidates = {part: (f"x_{part}", f"y_{part}") for part in ("train", "val", "test")}
    if "x_train" not in arrays and not (may_lack_training and "x_test" in arrays):
        candidates = {UNSPLIT: ("x", "y")}
    found = {part: pair for part, pair in candidates.items() if any(name in arrays for name in pair)}
    missing = [name for pair in found.values() for name in pair if name not in arrays]
    if missing or not found:
        lack = ", ".join(missing) or "x"
        held = ", ".join(sorted(arrays)) or "nothing"
        raise InputFileError(f"has no array {lack} (it holds {held})", path=where, hint=f"expected {_EXPECTED}")
    return found


def _inputs(array: np.ndarray, name: str, where: str | Path) -> np.ndarray:
    if array.dtype.kind not in "iufb":
        raise InputFileError(f"{name} has type {array.dtype}, not numbers", path=where)
    if array.ndim == 2:
        return to_float32(array)
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4:
        raise InputFileError(
            f"{name} has shape {array.shape}",
            path=where,
            hint="expected (N, F), (N, H, W), (N, H, W, C) or (N, C, H, W)",
        )
    if array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.shape[1] not in (1, 3):
        raise InputFileError(f"{name}: images need 1 or 3 channels; its shape is {array.shape}", path=where)
    return array


def _pixels(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Images as uint8 where their values are bytes, else float32; all parts are taken to be on one scale."""
    own_scale = (np.uint8, np.uint16, np.bool_)
    images = [array for array in inputs.values() if array.ndim == 4 and array.dtype not in own_scale]
    are_bytes = all(map(_holds_bytes, images)) and any((array > 1).any() for array in images)
    return {
        part: np.ascontiguousarray(_part_pixels(array, are_bytes)) if array.ndim == 4 else array
        for part, array in inputs.items()
    }


def _holds_bytes(array: np.ndarray) -> bool:
    """Whether every value that is a number at all is a whole one from 0 to 255."""
    if array.dtype.kind != "f":
        return array.size == 0 or (array.min() >= 0 and array.max() <= 255)
    values = array[np.isfinite(array)]
    return bool(((values >= 0) & (values <= 255) & (values == np.floor(values))).all())


def _part_pixels(array: np.ndarray, are_bytes: bool) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return to_float32(array) / np.float32(65535)
    if are_bytes:
        # What is no number can be no byte; the rest of its part stays on the scale that bytes are brought to.
        is_whole = array.dtype.kind != "f" or np.isfinite(array).all()
        return array.astype(np.uint8) if is_whole else to_float32(array) / np.float32(255)
    return to_float32(array)


def to_float32(array: np.ndarray) -> np.ndarray:
    """float32; what is too large for it becomes infinite, and is reported as such by the checks."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _resized(array: np.ndarray, image_size: tuple[int, int], where: str | Path) -> np.ndarray:
    if array.ndim != 4 or array.dtype != np.uint8:
        raise InputFileError(
            "only images of 8 bits a channel can be resized", path=where, field="data.image_size", hint="leave it out"
        )
    return resize_images(array, image_size)


def _class_names(arrays: Mapping[str, np.ndarray], where: str | Path) -> list[str] | None:
    if "class_names" not in arrays:
        return None
    names = [str(name) for name in np.asarray(arrays["class_names"]).ravel().tolist()]
    if len(set(names)) < len(names):
        raise InputFileError("class_names holds a name twice", path=where)
    return names


def _unused(arrays: Mapping[str, np.ndarray], parts: Mapping[str, tuple[str, str]]) -> list[str]:
    used = {name for pair in parts.values() for name in pair} | {"class_names"}
    unused = sorted(set(arrays) - used)
    return [f"arrays not used: {', '.join(unused)}"] if unused else []


def _unusual_scale(inputs: Mapping[str, np.ndarray]) -> list[str]:
    floats = [array for array in inputs.values() if array.ndim == 4 and array.dtype == np.float32 and array.size]
    if any(np.nanmin(array) < 0 or np.nanmax(array) > 1 for array in floats):
        return ["image values outside 0 to 1 are used as they are; color_jitter would clip them"]
    return []
