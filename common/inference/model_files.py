"""Which kind of model a file holds, told by its content and without executing any of it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from common.checkpoint_container.formats import require_regular_file
from common.exits import InputFileError

FORMAT_NAMES = {"onnx": "ONNX", "torchscript": "TorchScript", "exported": "torch.export", "checkpoint": "checkpoint"}
_ZIP_MAGIC = b"PK\x03\x04"
# The first field of every ONNX file that exporters write is ir_version, a varint in field 1 of the protocol buffer.
_ONNX_BEGINNING = b"\x08"


def model_format(path: str | Path) -> str:
    """``onnx``, ``torchscript``, ``exported`` (``.pt2``) or ``checkpoint``.

    Raises:
        InputFileError: missing, empty, or none of these.
    """
    path = Path(path)
    require_regular_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(len(_ZIP_MAGIC))
        if head == _ZIP_MAGIC:
            return _archive_format(path)
    except OSError as error:
        raise InputFileError(f"cannot be read ({error.strerror})", path=path) from error
    if head.startswith(_ONNX_BEGINNING) or path.suffix.lower() == ".onnx":
        return "onnx"
    raise _unknown(path)


def _archive_format(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            # torch puts everything into one folder, whose name it takes from the file.
            records = {name.split("/", 1)[-1] for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputFileError(f"is a damaged archive ({error})", path=path, hint="export or copy it again") from error
    if "constants.pkl" in records:
        return "torchscript"
    if records & {"archive_format", "serialized_exported_program.json"}:
        return "exported"
    if "data.pkl" in records:
        return "checkpoint"
    raise _unknown(path)


def _unknown(path: Path) -> InputFileError:
    return InputFileError(
        "is neither an ONNX, TorchScript or .pt2 model nor a checkpoint",
        path=path,
        hint="give a file that export_model.py wrote, or a .pt file from a run's checkpoints/ folder",
    )
