"""Smaller numbers in ONNX models: int8 by the method that suits the model, and fp16.

Measured with ONNX Runtime 1.31 at batch 1 on one core with VNNI (benchmarks/quantization.py): static int8 makes a
ResNet-18 3.5 times as fast as fp32 and a small convolutional network 1.8 times, but a transformer slower; dynamic int8
of the linear layers makes a small transformer 1.3 times and a perceptron 1.4 times as fast, and leaves convolutions as
they are (dynamic convolutions are three times slower). fp16 gains no time on such a CPU.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from common.environment import cpu_description
from common.exits import CheckFailedError, EnvironmentLackError
from common.inference.onnx_engine import runtime_errors
from common.model_metadata import INPUT_NAME

if TYPE_CHECKING:
    import onnx

# What multiplies by weights. Attention multiplies activations with each other, which stays in fp32.
_LINEAR = ("Gemm", "MatMul")
_WEIGHTED = ("Conv", *_LINEAR)
_FAST_INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}


@dataclass(frozen=True)
class Int8Plan:
    """How a model becomes int8: ``static`` (scales of activations fixed by calibration) or ``dynamic`` (taken from
    each batch); ``reduce_range`` keeps weights to 7 bits for CPUs whose 8-bit sums overflow 16 bits."""

    method: str
    reduce_range: bool


def plan_int8(proto: onnx.ModelProto, method: str, reduce_range: bool | None) -> Int8Plan:
    """Static for convolutional networks, dynamic for networks of linear layers (tables, transformers), unless
    ``method`` says which; full range on CPUs with 8-bit dot products (VNNI and the like), unless ``reduce_range``
    says it."""
    if method == "auto":
        method = "static" if _is_convolutional(proto) else "dynamic"
    if reduce_range is None:
        reduce_range = not cpu_has_fast_int8()
    return Int8Plan(method, reduce_range)


def cpu_has_fast_int8() -> bool:
    """Whether this CPU multiplies 8-bit numbers into 32-bit sums, without the overflow of the older instruction."""
    return bool(_FAST_INT8_FLAGS & set(cpu_description()["flags"]))


def to_int8(
    proto: onnx.ModelProto, plan: Int8Plan, calibration: Iterable[npt.NDArray[np.float32]] = ()
) -> onnx.ModelProto:
    """The model in int8; inputs and outputs stay float32. The same arguments give the same bytes.

    Static: quantise-dequantise pairs, unsigned activations (min to max over the calibration data), signed weights per
    channel; the last layer stays in fp32, which costs next to nothing and keeps the logits unclipped. Dynamic: signed
    weights per channel of the linear layers.

    Args:
        calibration: batches of prepared inputs, float32 (B, *input_shape); for ``static`` only.
    Raises:
        CheckFailedError: the model has nothing that can be quantised, or ONNX Runtime cannot quantise it.
        EnvironmentLackError: ONNX Runtime is not installed.
    """
    if not _weighted_nodes(proto):
        raise CheckFailedError("has no convolution and no linear layer that could be quantised", field="--quantize")
    quantize = _quantization_package()
    with tempfile.TemporaryDirectory() as folder, _quiet_logging():
        result = Path(folder) / "int8.onnx"
        try:
            if plan.method == "static":
                _quantize_static(quantize, proto, result, plan, calibration)
            else:
                _quantize_dynamic(quantize, proto, result, plan)
        except (*runtime_errors(), KeyError, IndexError, AttributeError, TypeError, AssertionError) as error:
            raise CheckFailedError(f"ONNX Runtime cannot quantise it ({error})", field="--quantize") from error
        return _loaded(result)


def to_fp16(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model computing in float16 between float32 inputs and outputs.

    Raises:
        EnvironmentLackError: ONNX Runtime is not installed.
    """
    _quantization_package()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _quiet_logging():
        return convert_float_to_float16(copy.deepcopy(proto), keep_io_types=True)


def _quantize_static(
    quantize: Any,
    proto: onnx.ModelProto,
    result: Path,
    plan: Int8Plan,
    calibration: Iterable[npt.NDArray[np.float32]],
) -> None:
    quantize.quantize_static(
        proto,
        result,
        _CalibrationReader(calibration),
        quant_format=quantize.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=plan.reduce_range,
        activation_type=quantize.QuantType.QUInt8,
        weight_type=quantize.QuantType.QInt8,
        nodes_to_exclude=[_weighted_nodes(proto)[-1].name],
    )


def _quantize_dynamic(quantize: Any, proto: onnx.ModelProto, result: Path, plan: Int8Plan) -> None:
    quantize.quantize_dynamic(
        proto,
        result,
        op_types_to_quantize=list(_LINEAR),
        per_channel=True,
        reduce_range=plan.reduce_range,
        weight_type=quantize.QuantType.QInt8,
    )


class _CalibrationReader:
    """What ``quantize_static`` draws batches from; it asks for no base class, only for ``get_next``."""

    def __init__(self, batches: Iterable[npt.NDArray[np.float32]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}


def _is_convolutional(proto: onnx.ModelProto) -> bool:
    kinds = [node.op_type for node in _weighted_nodes(proto)]
    return 2 * kinds.count("Conv") >= len(kinds) > 0


def _weighted_nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes that multiply by weights, in the order they are computed in."""
    constants = {value.name for value in proto.graph.initializer}
    return [node for node in proto.graph.node if node.op_type in _WEIGHTED and constants & set(node.input[1:2])]


def _loaded(path: Path) -> onnx.ModelProto:
    import onnx

    return onnx.load(path)


def _quantization_package() -> Any:
    try:
        from onnxruntime import quantization
    except ImportError as error:
        raise EnvironmentLackError(
            "quantisation needs the packages onnx and onnxruntime", hint="pip install -r requirements.txt"
        ) from error
    return quantization


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Advice to run a pre-processing that PyTorch's exporter has done already goes to the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
