"""ONNX files: one self-contained file of exactly the opset asked for, with a free batch size."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import torch
from torch import nn

from common.exits import CheckFailedError, EnvironmentLackError, UsageError
from common.export.layers import LayerTrail, layer_of_operator, operator_in, spoken
from common.export.source import ExportSource
from common.export.torch_formats import EXAMPLE_BATCH, TRACE_ERRORS
from common.model_metadata import INPUT_NAME, ONNX_KEY, OUTPUT_NAME, ModelMetadata

if TYPE_CHECKING:
    import onnx

# Per-channel quantisation needs 13; the exporter used here knows operators up to 20. PyTorch's other exporter writes
# 18 when asked for less, and puts external files and local paths into what it writes (torch 2.13).
OPSETS = range(13, 21)
# Layer normalisation is one operator from 17 on, and every runtime of the last years reads it.
DEFAULT_OPSET = 17
# Protocol buffers end at 2 GiB; graph and names need some of it.
MAX_WEIGHT_BYTES = 2**31 - 2**24
_BATCH_AXIS = "batch"


def check_opset(opset: int) -> None:
    """Raises UsageError for an opset that cannot be written."""
    if opset not in OPSETS:
        raise UsageError(
            f"opset {opset} cannot be written", field="--opset", hint=f"choose {OPSETS[0]} to {OPSETS[-1]}"
        )


def onnx_model(source: ExportSource, model: nn.Module, opset: int) -> onnx.ModelProto:
    """The model as an ONNX graph from ``input`` to ``logits``, checked, with nothing in it of the machine it was
    written on.

    Raises:
        CheckFailedError: an operator has no counterpart in ONNX (its layer is named), or another opset came out than
            was asked for.
        UsageError: the weights do not fit into one ONNX file.
        EnvironmentLackError: the package onnx is not installed.
    """
    onnx = require_onnx()
    _require_room(model)
    proto = onnx.load_from_string(_traced(source, model, opset))
    written = {entry.domain: entry.version for entry in proto.opset_import}
    if written.get("") != opset:
        raise CheckFailedError(f"asked for opset {opset}, the exporter wrote {written.get('')}", path=source.path)
    proto.doc_string = proto.graph.doc_string = ""
    for node in proto.graph.node:
        node.doc_string = ""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailedError(f"came out as no valid ONNX model ({error})", path=source.path) from error
    return proto


def onnx_bytes(source: ExportSource, model: nn.Module, metadata: ModelMetadata) -> bytes:
    """The model as a file of the opset in ``metadata``; raises as ``onnx_model`` does."""
    assert metadata.opset is not None
    return serialized(onnx_model(source, model, metadata.opset), metadata)


def serialized(proto: onnx.ModelProto, metadata: ModelMetadata) -> bytes:
    """The file's bytes, with the metadata inside. The same graph and metadata give the same bytes."""
    del proto.metadata_props[:]
    entry = proto.metadata_props.add()
    entry.key, entry.value = ONNX_KEY, metadata.to_json()
    return proto.SerializeToString(deterministic=True)


def require_onnx():
    """The package onnx, imported; raises EnvironmentLackError where it is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise EnvironmentLackError(
            "the ONNX export needs the package onnx", hint="pip install -r requirements.txt"
        ) from error
    return onnx


def _require_room(model: nn.Module) -> None:
    num_bytes = sum(value.nbytes for value in model.state_dict().values())
    if num_bytes > MAX_WEIGHT_BYTES:
        raise UsageError(
            f"the weights take {num_bytes / 1e9:.1f} GB, and one ONNX file holds at most 2 GB",
            field="--format",
            hint="use --format pt2",
        )


def _traced(source: ExportSource, model: nn.Module, opset: int) -> bytes:
    buffer, trail, example = io.BytesIO(), LayerTrail(), source.example(EXAMPLE_BATCH)
    axes = {INPUT_NAME: {0: _BATCH_AXIS}, OUTPUT_NAME: {0: _BATCH_AXIS}}
    try:
        with trail.watching(model), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, (example,), buffer, dynamo=False, opset_version=opset, dynamic_axes=axes,
                input_names=[INPUT_NAME], output_names=[OUTPUT_NAME],
            )  # fmt: skip
    except (*TRACE_ERRORS, torch.onnx.errors.OnnxExporterError) as error:
        raise _failure(source, model, opset, error, trail) from error
    return buffer.getvalue()


def _failure(
    source: ExportSource, model: nn.Module, opset: int, error: Exception, trail: LayerTrail
) -> CheckFailedError:
    """The exporter's complaint with the layer it is about: where tracing stopped, or which uses the operator."""
    message = str(error).strip().split("\n")[0][:300] or type(error).__name__
    operator = operator_in(message)
    if trail.innermost is not None:
        what = f"tracing failed in {spoken(trail.innermost)}: {message}"
    elif operator is not None:
        layer = layer_of_operator(model, source.example(EXAMPLE_BATCH), operator)
        what = f"the operator {operator} in {spoken(layer)} has no counterpart in opset {opset}"
    else:
        what = message
    return CheckFailedError(
        f"cannot be written as ONNX: {what}",
        path=source.path,
        hint="try a higher --opset, --format pt2, or replace that layer",
    )
