"""Arrays by name: npz files and functions by import path."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.data import Dataset, SplitFractions, load_dataset
from common.exits import InputFileError, UsageError


def table(rows=40, columns=3, classes=2, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, columns)), np.arange(rows) % classes


def saved(tmp_path, **arrays):
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    return path


def test_parts_are_taken_as_they_are(tmp_path):
    x, y = table()
    path = saved(tmp_path, x_train=x, y_train=y, x_val=x[:10], y_val=y[:10], x_test=x[:6], y_test=y[:6])
    dataset = load_dataset("npz", root=path)
    assert dataset.kind == "tabular" and dataset.name == "set" and dataset.class_names == ["0", "1"]
    assert {name: split.num_samples for name, split in dataset.splits.items()} == {"train": 40, "val": 10, "test": 6}
    assert torch.equal(dataset.splits["train"].inputs, torch.from_numpy(x).float())
    assert dataset.splits["test"].sample_name(3) == "x_test[3]"
    assert np.allclose(dataset.mean, x.mean(axis=0)) and np.allclose(dataset.std, x.std(axis=0))


def test_x_and_y_are_split(tmp_path):
    x, y = table(rows=100)
    dataset = load_dataset("npz", root=saved(tmp_path, x=x, y=y), split=SplitFractions(val=0.2, test=0.1))
    assert [dataset.splits[name].num_samples for name in ("train", "val", "test")] == [70, 20, 10]


def test_missing_validation_part_is_taken_from_training(tmp_path):
    x, y = table(rows=100)
    path = saved(tmp_path, x_train=x, y_train=y, x_test=x[:6], y_test=y[:6])
    dataset = load_dataset("npz", root=path, split=SplitFractions(val=0.2, test=0.1))
    assert [dataset.splits[name].num_samples for name in ("train", "val", "test")] == [80, 20, 6]
    assert "20 of 100 training samples are taken for validation" in dataset.notices


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((20, 5, 6), (1, 5, 6)), ((20, 5, 6, 3), (3, 5, 6)), ((20, 3, 5, 6), (3, 5, 6)), ((20, 5, 6, 1), (1, 5, 6))],
)
def test_image_layouts(tmp_path, shape, expected):
    x = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
    dataset = load_dataset("npz", root=saved(tmp_path, x=x, y=np.arange(20) % 2))
    assert dataset.kind == "image" and dataset.input_shape == expected
    split = dataset.splits["train"]
    first = int(split.sample_name(0)[2:-1])
    planes = x[first][None] if x.ndim == 3 else x[first] if shape[1] == 3 else x[first].transpose(2, 0, 1)
    assert np.array_equal(split.inputs[0].numpy(), planes)


@pytest.mark.parametrize(
    ("pixels", "dtype", "expected"),
    [
        (np.uint8([0, 255]), torch.uint8, [0, 255]),
        (np.array([False, True]), torch.uint8, [0, 255]),
        (np.int64([0, 200]), torch.uint8, [0, 200]),
        (np.float64([0, 200]), torch.uint8, [0, 200]),
        (np.float64([0.25, 1.0]), torch.float32, [0.25, 1.0]),
        (np.uint16([0, 65535]), torch.float32, [0.0, 1.0]),
        (np.float32([-1.5, 2.0]), torch.float32, [-1.5, 2.0]),
    ],
)
def test_pixel_types(tmp_path, pixels, dtype, expected):
    x = np.tile(pixels, (20, 2, 1))
    dataset = load_dataset("npz", root=saved(tmp_path, x=x, y=np.arange(20) % 2))
    inputs = dataset.splits["train"].inputs
    assert inputs.dtype == dtype and inputs[0, 0, 0].tolist() == expected
    assert any("outside 0 to 1" in notice for notice in dataset.notices) == (expected[0] < 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_pixel_that_is_no_number_leaves_all_parts_on_one_scale(tmp_path, bad):
    x = np.random.default_rng(0).integers(0, 256, size=(40, 4, 4)).astype(np.float64)
    damaged = x.copy()
    damaged[3, 1, 1] = bad
    y = np.arange(40) % 2
    dataset = load_dataset("npz", root=saved(tmp_path, x_train=damaged, y_train=y, x_val=x, y_val=y))
    normalize = dataset.normalizer()
    train, val = (normalize(dataset.splits[name].inputs) for name in ("train", "val"))
    names = [dataset.splits["train"].sample_name(row) for row in range(len(train))]
    rows = [int(name[len("x_train[") : -1]) for name in names]
    finite = [number for number, row in enumerate(rows) if row != 3]
    assert torch.equal(train[finite], val[[rows[number] for number in finite]])
    assert [problem.kind for problem in dataset.problems if problem.severity == "error"] == ["non_finite"]


@pytest.mark.parametrize("labels", [np.array(["cat", "ant"] * 10), np.array([b"cat", b"ant"] * 10)])
def test_text_labels_are_sorted_and_numbered(tmp_path, labels):
    dataset = load_dataset("npz", root=saved(tmp_path, x=table(20)[0], y=labels))
    assert dataset.class_names == ["ant", "cat"]
    split = dataset.splits["train"]
    assert split.labels[0] == int(labels[int(split.sample_name(0)[2:-1])] in ("cat", b"cat"))


def test_class_names_are_taken(tmp_path):
    x, y = table(20)
    path = saved(tmp_path, x=x, y=y.astype(float).reshape(-1, 1), class_names=["no", "yes", "maybe"], extra=x)
    dataset = load_dataset("npz", root=path)
    assert dataset.class_names == ["no", "yes", "maybe"]
    assert "arrays not used: extra" in dataset.notices
    assert [problem.kind for problem in dataset.problems] == ["empty_class"] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [0, 1, -1, 5] + [0, 1] * 8}, r"y: 1 label is out of range 0 to 5 \(row 2: -1\)"),
        ({"y": [0, 1, 0.5, 1] + [0, 1] * 8}, r"y: 1 label is no whole number \(row 2: 0.5\)"),
        ({"y": [0, 1, np.nan, 1] + [0, 1] * 8}, r"no whole number \(row 2: nan\)"),
        ({"y": [0, 255] * 10}, "only 2 of the values 0 to 255 occur"),
        ({"y": [0, 2] * 10, "class_names": ["a", "b"]}, r"10 labels are out of range 0 to 1 \(row 1: 2, row 3: 2"),
        ({"y": ["a", "c"] * 10, "class_names": ["a", "b"]}, r"10 labels are not among the class names \(row 1: c"),
        ({"y": [0] * 20}, "only one class"),
        ({"y": [0, 1]}, "x has 20 rows, y has 2"),
        ({"y": np.zeros((20, 2))}, "not one label a row"),
        ({"y": np.zeros(20, dtype=complex)}, "not whole numbers or text"),
        ({"x": np.zeros((20, 3), dtype=complex)}, "not numbers"),
        ({"x": np.zeros(20)}, r"has shape \(20,\)"),
        ({"x": np.zeros((20, 2, 5, 5))}, "1 or 3 channels"),
        ({"x": np.zeros((0, 3)), "y": np.zeros(0)}, "without rows"),
        ({"class_names": ["a", "a"]}, "a name twice"),
        ({"x": None}, "has no array x"),
        ({"x": None, "y": None, "z": [1]}, r"has no array x \(it holds z\)"),
        ({"x_train": np.zeros((20, 3))}, "has no array y_train"),
        ({"x_train": [[1.0]], "y_train": [0], "x_val": [[1.0, 2.0]], "y_val": [0]}, "different shapes"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, change, message):
    x, y = table(20)
    arrays = {"x": x, "y": y} | change
    path = saved(tmp_path, **{name: np.asarray(array) for name, array in arrays.items() if array is not None})
    with pytest.raises(InputFileError, match=message):
        load_dataset("npz", root=path)


def test_missing_root_and_missing_file():
    with pytest.raises(InputFileError, match=r"data\.root: the source npz needs"):
        load_dataset("npz")
    with pytest.raises(InputFileError, match="does not exist"):
        load_dataset("npz", root="nowhere/set.npz")


def test_eight_bit_images_are_resized_and_others_refused(tmp_path):
    images = np.zeros((20, 4, 4), dtype=np.uint8)
    dataset = load_dataset("npz", root=saved(tmp_path, x=images, y=np.arange(20) % 2), image_size=(8, 6))
    assert dataset.input_shape == (1, 8, 6)
    with pytest.raises(InputFileError, match=r"data\.image_size: only images of 8 bits"):
        load_dataset("npz", root=saved(tmp_path, x=table(20)[0], y=np.arange(20) % 2), image_size=8)


PLUG_IN = """
import numpy as np
from common.data import load_dataset

def arrays():
    return {"x": np.arange(40.0).reshape(20, 2), "y": np.arange(20) % 2}

def arrays_at(root):
    return arrays() | {"class_names": [root.name, "other"]}

def dataset():
    return load_dataset("iris")

def fails():
    raise RuntimeError("no such table")

def number():
    return 3
"""


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    (tmp_path / "my_plugged_in_data.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(tmp_path)
    return "my_plugged_in_data"


def test_plugged_in_arrays_and_datasets(plug_in, tmp_path):
    dataset = load_dataset(f"{plug_in}:arrays")
    assert dataset.input_shape == (2,) and dataset.name == f"{plug_in}:arrays"
    assert load_dataset(f"{plug_in}:arrays_at", root="some/place").class_names == ["place", "other"]
    iris = load_dataset(f"{plug_in}:dataset")
    assert isinstance(iris, Dataset) and iris.fingerprint == load_dataset("iris").fingerprint


@pytest.mark.parametrize(
    ("name", "message"), [("fails", "failed with RuntimeError: no such table"), ("number", "returned a int")]
)
def test_plugged_in_faults_are_named(plug_in, name, message):
    with pytest.raises(UsageError, match=message):
        load_dataset(f"{plug_in}:{name}")
