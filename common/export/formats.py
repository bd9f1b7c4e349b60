"""The file formats by name. A new one is a writer and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from common.exits import UsageError
from common.export.onnx_format import onnx_bytes
from common.export.source import ExportSource
from common.export.torch_formats import pt2_bytes, torchscript_bytes
from common.model_metadata import ModelMetadata


@dataclass(frozen=True)
class Format:
    """``write`` gives the bytes of a file of ``suffix``, with the metadata inside."""

    title: str
    suffix: str
    write: Callable[[ExportSource, nn.Module, ModelMetadata], bytes]


FORMATS = {
    "onnx": Format("ONNX", ".onnx", onnx_bytes),
    "torchscript": Format("TorchScript", ".pt", torchscript_bytes),
    "pt2": Format("torch.export", ".pt2", pt2_bytes),
}


def output_paths(output: Path, formats: tuple[str, ...]) -> dict[str, Path]:
    """Where each format goes: for one format ``output`` as it is, for several the same name with each one's suffix.

    Raises:
        UsageError: a format is named twice.
    """
    if len(set(formats)) < len(formats):
        raise UsageError(f"names a format twice: {' '.join(formats)}", field="--format")
    if len(formats) == 1:
        return {formats[0]: output}
    known = {entry.suffix for entry in FORMATS.values()}
    stem = output.with_suffix("") if output.suffix.lower() in known else output
    return {name: stem.with_name(stem.name + FORMATS[name].suffix) for name in formats}
