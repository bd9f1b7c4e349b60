"""What an exported model says about itself: how to prepare its input, how to read its output, where it comes from.

One JSON object travels inside every exported file: in ONNX as the metadata property ``ml_trainer``, in TorchScript and
``.pt2`` files as the extra file ``ml_trainer.json``. Preprocessing is not in the graph: the input is float32, prepared
as ``model_spec["preprocessing"]`` says (resize, scale to 0..1, subtract the mean, divide by the standard deviation).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.exits import InputFileError

SCHEMA_VERSION = 1
ONNX_KEY = "ml_trainer"
EXTRA_FILE = "ml_trainer.json"
INPUT_NAME = "input"
OUTPUT_NAME = "logits"
PRECISIONS = ("fp32", "fp16", "int8")
_MAX_TEXT_BYTES = 64 * 2**20
_FLOAT32_MAX = 3.4e38


@dataclass(frozen=True)
class ModelMetadata:
    """The object in the file.

    ``model_spec`` is the checkpoint's: ``input_shape`` (C, H, W) or (F,), ``class_names`` in the order of the logits,
    ``preprocessing`` with ``kind``, ``resize`` ([H, W] or None), ``mean`` and ``std`` per channel or column.
    ``val_acc`` and ``test_acc`` are the checkpoint's accuracies in percent, in fp32, or None where not measured.
    ``git_commit`` is that of the folder the training ran in; ``opset`` is None but for ONNX.
    """

    model_spec: dict[str, Any]
    checkpoint_sha256: str
    precision: str = "fp32"
    opset: int | None = None
    git_commit: str | None = None
    val_acc: float | None = None
    test_acc: float | None = None
    input_name: str = INPUT_NAME
    output_name: str = OUTPUT_NAME
    schema_version: int = SCHEMA_VERSION

    @property
    def class_names(self) -> list[str]:
        return self.model_spec["class_names"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.model_spec["input_shape"])

    @property
    def preprocessing(self) -> dict[str, Any]:
        return self.model_spec["preprocessing"]

    def to_json(self) -> str:
        """The text that goes into the file: the same object gives the same bytes."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)


def parse_metadata(text: str | bytes | None, path: str | Path) -> ModelMetadata:
    """Check and read the JSON object.

    Args:
        text: as found in the file; for ONNX ``session.get_modelmeta().custom_metadata_map.get(ONNX_KEY)``.
        path: the model's file, to name in errors.
    Raises:
        InputFileError: there is none, or it is not as it should be.
    """
    if text is None:
        raise InputFileError(
            "carries no ml_trainer metadata, so its classes and preprocessing are unknown",
            path=path,
            hint="export it with export_model.py",
        )
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, "is not JSON") from error
    if not isinstance(fields, dict):
        raise _malformed(path, "is not an object")
    _require_known_version(fields.get("schema_version"), path)
    known = {name: fields[name] for name in ModelMetadata.__dataclass_fields__ if name in fields}
    _check_fields(known, path)
    return ModelMetadata(**known)


def read_archive_metadata(path: str | Path) -> ModelMetadata:
    """The metadata of a TorchScript or ``.pt2`` file, read from its zip archive without torch and without running it.

    Raises:
        InputFileError: missing, no such archive, or without metadata as it should be.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.split("/", 1)[-1] == f"extra/{EXTRA_FILE}" and entry.file_size <= _MAX_TEXT_BYTES:
                    return parse_metadata(archive.read(entry), path)
    except FileNotFoundError:
        raise InputFileError("does not exist", path=path) from None
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InputFileError(f"is no TorchScript or .pt2 file ({error})", path=path) from error
    return parse_metadata(None, path)


def _require_known_version(version: object, path: str | Path) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _malformed(path, "has no schema_version")
    if version > SCHEMA_VERSION:
        raise InputFileError(f"has metadata of schema version {version}, newer than {SCHEMA_VERSION}", path=path)


def _check_fields(fields: Mapping[str, Any], path: str | Path) -> None:
    if not isinstance(fields.get("model_spec"), dict):
        raise _malformed(path, "has no model_spec")
    _check_model_spec(fields["model_spec"], path)
    checks = {
        "checkpoint_sha256": lambda value: isinstance(value, str),
        "precision": lambda value: value in PRECISIONS,
        "opset": lambda value: value is None or _is_count(value),
        "git_commit": lambda value: value is None or isinstance(value, str),
        "val_acc": lambda value: value is None or _is_number(value),
        "test_acc": lambda value: value is None or _is_number(value),
        "input_name": lambda value: isinstance(value, str),
        "output_name": lambda value: isinstance(value, str),
    }
    for name, holds in checks.items():
        if name not in fields or not holds(fields[name]):
            raise _malformed(path, f"has no usable {name}")


def _check_model_spec(spec: Mapping[str, Any], path: str | Path) -> None:
    shape, names, preprocessing = (spec.get(name) for name in ("input_shape", "class_names", "preprocessing"))
    if not (isinstance(shape, list) and len(shape) in (1, 3) and all(map(_is_count, shape))):
        raise _malformed(path, "has no usable input_shape")
    if not (isinstance(names, list) and len(names) >= 2 and all(isinstance(name, str) for name in names)):
        raise _malformed(path, "has no usable class_names")
    if not isinstance(preprocessing, dict):
        raise _malformed(path, "has no preprocessing")
    if not isinstance(preprocessing.get("kind"), str):
        raise _malformed(path, "has no usable preprocessing.kind")
    resize = preprocessing.get("resize")
    if resize is not None and not (isinstance(resize, list) and len(resize) == 2 and all(map(_is_count, resize))):
        raise _malformed(path, "has no usable preprocessing.resize")
    for name in ("mean", "std"):
        values = preprocessing.get(name)
        if not (isinstance(values, list) and len(values) == shape[0] and all(map(_is_number, values))):
            raise _malformed(path, f"has no usable preprocessing.{name}")
    if min(preprocessing["std"]) <= 0:
        raise _malformed(path, "has a preprocessing.std that is not above 0")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    # The bounds are those of float32; they keep out NaN as well.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _FLOAT32_MAX


def _malformed(path: str | Path, what: str) -> InputFileError:
    return InputFileError(f"its ml_trainer metadata {what}", path=path, hint="export the model again")
