"""From labels as people store them to class indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from common.data.dataset import first_named
from common.exits import InputFileError


def index_labels(
    labels: Mapping[str, np.ndarray], class_names: Sequence[str] | None, where: str | Path
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Labels that are class indices already, or texts; every array under the name it has for people.

    Without ``class_names`` there are as many classes as the largest index says; texts are sorted and numbered.

    Raises:
        InputFileError: a label is no whole number or out of range (rows named, counted from 0), or the indices have
            so many gaps that they cannot be meant as 0 to C-1.
    """
    labels = {name: _one_per_row(array, name, where) for name, array in labels.items()}
    if any(array.dtype.kind in "US" for array in labels.values()):
        return category_labels({name: _as_text(array) for name, array in labels.items()}, where, class_names)
    indices = {name: _whole_numbers(array, name, where) for name, array in labels.items()}
    if class_names is None:
        class_names = [str(index) for index in range(_num_classes(indices, where))]
    last = len(class_names) - 1
    for name, array in indices.items():
        _require((array >= 0) & (array <= last), array, name, where, f"out of range 0 to {last}")
    return {name: array.astype(np.int64) for name, array in indices.items()}, list(class_names)


def category_labels(
    labels: Mapping[str, np.ndarray], where: str | Path, class_names: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Labels of any sortable values, numbered in sorted order; or texts, by their place in ``class_names``.

    Raises:
        InputFileError: a label is not among ``class_names``.
    """
    values = np.unique(np.concatenate(list(labels.values())))
    if class_names is None:
        numbered = {name: np.searchsorted(values, array).astype(np.int64) for name, array in labels.items()}
        return numbered, [str(value) for value in values.tolist()]
    index_of = {name: index for index, name in enumerate(class_names)}
    for name, array in labels.items():
        known = np.isin(array.astype(str), list(index_of))
        _require(known, array, name, where, "not among the class names")
    return {
        name: np.array([index_of[str(value)] for value in array.tolist()], dtype=np.int64)
        for name, array in labels.items()
    }, list(class_names)


def _as_text(array: np.ndarray) -> np.ndarray:
    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array.astype(str)


def _one_per_row(array: np.ndarray, name: str, where: str | Path) -> np.ndarray:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InputFileError(
            f"{name} has shape {array.shape}, not one label a row", path=where, hint="store class indices 0 to C-1"
        )
    return array


def _whole_numbers(array: np.ndarray, name: str, where: str | Path) -> np.ndarray:
    if array.dtype.kind not in "iufb":
        raise InputFileError(f"{name} has type {array.dtype}, not whole numbers or text", path=where)
    if array.dtype.kind == "f":
        _require(np.isfinite(array) & (array == np.round(array)), array, name, where, "no whole number")
    return array


def _num_classes(indices: Mapping[str, np.ndarray], where: str | Path) -> int:
    present = np.unique(np.concatenate(list(indices.values())))
    num_classes = int(present[-1]) + 1
    if present[0] >= 0 and 2 * len(present) < num_classes:
        raise InputFileError(
            f"labels are not numbered 0 to C-1: only {len(present)} of the values 0 to {present[-1]} occur",
            path=where,
            hint="number the classes without gaps, or store class_names too",
        )
    return max(num_classes, 1)


def _require(good: np.ndarray, array: np.ndarray, name: str, where: str | Path, fault: str) -> None:
    bad = np.flatnonzero(~good)
    if len(bad):
        named = [f"row {row}: {array[row]}" for row in bad[:10].tolist()]
        plural = "label is" if len(bad) == 1 else "labels are"
        raise InputFileError(f"{name}: {len(bad)} {plural} {fault} ({first_named(named, len(bad))})", path=where)
