"""int8 and fp16 graphs: the right method for the model, what is in the graph, calibration by a seed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from common.exits import CheckFailedError, InputFileError, UsageError
from common.export import quantization
from common.export.building import check_combination
from common.export.evaluation_data import TrainingData, calibration_batches
from common.export.onnx_format import onnx_model
from common.export.quantization import Int8Plan, cpu_has_fast_int8, plan_int8, to_fp16, to_int8
from tests.exported_models import dataset, source_of

STATIC, DYNAMIC = Int8Plan("static", False), Int8Plan("dynamic", False)


def graph_of(source):
    return onnx_model(source, source.model, 17)


def calibration(source, count=128):
    return calibration_batches(source, TrainingData(source), None, count, 42)[1]


def values(proto, dtype):
    return {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer if each.data_type == dtype}


def kinds(proto):
    return {node.op_type for node in proto.graph.node}


@pytest.mark.parametrize(
    ("architecture", "data", "method"),
    [("simple_cnn", "digits", "static"), ("simple_mlp", "wine", "dynamic"), ("small_transformer", "digits", "dynamic")],
)
def test_method_suits_the_model(tmp_path, architecture, data, method):
    proto = graph_of(source_of(tmp_path, architecture, data))
    assert plan_int8(proto, "auto", None).method == method
    assert plan_int8(proto, "static", None).method == "static"
    assert plan_int8(proto, "dynamic", None).method == "dynamic"


@pytest.mark.parametrize(
    ("flags", "fast"), [(["avx2"], False), (["avx2", "avx512_vnni"], True), (["avx_vnni"], True), (["asimddp"], True)]
)
def test_range_is_reduced_where_the_cpu_would_overflow(tmp_path, monkeypatch, flags, fast):
    monkeypatch.setattr(quantization, "cpu_description", lambda: {"flags": flags})
    assert cpu_has_fast_int8() is fast
    proto = graph_of(source_of(tmp_path))
    assert plan_int8(proto, "auto", None).reduce_range is not fast
    assert plan_int8(proto, "auto", True).reduce_range is True
    assert plan_int8(proto, "auto", False).reduce_range is False


def test_static_graph(tmp_path):
    source = source_of(tmp_path)
    proto = to_int8(graph_of(source), STATIC, calibration(source))
    weights = [value for value in values(proto, onnx.TensorProto.INT8).values() if value.ndim == 4]
    assert len(weights) == 2 and all(np.abs(value.astype(int)).max() == 127 for value in weights)
    scales = {name: value for name, value in values(proto, onnx.TensorProto.FLOAT).items() if "scale" in name}
    assert sorted({value.shape for value in scales.values() if value.ndim}) == [(16,), (32,)]  # one per channel
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds(proto)
    zero_points = values(proto, onnx.TensorProto.UINT8)
    assert zero_points and all("zero_point" in name for name in zero_points)  # activations are unsigned
    head = next(node for node in proto.graph.node if node.op_type == "Gemm")
    assert head.input[1] in values(proto, onnx.TensorProto.FLOAT)  # the last layer stays as it was


def test_reduced_range_keeps_weights_to_seven_bits(tmp_path):
    source = source_of(tmp_path)
    proto = to_int8(graph_of(source), Int8Plan("static", True), calibration(source))
    weights = [value for value in values(proto, onnx.TensorProto.INT8).values() if value.ndim == 4]
    assert all(np.abs(value.astype(int)).max() <= 64 for value in weights)


def test_dynamic_graph(tmp_path):
    proto = to_int8(graph_of(source_of(tmp_path, "small_transformer")), DYNAMIC)
    found = kinds(proto)
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= found and "ConvInteger" not in found


@pytest.mark.parametrize("plan", [STATIC, DYNAMIC])
def test_same_bytes_again(tmp_path, plan):
    source = source_of(tmp_path)
    first, second = (to_int8(graph_of(source), plan, calibration(source)).SerializeToString() for _ in range(2))
    assert first == second


def test_fp16_keeps_float32_outside(tmp_path):
    proto = graph_of(source_of(tmp_path))
    before = proto.SerializeToString()
    half = to_fp16(proto)
    assert proto.SerializeToString() == before
    assert values(half, onnx.TensorProto.FLOAT16) and not values(half, onnx.TensorProto.FLOAT)
    for value in (*half.graph.input, *half.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_nothing_to_quantise(tmp_path):
    proto = graph_of(source_of(tmp_path))
    del proto.graph.node[:]
    with pytest.raises(CheckFailedError, match="no convolution"):
        to_int8(proto, STATIC)


def test_calibration_samples_come_from_training_by_seed(tmp_path):
    source = source_of(tmp_path)
    data = TrainingData(source)
    description, batches = calibration_batches(source, data, None, 200, 42)
    assert description == "200 of 1257 samples of digits, train split (seed 42)"
    drawn = np.concatenate(batches)
    assert drawn.shape == (200, 1, 8, 8) and drawn.dtype == np.float32
    training = dataset("digits").normalizer()(dataset("digits").splits["train"].inputs).numpy()
    known = {sample.tobytes() for sample in training}
    assert all(sample.tobytes() in known for sample in drawn)
    assert np.array_equal(drawn, np.concatenate(calibration_batches(source, data, None, 200, 42)[1]))
    assert not np.array_equal(drawn, np.concatenate(calibration_batches(source, data, None, 200, 43)[1]))


def test_calibration_needs_data(tmp_path):
    source = source_of(tmp_path)
    data = TrainingData(source)
    data.dataset = None
    with pytest.raises(UsageError, match="--calibration-data"):
        calibration_batches(source, data, None, 200, 42)
    with pytest.raises(InputFileError, match="missing"):
        calibration_batches(source, data, tmp_path / "missing", 200, 42)


def test_int8_is_for_onnx_only():
    with pytest.raises(UsageError, match="torchscript"):
        check_combination(("onnx", "torchscript"), "int8")
    check_combination(("onnx",), "int8")
    check_combination(("onnx", "torchscript", "pt2"), "fp16")
