"""Tables in CSV and Parquet files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from common.data import load_dataset
from common.exits import InputFileError

ROWS = [f"{i}.5,{i % 7},{'yes' if i % 3 else 'no'}" for i in range(40)]


def csv_file(tmp_path, rows=ROWS, header="height,count,class"):
    path = tmp_path / "table.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_csv_with_the_class_in_the_last_column(tmp_path):
    dataset = load_dataset("csv", root=csv_file(tmp_path))
    assert dataset.class_names == ["no", "yes"] and dataset.input_shape == (2,) and dataset.name == "table"
    split = dataset.splits["train"]
    row = int(split.sample_name(0).removeprefix("row ")) - 1
    assert split.inputs[0].tolist() == [row + 0.5, row % 7]
    assert split.labels[0] == int(row % 3 > 0)


def test_named_label_column_and_numeric_classes(tmp_path):
    rows = [f"{(1, 2, 5)[i % 3]},{i},{'true' if i % 2 else 'false'}" for i in range(40)]
    dataset = load_dataset("csv", root=csv_file(tmp_path, rows, "kind,a,b"), label_column="kind")
    assert dataset.class_names == ["1", "2", "5"] and dataset.input_shape == (2,)
    assert set(dataset.splits["train"].inputs[:, 1].tolist()) == {0.0, 1.0}


def test_parquet_gives_the_same_as_csv(tmp_path):
    from pyarrow import csv

    path = csv_file(tmp_path)
    table = csv.read_csv(path)
    table = table.set_column(2, "class", table.column("class").dictionary_encode())
    parquet.write_table(table, tmp_path / "table.parquet")
    a, b = load_dataset("csv", root=path), load_dataset("parquet", root=tmp_path / "table.parquet")
    assert a.fingerprint == b.fingerprint and a.class_names == b.class_names


def test_folder_of_parts(tmp_path):
    for part, start in (("train", 0), ("val", 10), ("test", 20)):
        csv_file(tmp_path, ROWS[start : start + 12]).rename(tmp_path / f"{part}.csv")
    dataset = load_dataset("csv", root=tmp_path)
    assert {name: split.num_samples for name, split in dataset.splits.items()} == {"train": 12, "val": 12, "test": 12}
    assert dataset.splits["val"].inputs[0].tolist() == [10.5, 3.0]


def test_missing_values_are_named_counted_and_left_out(tmp_path):
    rows = list(ROWS)
    rows[4], rows[9], rows[20] = ",1,yes", "3.0,inf,no", ",,no"
    dataset = load_dataset("csv", root=csv_file(tmp_path, rows))
    (problem,) = dataset.problems
    assert problem.kind == "non_finite" and problem.severity == "error" and problem.count == 3
    assert "3 rows of 40 left out for 4 values" in problem.message
    assert problem.examples == (
        "row 5 column 'height' (NaN)",
        "row 10 column 'count' (infinite)",
        "row 21 column 'height' (NaN)",
    )
    assert sum(split.num_samples for split in dataset.splits.values()) == 37
    assert all(np.isfinite(split.inputs.numpy()).all() for split in dataset.splits.values())
    with pytest.raises(InputFileError, match="row 5 column 'height'"):
        dataset.raise_on_errors()


def test_constant_column_is_not_blown_up(tmp_path):
    dataset = load_dataset("csv", root=csv_file(tmp_path, [f"0.1,{i},{'ab'[i % 2]}" for i in range(40)]))
    assert dataset.std[0] == 1.0 and dataset.mean[0] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("a,b,class", ["1,tall,x", "2,short,y"], "feature column 'b' holds string values such as 'tall'"),
        ("a,b,class", ["1,,x", "2,,y"], "feature column 'b' is empty"),
        ("a,class", ["1,0", "2,"] * 2, "2 labels in column 'class' are missing: row 2, row 4"),
        ("a,class", ["1,x", "2,"] * 2, "2 labels in column 'class' are missing: row 2, row 4"),
        ("a,class", ["1,0.5", "2,1"], "label column 'class' holds fractions"),
        ("a,a,class", ["1,2,x"], "two columns named 'a'"),
        ("1.0,2.0", ["1,2"], "has no header"),
        ("class", ["x", "y"], "no column but 'class'"),
        ("a,class", ["1,x,3"], "cannot be read as CSV"),
    ],
)
def test_faults_are_named(tmp_path, header, rows, message):
    with pytest.raises(InputFileError, match=message):
        load_dataset("csv", root=csv_file(tmp_path, rows, header))


def test_missing_label_column_lists_the_columns(tmp_path):
    with pytest.raises(
        InputFileError, match=r"data.label_column: has no column 'kind'; its columns: height, count, class"
    ):
        load_dataset("csv", root=csv_file(tmp_path), label_column="kind")


def test_parts_must_have_the_same_columns(tmp_path):
    csv_file(tmp_path).rename(tmp_path / "train.csv")
    csv_file(tmp_path, header="width,count,class").rename(tmp_path / "val.csv")
    with pytest.raises(InputFileError, match=r"val\.csv has other columns"):
        load_dataset("csv", root=tmp_path)


def test_text_is_no_parquet(tmp_path):
    path = csv_file(tmp_path).rename(tmp_path / "table.parquet")
    with pytest.raises(InputFileError, match="cannot be read as Parquet"):
        load_dataset("parquet", root=path)


@pytest.mark.parametrize("text", ["höhe,class\n1,x\n2,y\n", "a,class\n1,schön\n2,y\n", "a,b,class\n1,schön,x\n2,3,y\n"])
def test_text_in_another_encoding(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputFileError, match=r"not UTF-8; save it as UTF-8|feature column 'b' holds binary values"):
        load_dataset("csv", root=path)


def test_parquet_without_columns(tmp_path):
    parquet.write_table(pa.table({}), tmp_path / "t.parquet")
    with pytest.raises(InputFileError, match="has no columns"):
        load_dataset("parquet", root=tmp_path / "t.parquet")


def test_decimal_and_boolean_columns(tmp_path):
    table = pa.table(
        {
            "a": pa.array([1.25, 2.5] * 10).cast(pa.decimal128(5, 2)),
            "b": pa.array([True, False] * 10),
            "class": pa.array([True, False] * 10),
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    dataset = load_dataset("parquet", root=tmp_path / "t.parquet")
    assert dataset.class_names == ["False", "True"]
    assert {tuple(row) for row in dataset.splits["train"].inputs.tolist()} == {(1.25, 1.0), (2.5, 0.0)}
