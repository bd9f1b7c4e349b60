"""The data that scikit-learn ships, and the digits as files."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from common.data import SplitFractions, load_dataset
from common.data.bundled import from_digits_file, from_library, from_table_file, load_bundled
from common.exits import InputFileError

BUNDLED = {
    "digits": from_digits_file,
    "wine": partial(from_table_file, "wine_data.csv"),
    "breast_cancer": partial(from_table_file, "breast_cancer.csv"),
    "iris": partial(from_table_file, "iris.csv"),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_files_hold_what_scikit_learn_loads(name):
    features, labels, class_names = load_bundled(name, BUNDLED[name])
    expected_features, expected_labels, expected_names = from_library(name)
    assert np.array_equal(features, expected_features)
    assert np.array_equal(labels, expected_labels)
    assert class_names == expected_names


def test_library_is_asked_where_its_files_are_not_as_expected():
    def read(folder):
        raise ValueError("another layout")

    features, labels, _ = load_bundled("iris", read)
    assert features.shape == (150, 4) and labels.tolist() == [0] * 50 + [1] * 50 + [2] * 50


@pytest.mark.parametrize(
    ("name", "shape", "num_samples", "num_classes"),
    [
        ("digits", (1, 8, 8), 1797, 10),
        ("wine", (13,), 178, 3),
        ("breast_cancer", (30,), 569, 2),
        ("iris", (4,), 150, 3),
    ],
)
def test_bundled_sources(tmp_path, name, shape, num_samples, num_classes):
    dataset = load_dataset(name, root=tmp_path / "data")
    assert dataset.input_shape == shape and dataset.num_classes == num_classes
    assert dataset.name == name and dataset.problems == []
    assert sum(split.num_samples for split in dataset.splits.values()) == num_samples
    for split in dataset.splits.values():
        assert tuple(split.inputs.shape) == (split.num_samples, *shape)
        assert min(split.class_counts(num_classes)) > 0


def test_digits_pixels_are_the_sixteen_levels_on_the_scale_of_bytes(tmp_path):
    dataset = load_dataset("digits", root=tmp_path / "data")
    features, _, _ = from_library("digits")
    split = dataset.splits["val"]
    for index in (0, 100, 269):
        number = int(split.sample_name(index).split("/")[1].removesuffix(".png"))
        expected = np.round(features[number] * 255 / 16).reshape(8, 8)
        assert np.array_equal(split.inputs[index, 0].numpy(), expected)


def test_digits_are_written_once_and_read_back_the_same(tmp_path):
    root = tmp_path / "data"
    digits = load_dataset("digits", root=root)
    assert "written" in digits.notices[0] and "1257 + 270 + 270" in digits.notices[0]
    written = sorted(root.rglob("*.png"))
    assert len(written) == 1797
    times = [path.stat().st_mtime_ns for path in written]

    again = load_dataset("digits", root=root)
    assert again.notices == [] and [path.stat().st_mtime_ns for path in written] == times

    folder = load_dataset("image_folder", root=root)
    assert folder.fingerprint == digits.fingerprint
    assert (folder.mean, folder.std, folder.class_names) == (digits.mean, digits.std, digits.class_names)
    for name, split in digits.splits.items():
        assert torch.equal(folder.splits[name].inputs, split.inputs)
        assert torch.equal(folder.splits[name].labels, split.labels)
        assert folder.splits[name].file_names == [f"{name}/{file_name}" for file_name in split.file_names]


def test_nothing_is_left_beside_the_digits(tmp_path):
    load_dataset("digits", root=tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["digits.json", "test", "train", "val"]


def test_resized_digits_leave_files_of_the_original_size(tmp_path):
    dataset = load_dataset("digits", root=tmp_path / "data", image_size=16)
    assert dataset.input_shape == (1, 16, 16) and dataset.preprocessing()["resize"] == [16, 16]
    with Image.open(next((tmp_path / "data" / "train" / "0").iterdir())) as image:
        assert image.size == (8, 8) and image.mode == "L"
    folder = load_dataset("image_folder", root=tmp_path / "data", image_size=(16, 16))
    assert folder.fingerprint == dataset.fingerprint


def test_digits_are_not_written_where_something_else_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    dataset = load_dataset("digits", root=tmp_path)
    assert "something else" in dataset.notices[0]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_digits_of_another_split_are_left_as_they_are(tmp_path):
    root = tmp_path / "data"
    load_dataset("digits", root=root)
    dataset = load_dataset("digits", root=root, split=SplitFractions(val=0.3, test=0.0))
    assert "another split" in dataset.notices[0]
    assert set(dataset.splits) == {"train", "val"}
    assert json.loads((root / "digits.json").read_text())["split"]["val"] == 0.15


def test_digits_are_not_written_when_told_so(tmp_path):
    dataset = load_dataset("digits", root=tmp_path / "data", write_files=False)
    assert dataset.notices == [] and not (tmp_path / "data").exists()


def test_unwritable_place_is_a_notice(tmp_path):
    (tmp_path / "file").write_text("")
    dataset = load_dataset("digits", root=tmp_path / "file" / "data")
    assert "not written" in dataset.notices[0] and dataset.splits["train"].num_samples == 1257


def test_unknown_source_is_named_with_a_suggestion():
    with pytest.raises(InputFileError, match="unknown data source 'digit'; did you mean digits"):
        load_dataset("digit")
