"""The files of one export, written but not yet verified."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.exits import CheckFailedError, UsageError
from common.export.formats import FORMATS
from common.export.onnx_format import onnx_model, serialized
from common.export.quantization import plan_int8, to_fp16, to_int8
from common.export.source import ExportSource
from common.export.torch_formats import HalfPrecision
from common.export.workspace import write_unfinished
from common.model_metadata import ModelMetadata

# A description of the samples, and the prepared batches.
Calibration = tuple[str, list[npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class Candidate:
    """An unfinished file, and what must be true of it.

    Attributes:
        format: its name in ``FORMATS``.
        path: in the workspace.
        metadata: what it must carry.
        fp32: the same model unquantised, in the workspace too, to compare size and speed with; None for fp32.
        quantization: how it was quantised, for the report; None for fp32.
    """

    format: str
    path: Path
    metadata: ModelMetadata
    fp32: Path | None = None
    quantization: dict[str, Any] | None = None


@dataclass(frozen=True)
class Quantize:
    """``precision`` fp32, fp16 or int8; for int8 the method (see ``plan_int8``) and where calibration data comes from,
    which is asked for only by the static method."""

    precision: str = "fp32"
    method: str = "auto"
    reduce_range: bool | None = None
    calibration: Callable[[], Calibration] | None = None


def check_combination(formats: tuple[str, ...], precision: str) -> None:
    """Raises UsageError where a format has no such precision."""
    others = [name for name in formats if name != "onnx"]
    if precision == "int8" and others:
        raise UsageError(
            f"int8 is written as ONNX only, not as {' or '.join(others)}",
            field="--quantize",
            hint="use --format onnx, or --quantize fp16",
        )


def build(source: ExportSource, name: str, opset: int, quantize: Quantize, folder: Path) -> Candidate:
    """Write the model in the format ``name`` into ``folder``.

    Raises:
        CheckFailedError: the model cannot be written like that; says why and in which layer.
        UsageError, EnvironmentLackError: see the writers.
    """
    entry = FORMATS[name]
    path = folder / f"model{entry.suffix}"
    metadata = replace(source.metadata, opset=opset if name == "onnx" else None)
    if quantize.precision == "fp32":
        write_unfinished(path, entry.write(source, source.model, metadata))
        return Candidate(name, path, metadata)
    fp32 = folder / f"fp32{entry.suffix}"
    quantised = replace(metadata, precision=quantize.precision)
    if name == "onnx":
        details = _build_quantised_onnx(source, metadata, quantised, quantize, fp32, path)
    else:
        write_unfinished(fp32, entry.write(source, source.model, metadata))
        half = HalfPrecision(copy.deepcopy(source.model))
        write_unfinished(path, entry.write(source, half, quantised))
        details = {"precision": "fp16", "method": "weights and arithmetic in float16, input and logits float32"}
    return Candidate(name, path, quantised, fp32, details)


def _build_quantised_onnx(
    source: ExportSource, metadata: ModelMetadata, quantised: ModelMetadata, quantize: Quantize, fp32: Path, path: Path
) -> dict[str, Any]:
    assert metadata.opset is not None
    proto = onnx_model(source, source.model, metadata.opset)
    write_unfinished(fp32, serialized(proto, metadata))
    if quantize.precision == "fp16":
        result = to_fp16(proto)
        details = {"precision": "fp16", "method": "weights and arithmetic in float16, input and logits float32"}
    else:
        plan = plan_int8(proto, quantize.method, quantize.reduce_range)
        description, batches = None, []
        if plan.method == "static":
            assert quantize.calibration is not None
            description, batches = quantize.calibration()
        result = to_int8(proto, plan, batches)
        details = {
            "precision": "int8",
            "method": plan.method,
            "reduce_range": plan.reduce_range,
            "calibration": description,
        }
    written = next(entry.version for entry in result.opset_import if entry.domain in ("", "ai.onnx"))
    if written != metadata.opset:
        raise CheckFailedError(
            f"quantisation turned opset {metadata.opset} into {written}",
            path=source.path,
            field="--opset",
            hint=f"use --opset {written}",
        )
    write_unfinished(path, serialized(result, quantised))
    return details
