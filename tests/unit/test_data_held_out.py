"""Labelled data for a model that exists already."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from common.data import load_dataset, load_test_set
from common.exits import InputFileError


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits") / "data"
    return root, load_dataset("digits", root=root)


def spec(dataset):
    return {
        "class_names": dataset.class_names,
        "input_shape": dataset.input_shape,
        "preprocessing": dataset.preprocessing(),
    }


@pytest.mark.parametrize("folder", ["test", "."])
def test_test_folder_of_the_digits(digits, folder):
    root, dataset = digits
    loaded = load_test_set(root / folder, **spec(dataset))
    assert set(loaded.splits) == {"test"}
    assert torch.equal(loaded.splits["test"].inputs, dataset.splits["test"].inputs)
    assert torch.equal(loaded.splits["test"].labels, dataset.splits["test"].labels)
    assert (loaded.mean, loaded.std, loaded.problems) == (dataset.mean, dataset.std, [])


def test_classes_are_matched_by_name_and_images_brought_to_the_models_form(tmp_path):
    for name, colour in (("zebra", "white"), ("ant", "black")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 7), colour).save(tmp_path / name / "a.png")
    preprocessing = {"kind": "image", "resize": [4, 4], "mean": [0.5], "std": [0.5]}
    loaded = load_test_set(
        tmp_path, class_names=["zebra", "cat", "ant"], input_shape=(1, 4, 4), preprocessing=preprocessing
    )
    split = loaded.splits["test"]
    assert split.inputs.shape == (2, 1, 4, 4)
    assert dict(zip(split.labels.tolist(), split.inputs[:, 0, 0, 0].tolist(), strict=True)) == {0: 255, 2: 0}
    assert [problem.examples for problem in loaded.problems] == [("cat",)]


def test_unknown_class_is_named(digits, tmp_path):
    _, dataset = digits
    (tmp_path / "eleven").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "eleven" / "a.png")
    with pytest.raises(InputFileError, match="classes that the model does not know: eleven; it knows 0, 1"):
        load_test_set(tmp_path, **spec(dataset))


def test_images_of_another_size_are_left_out_or_refused(digits, tmp_path):
    _, dataset = digits
    (tmp_path / "3").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "3" / "a.png")
    with pytest.raises(InputFileError, match="holds no samples that can be used"):
        load_test_set(tmp_path, **spec(dataset))
    Image.new("L", (8, 8)).save(tmp_path / "3" / "b.png")
    loaded = load_test_set(tmp_path, **spec(dataset))
    assert loaded.splits["test"].file_names == ["3/b.png"]
    assert loaded.problems[0].examples == ("3/a.png (is 9x9, not 8x8 pixels)",)


@pytest.mark.parametrize("has_training", [True, False])
def test_tables_and_arrays(tmp_path, has_training):
    path = tmp_path / "table.csv"
    path.write_text("a,class\n" + "\n".join(f"{i},{'xyz'[i % 3]}" for i in range(30)) + "\n")
    dataset = load_dataset("csv", root=path)
    path.write_text("a,class\n5,z\n7,x\n")
    split = load_test_set(path, **spec(dataset)).splits["test"]
    assert split.labels.tolist() == [2, 0] and split.inputs.tolist() == [[5.0], [7.0]]
    training = {"x_train": [[1.0]], "y_train": [0]} if has_training else {}
    np.savez(tmp_path / "a.npz", **training, x_test=[[2.0], [3.0]], y_test=[2, 1])
    split = load_test_set(tmp_path / "a.npz", **spec(dataset)).splits["test"]
    assert split.labels.tolist() == [2, 1] and split.inputs.tolist() == [[2.0], [3.0]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": [[1.0]], "y_train": [0]}, "has no test part, only train"),
        ({"x": [[1.0, 2.0]], "y": [0]}, r"has inputs of shape \(2,\), the model takes \(1,\)"),
        ({"x": [[1.0]], "y": [3]}, "1 label is out of range 0 to 2"),
        ({"x": [[np.nan]], "y": [1]}, "holds no samples that can be used"),
    ],
)
def test_faults_of_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    preprocessing = {"kind": "tabular", "resize": None, "mean": [0.0], "std": [1.0]}
    with pytest.raises(InputFileError, match=message):
        load_test_set(tmp_path / "a.npz", class_names="abc", input_shape=(1,), preprocessing=preprocessing)


def test_images_for_a_table_model(digits):
    root, _ = digits
    preprocessing = {"kind": "tabular", "resize": None, "mean": [0.0], "std": [1.0]}
    with pytest.raises(InputFileError, match="holds images, but the model takes 4 numbers"):
        load_test_set(root, class_names="0123456789", input_shape=(4,), preprocessing=preprocessing)
