"""Tables in CSV and Parquet files: one row a sample, one column the class, all others numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.data.arrays import to_float32
from common.data.dataset import first_named
from common.data.labels import category_labels
from common.data.raw import UNSPLIT, RawData, RawSamples, SourceRequest
from common.exits import InputFileError

if TYPE_CHECKING:
    import pyarrow


def read_csv(request: SourceRequest) -> RawData:
    """``request.root`` is a file whose first row names the columns, or a folder with train.csv, val.csv, test.csv."""
    return _read(request, ".csv", _csv_table)


def read_parquet(request: SourceRequest) -> RawData:
    """``request.root`` is a file, or a folder with train.parquet, val.parquet, test.parquet."""
    return _read(request, ".parquet", _parquet_table)


def _read(request: SourceRequest, suffix: str, load: Callable[[Path], pyarrow.Table]) -> RawData:
    root = request.require_root(f"a {suffix} file")
    tables = {part: load(path) for part, path in _part_files(root, suffix).items()}
    first = next(iter(tables.values()))
    label_column = _label_column(first, request.label_column, root)
    columns = [name for name in first.column_names if name != label_column]
    if not columns:
        raise InputFileError(f"has no column but {label_column!r}", path=root)
    for part, table in tables.items():
        if table.column_names != first.column_names:
            raise InputFileError(f"{part}{suffix} has other columns than the first file", path=root)
    raw_labels = {part: _label_values(table, label_column, root) for part, table in tables.items()}
    labels, class_names = category_labels(raw_labels, root)
    return RawData(
        name=root.stem,
        kind="tabular",
        class_names=class_names,
        parts={
            part: RawSamples(
                labels=labels[part],
                names=[f"row {row}" for row in range(1, table.num_rows + 1)],
                inputs=np.stack([_feature(table, name, root) for name in columns], axis=1),
            )
            for part, table in tables.items()
        },
        input_shape=(len(columns),),
        column_names=columns,
    )


def _part_files(root: Path, suffix: str) -> dict[str, Path]:
    if not root.is_dir():
        return {UNSPLIT: root}
    found = {part: root / f"{part}{suffix}" for part in ("train", "val", "test")}
    found = {part: path for part, path in found.items() if path.is_file()}
    if "train" not in found:
        raise InputFileError(f"holds no train{suffix}", path=root, field="data.root", hint="or name one file there")
    return found


def _csv_table(path: Path) -> pyarrow.Table:
    from pyarrow import csv

    table = _loaded(path, "CSV", csv.read_csv)
    if all(_is_number(name) for name in table.column_names):
        raise InputFileError("has no header: its first row holds numbers", path=path, hint="name the columns there")
    return table


def _parquet_table(path: Path) -> pyarrow.Table:
    from pyarrow import parquet

    return _loaded(path, "Parquet", parquet.read_table)


def _loaded(path: Path, file_format: str, load: Callable[[Path], pyarrow.Table]) -> pyarrow.Table:
    import pyarrow

    try:
        table = load(path)
        names = table.column_names  # decoded only now
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except (pyarrow.ArrowException, OSError) as error:
        raise InputFileError(f"cannot be read as {file_format}: {error}", path=path) from error
    if not names:
        raise InputFileError("has no columns", path=path)
    return table


def _not_utf8(path: Path) -> InputFileError:
    return InputFileError("holds text that is not UTF-8", path=path, hint="save it as UTF-8")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _label_column(table: pyarrow.Table, wanted: str | None, root: Path) -> str:
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputFileError(f"has two columns named {twice!r}", path=root)
    if wanted is None:
        return names[-1]
    if wanted not in names:
        raise InputFileError(
            f"has no column {wanted!r}", path=root, field="data.label_column", hint=f"its columns: {', '.join(names)}"
        )
    return wanted


def _label_values(table: pyarrow.Table, name: str, root: Path) -> np.ndarray:
    from pyarrow import types

    column = table.column(name)
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_binary(column.type):
        column = _decoded(column, root)
    _require_no_missing_labels(column, name, root)
    values = column.to_numpy()
    if types.is_floating(column.type) and np.any(values != np.floor(values)):
        raise InputFileError(
            f"the label column {name!r} holds fractions",
            path=root,
            hint="name the column of classes in data.label_column",
        )
    if types.is_integer(column.type) or types.is_boolean(column.type):
        return values
    return values.astype(np.int64) if types.is_floating(column.type) else values.astype(str)


def _decoded(column: pyarrow.ChunkedArray, root: Path) -> pyarrow.ChunkedArray:
    import pyarrow

    try:
        return column.cast(pyarrow.string())
    except pyarrow.ArrowInvalid as error:
        raise _not_utf8(root) from error


def _require_no_missing_labels(column: pyarrow.ChunkedArray, name: str, root: Path) -> None:
    from pyarrow import compute, types

    missing = column.is_null().to_numpy()
    if types.is_string(column.type) or types.is_large_string(column.type):
        # An empty text is what a missing one looks like in CSV.
        missing |= compute.equal(compute.utf8_trim_whitespace(column), "").fill_null(True).to_numpy()
    if missing.any():
        rows = [f"row {row + 1}" for row in np.flatnonzero(missing).tolist()]
        raise InputFileError(
            f"{len(rows)} labels in column {name!r} are missing: {first_named(rows, len(rows))}",
            path=root,
            hint="row 1 is the first below the header",
        )


def _feature(table: pyarrow.Table, name: str, root: Path) -> np.ndarray:
    """One column as float32, with NaN where a value is missing."""
    import pyarrow
    from pyarrow import types

    column = table.column(name)
    numeric = types.is_integer(column.type) or types.is_floating(column.type) or types.is_decimal(column.type)
    if types.is_boolean(column.type):
        column = column.cast(pyarrow.uint8())
    elif not numeric:
        example = next((str(value) for value in column.to_pylist() if not _is_number(str(value))), "")
        what = f"holds {column.type} values such as {example!r}" if column.null_count < len(column) else "is empty"
        raise InputFileError(
            f"feature column {name!r} {what}, not numbers", path=root, hint="encode it as numbers or remove it"
        )
    return to_float32(column.cast(pyarrow.float64(), safe=False).to_numpy())
