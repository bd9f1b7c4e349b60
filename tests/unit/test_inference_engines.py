"""Models of every format give the same answers; files that are no models are named and not run."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from common.exits import CheckFailedError, EnvironmentLackError, InputFileError, RunFailedError, UsageError
from common.inference.engines import open_model
from common.inference.model_files import model_format
from common.model_metadata import EXTRA_FILE, ONNX_KEY
from tests import inference_samples as samples

WRITERS = {
    "onnx": samples.write_onnx,
    "torchscript": samples.write_torchscript,
    "exported": samples.write_exported,
    "checkpoint": samples.write_checkpoint,
}


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    """The format's name and a file of it, under a name that says nothing."""
    return request.param, WRITERS[request.param](tmp_path / "model.pt2")


def test_every_format_is_told_by_content_and_answers_as_the_model_does(written):
    kind, path = written
    assert model_format(path) == kind
    engine = open_model(path, "cpu", 1)
    with torch.inference_mode():
        expected = samples.trained_model()(samples.normalized()).numpy()
    inputs = samples.normalized().numpy()
    for batch in (1, 7):
        engine.try_out(inputs[:batch])
        np.testing.assert_allclose(engine(inputs[:batch]), expected[:batch], rtol=1e-4, atol=1e-5)
    assert engine.metadata.class_names == samples.CLASS_NAMES
    assert (engine.format, engine.device, engine.on_gpu, engine.notices) == (kind, "cpu", False, [])


def test_auto_means_the_cpu_where_there_is_no_gpu(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert open_model(samples.write_onnx(tmp_path / "m.onnx"), "auto", 1).device == "cpu"


@pytest.mark.parametrize("writer", [samples.write_onnx, samples.write_checkpoint])
def test_cuda_without_cuda_is_an_error_with_the_remedy(writer, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EnvironmentLackError, match=r"--device: .*CUDA.*; .*install.*--device cpu"):
        open_model(writer(tmp_path / "m"), "cuda", 1)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_other_devices_are_wrong_usage(device, tmp_path):
    with pytest.raises(UsageError, match="is no device; use auto, cpu, cuda or cuda:N"):
        open_model(samples.write_onnx(tmp_path / "m.onnx"), device, 1)


def test_threads_reach_the_runtime(tmp_path):
    engine = open_model(samples.write_onnx(tmp_path / "m.onnx"), "cpu", 2)
    options = engine.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert engine.num_threads == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"hello, world", "is neither an ONNX, TorchScript or .pt2 model nor a checkpoint"),
        (b"\x80\x04\x95\x00\x00.", "is neither an ONNX"),
        (b"PK\x03\x04 and no more", "is a damaged archive"),
        (b"\x08\x07 and no graph", "is no model that ONNX Runtime can load"),
    ],
)
def test_files_that_are_no_models_are_named(content, message, tmp_path):
    path = tmp_path / "model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputFileError, match=message) as caught:
        open_model(path, "cpu", 1)
    assert str(path) in str(caught.value)


def test_a_folder_and_an_archive_of_something_else_are_no_models(tmp_path):
    with pytest.raises(InputFileError, match="not a regular file"):
        open_model(tmp_path, "cpu", 1)
    np.savez(tmp_path / "arrays.npz", x=np.zeros(3))
    with pytest.raises(InputFileError, match="is neither an ONNX"):
        open_model(tmp_path / "arrays.npz", "cpu", 1)


@pytest.mark.parametrize("writer", [samples.write_torchscript, samples.write_exported])
def test_damaged_programs_are_named(writer, tmp_path):
    path = writer(tmp_path / "model.pt2")
    records = {}
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            broken = name.endswith((".py", "model.json"))
            archive.writestr(name, b"{ not a program" if broken else content)
    with pytest.raises(InputFileError, match=r"cannot be loaded as a (TorchScript|torch.export) model"):
        open_model(path, "cpu", 1)


def test_a_checkpoint_that_asks_for_code_is_not_loaded(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "hacked"),)

    torch.save({"model_state_dict": {}, "model_spec": Hostile()}, tmp_path / "model.pt")
    with pytest.raises(CheckFailedError, match="asks for more than plain tensors"):
        open_model(tmp_path / "model.pt", "cpu", 1)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("writer", [samples.write_onnx, samples.write_torchscript])
def test_a_model_without_metadata_is_refused_with_the_remedy(writer, tmp_path):
    with pytest.raises(InputFileError, match=r"carries no ml_trainer metadata.*export_model.py"):
        open_model(writer(tmp_path / "m", None), "cpu", 1)


def test_a_fixed_batch_size_is_told_before_the_model_runs(tmp_path):
    engine = open_model(samples.write_onnx(tmp_path / "m.onnx", batch_size=2), "cpu", 1)
    engine.try_out(samples.normalized().numpy()[:2])
    with pytest.raises(UsageError, match=r"--batch-size: .*takes batches of 2 only, not of 3"):
        engine.try_out(samples.normalized().numpy()[:3])


def test_a_program_that_does_not_take_the_input_is_an_input_error(tmp_path):
    spec = {**samples.MODEL_SPEC, "input_shape": [1, 5, 5]}
    path = samples.write_torchscript(tmp_path / "m.pt", replace(samples.METADATA, model_spec=spec))
    engine = open_model(path, "cpu", 1)
    with pytest.raises(InputFileError, match=r"cannot run inputs of shape \(2, 1, 5, 5\)"):
        engine.try_out(np.zeros((2, 1, 5, 5), dtype=np.float32))


def test_logits_that_are_not_one_per_class_are_an_input_error(tmp_path):
    spec = {**samples.MODEL_SPEC, "class_names": ["ant", "bee"]}
    path = samples.write_onnx(tmp_path / "m.onnx", replace(samples.METADATA, model_spec=spec))
    with pytest.raises(InputFileError, match=r"answers float32 \(1, 3\) where logits \(1, 2\) were expected"):
        open_model(path, "cpu", 1).try_out(samples.normalized().numpy()[:1])


def test_want_of_memory_is_a_failed_run_with_the_remedy(tmp_path):
    class Greedy(nn.Module):
        def forward(self, x):
            return torch.zeros(1000000000000000) + x.sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.script(Greedy())
        torch.jit.save(module, str(tmp_path / "m.pt"), _extra_files={EXTRA_FILE: samples.METADATA.to_json()})
    engine = open_model(tmp_path / "m.pt", "cpu", 1)
    with pytest.raises(RunFailedError, match=r"out of memory with a batch of 1 .*smaller --batch-size"):
        engine.try_out(samples.normalized().numpy()[:1])


def onnx_graph(path, *, input_type=TensorProto.FLOAT, output="logits"):
    """A minimal ONNX model: the input cast to float and passed on."""
    graph = helper.make_graph(
        [helper.make_node("Cast", ["input"], [output], to=TensorProto.FLOAT)],
        "graph",
        [helper.make_tensor_value_info("input", input_type, ["batch", 3])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.metadata_props.add(key=ONNX_KEY, value=samples.METADATA.to_json())
    onnx.save(model, path)
    return path


def test_an_onnx_model_with_another_interface_is_refused(tmp_path):
    with pytest.raises(InputFileError, match=r"takes \(input: tensor\(int64\)\), not one float32 input"):
        open_model(onnx_graph(tmp_path / "a.onnx", input_type=TensorProto.INT64), "cpu", 1)
    with pytest.raises(InputFileError, match="has no output logits, only scores"):
        open_model(onnx_graph(tmp_path / "b.onnx", output="scores"), "cpu", 1)


def test_metadata_that_is_not_as_it_should_be_is_refused(tmp_path):
    path = samples.write_onnx(tmp_path / "m.onnx")
    model = onnx.load(path)
    fields = json.loads(model.metadata_props[0].value)
    fields["model_spec"]["preprocessing"]["std"] = [0.0]
    model.metadata_props[0].value = json.dumps(fields)
    onnx.save(model, path)
    with pytest.raises(InputFileError, match=r"preprocessing.std"):
        open_model(path, "cpu", 1)
