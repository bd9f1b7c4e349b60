"""What travels inside an exported model is checked before it is believed."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict

import pytest

from common.exits import InputFileError
from common.model_metadata import EXTRA_FILE, ModelMetadata, parse_metadata, read_archive_metadata

SPEC = {
    "architecture": "simple_cnn",
    "input_shape": [1, 8, 8],
    "class_names": ["cat", "dog"],
    "preprocessing": {"kind": "image", "resize": None, "mean": [0.3], "std": [0.4]},
}
METADATA = ModelMetadata(SPEC, "ab" * 32, "int8", 17, "cd" * 20, 95.5, None)


def changed(**changes):
    return json.dumps({**asdict(METADATA), **changes})


def with_spec(**changes):
    return changed(model_spec={**SPEC, **changes})


def with_preprocessing(**changes):
    return with_spec(preprocessing={**SPEC["preprocessing"], **changes})


def test_round_trip():
    found = parse_metadata(METADATA.to_json(), "m.onnx")
    assert found == METADATA
    assert (found.class_names, found.input_shape) == (["cat", "dog"], (1, 8, 8))
    assert (found.input_name, found.output_name) == ("input", "logits")
    assert parse_metadata(changed(unknown=1), "m.onnx") == METADATA


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no ml_trainer metadata"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ("[]", "not an object"),
        (changed(schema_version=2), "newer than 1"),
        (changed(schema_version=True), "schema_version"),
        (changed(model_spec=None), "model_spec"),
        (changed(checkpoint_sha256=1), "checkpoint_sha256"),
        (changed(precision="int4"), "precision"),
        (changed(opset="17"), "opset"),
        (changed(opset=0), "opset"),
        (changed(val_acc=float("nan")), "val_acc"),
        (changed(test_acc="98%"), "test_acc"),
        (changed(git_commit=1), "git_commit"),
        (changed(input_name=None), "input_name"),
        (with_spec(input_shape=[8, 8]), "input_shape"),
        (with_spec(input_shape=[1, 0, 8]), "input_shape"),
        (with_spec(input_shape=[1.0, 8, 8]), "input_shape"),
        (with_spec(class_names=["cat"]), "class_names"),
        (with_spec(class_names=["cat", 2]), "class_names"),
        (with_spec(preprocessing=[]), "preprocessing"),
        (with_preprocessing(kind=None), "kind"),
        (with_preprocessing(resize=[8]), "resize"),
        (with_preprocessing(mean=[0.3, 0.3]), "mean"),
        (with_preprocessing(mean=[float("inf")]), "mean"),
        (with_preprocessing(std=[0.0]), "std"),
        (with_preprocessing(std=[10**400]), "std"),
    ],
)
def test_anything_else_is_refused(text, message):
    with pytest.raises(InputFileError, match=message) as error:
        parse_metadata(text, "m.onnx")
    assert str(error.value).startswith("m.onnx: ")


def test_archive(tmp_path):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"")
        archive.writestr(f"model/extra/{EXTRA_FILE}", METADATA.to_json())
    assert read_archive_metadata(path) == METADATA


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
def test_no_archive(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"no TorchScript or \.pt2 file"):
        read_archive_metadata(path)
    with pytest.raises(InputFileError, match="does not exist"):
        read_archive_metadata(tmp_path / "missing.pt")


def test_archive_without_metadata(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"")
    with pytest.raises(InputFileError, match="no ml_trainer metadata"):
        read_archive_metadata(path)
