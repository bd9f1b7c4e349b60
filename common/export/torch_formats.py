"""TorchScript and ``torch.export`` files. Neither carries the paths of the machine that wrote it."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from common.exits import CheckFailedError
from common.export.layers import LayerTrail, spoken
from common.export.source import ExportSource
from common.model_metadata import EXTRA_FILE, ModelMetadata

# What tracing and exporting raise on models that they cannot follow.
TRACE_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError, IndexError, KeyError)
# Two samples: with one, a model that treats a batch of one apart would be recorded as doing so always.
EXAMPLE_BATCH = 2
# The archive's own date for files without one, so that the same model gives the same bytes.
_NO_DATE = (1980, 1, 1, 0, 0, 0)


class HalfPrecision(nn.Module):
    """A model that computes in float16 between a float32 input and float32 logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.half()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs.half()).float()


def torchscript_bytes(source: ExportSource, model: nn.Module, metadata: ModelMetadata) -> bytes:
    """The model traced and frozen: weights are constants, batch norm is folded into what precedes it.

    Raises:
        CheckFailedError: the model cannot be traced; the layer is named.
    """
    with _named_failures(source, model, "TorchScript"), _quiet_deprecations():
        traced = torch.jit.trace(model, source.example(EXAMPLE_BATCH), check_trace=False)
        frozen = torch.jit.freeze(traced.eval())
        buffer = io.BytesIO()
        torch.jit.save(frozen, buffer, _extra_files={EXTRA_FILE: metadata.to_json()})
    return _without_source_locations(buffer.getvalue())


def pt2_bytes(source: ExportSource, model: nn.Module, metadata: ModelMetadata) -> bytes:
    """The model as a ``torch.export`` program with a free batch size.

    Raises:
        CheckFailedError: the model cannot be exported, or only for one batch size; the layer is named.
    """
    batch = torch.export.Dim("batch", min=1)
    with _named_failures(source, model, "torch.export program"), _quiet_deprecations():
        program = torch.export.export(
            model, (source.example(EXAMPLE_BATCH),), dynamic_shapes=({0: batch},), strict=False
        )
        _forget_source_locations(program.graph_module)
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={EXTRA_FILE: metadata.to_json()})
    return buffer.getvalue()


@contextmanager
def _named_failures(source: ExportSource, model: nn.Module, what: str) -> Iterator[None]:
    trail = LayerTrail()
    try:
        with trail.watching(model), torch.no_grad():
            yield
    except TRACE_ERRORS as error:
        reason = str(error).strip().split("\n")[0][:300]
        where = f" (in {spoken(trail.innermost)})" if trail.innermost is not None else ""
        raise CheckFailedError(
            f"cannot be exported as a {what}{where}: {reason}",
            path=source.path,
            hint="write that layer without branches on values, or choose another --format",
        ) from error


@contextmanager
def _quiet_deprecations() -> Iterator[None]:
    """TorchScript is deprecated, which the report says; what tracing warns of otherwise, the verification finds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _forget_source_locations(graph_module: torch.fx.GraphModule) -> None:
    for module in graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def _without_source_locations(archive_bytes: bytes) -> bytes:
    """A TorchScript archive without its debug files, which name source files of this machine and are optional."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive_bytes)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            if entry.filename.endswith(".debug_pkl"):
                continue
            copy = zipfile.ZipInfo(entry.filename, date_time=_NO_DATE)
            copy.compress_type = entry.compress_type
            new.writestr(copy, old.read(entry))
    return buffer.getvalue()
