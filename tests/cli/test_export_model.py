"""``export_model.py``: the documented commands, what it refuses, and that nothing unverified ever appears."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import export_model
from common.exits import InputFileError
from common.export import building, formats
from common.export.pipeline import ExportRequest
from common.inference.engines import open_model
from tests import checkpoint_samples, training_runs
from tests.exported_models import HERE, checkpoint_file, dataset


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return checkpoint_file(tmp_path)


def run(*arguments):
    """Run in this process, with the shortest timing there is."""
    return export_model.main([str(argument) for argument in ("--speed-seconds", 0, *arguments)])


def refused(capsys, code, *arguments):
    """Run, expect the exit code, and return the one line on standard error that is an error."""
    assert run("--quiet", *arguments) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    [line] = [line for line in error.splitlines() if "error:" in line]
    return line


def left_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def swapped(source, model, metadata):
    """The ONNX file with the rows of two classes exchanged."""
    proto = onnx.load_from_string(formats.onnx_bytes(source, model, metadata))
    for initializer in proto.graph.initializer:
        if initializer.name.startswith("head."):
            value = numpy_helper.to_array(initializer).copy()
            value[[0, 1]] = value[[1, 0]]
            initializer.CopyFrom(numpy_helper.from_array(value, initializer.name))
    return proto.SerializeToString()


def test_documented_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    training_runs.train(
        "results/production", "--mode", "production", data__source="digits", model__architecture="simple_cnn",
        model__hidden_dims=None,
    )  # fmt: skip
    best = "checkpoints/production/final_model_best.pt"
    assert run("--checkpoint", best, "--format", "onnx", "--output", "models/production_model.onnx") == 0
    assert run("--checkpoint", best, "--format", "torchscript", "--output", "models/production_model.pt") == 0
    quantised = "models/production_model_quantized.onnx"
    assert run("--checkpoint", best, "--format", "onnx", "--quantize", "int8", "--output", quantised) == 0
    said = capsys.readouterr()
    assert said.out.count("Exported: ") == 3 and "digits, test split" in said.out
    assert "Next: python test_inference.py --model models/production_model.onnx" in said.err
    assert left_in(tmp_path / "models") == sorted(
        ["deployment_guide.md"]
        + [
            f"production_model{name}{suffix}"
            for name in (".onnx", ".pt", "_quantized.onnx")
            for suffix in ("", ".json", ".md")
        ]
    )
    assert open_model(quantised, "cpu", 1).metadata.precision == "int8"


def test_several_formats_as_json(checkpoint, tmp_path, capsys):
    code = run("--checkpoint", checkpoint, "--format", "onnx", "torchscript", "pt2", "--output", "m/net", "--json")
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert code == 0
    assert [file["path"] for file in document["files"]] == ["m/net.onnx", "m/net.pt", "m/net.pt2"]
    assert [file["file"]["opset"] for file in document["files"]] == [17, None, None]
    assert all(file["verification"]["passed"] for file in document["files"])
    inputs = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    first, *others = [open_model(file["path"], "cpu", 1)(inputs) for file in document["files"]]
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-4)


def test_same_command_gives_same_bytes(checkpoint, tmp_path):
    for name in ("one", "two"):
        assert run("--checkpoint", checkpoint, "--format", "onnx", "pt2", "--output", f"{name}/m", "--quiet") == 0
        assert run("--checkpoint", checkpoint, "--quantize", "int8", "--output", f"{name}/q.onnx", "--quiet") == 0
    for file in ("m.onnx", "m.pt2", "q.onnx"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("opset", [13, 20])
def test_opset_is_the_one_asked_for(checkpoint, opset):
    assert run("--checkpoint", checkpoint, "--output", "m.onnx", "--opset", opset, "--quiet") == 0
    assert onnx.load("m.onnx").opset_import[0].version == opset
    assert run("--checkpoint", checkpoint, "--output", "q.onnx", "--opset", opset, "--quantize", "int8", "--quiet") == 0
    assert onnx.load("q.onnx").opset_import[0].version == opset


@pytest.mark.parametrize("form", ["onnx", "torchscript", "pt2"])
def test_fp16(checkpoint, form, capsys):
    assert run("--checkpoint", checkpoint, "--format", form, "--quantize", "fp16", "--output", "m/half", "--quiet") == 0
    said = capsys.readouterr().out
    assert "fp16" in said and "% of fp32" in said
    assert open_model("m/half", "cpu", 1).metadata.precision == "fp16"


def test_wrong_export_leaves_what_was_there(checkpoint, tmp_path, monkeypatch, capsys):
    models = tmp_path / "models"
    assert run("--checkpoint", checkpoint, "--output", "models/m.onnx", "--quiet") == 0
    before = {path.name: path.read_bytes() for path in models.iterdir()}
    monkeypatch.setitem(formats.FORMATS, "onnx", replace(formats.FORMATS["onnx"], write=swapped))
    error = refused(capsys, 1, "--checkpoint", checkpoint, "--output", "models/m.onnx")
    assert "does not answer as the checkpoint does" in error and "agrees on" in error
    assert {path.name: path.read_bytes() for path in models.iterdir()} == before


def test_one_wrong_format_stops_all(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(formats.FORMATS, "onnx", replace(formats.FORMATS["onnx"], write=swapped))
    refused(capsys, 1, "--checkpoint", checkpoint, "--format", "torchscript", "onnx", "--output", "models/m")
    assert left_in(tmp_path / "models") == []


def test_quantisation_that_costs_accuracy(checkpoint, tmp_path, monkeypatch, capsys):
    def ruined(proto, plan, batches):
        for initializer in proto.graph.initializer:
            if initializer.name == "head.weight":
                noise = np.random.default_rng(0).normal(size=(10, 128)).astype(np.float32)
                initializer.CopyFrom(numpy_helper.from_array(noise, initializer.name))
        return proto

    monkeypatch.setattr(building, "to_int8", ruined)
    command = ["--checkpoint", checkpoint, "--quantize", "int8", "--output", "models/q.onnx"]
    error = refused(capsys, 1, *command)
    assert "points of accuracy are lost, and 1 are allowed" in error and "--tolerance" in error
    assert left_in(tmp_path / "models") == []
    assert run(*command, "--tolerance", 100, "--quiet") == 0


def test_folders_of_images(checkpoint, tmp_path, capsys):
    for name in ("train", "test"):
        split = dataset("digits").splits[name]
        for index in range(0, split.num_samples, 8 if name == "train" else 3):
            folder = tmp_path / "data" / name / dataset("digits").class_names[int(split.labels[index])]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(split.inputs[index, 0].numpy()).save(folder / f"{index}.png")
    command = ["--checkpoint", checkpoint, "--quantize", "int8", "--output", "q.onnx", "--json"]
    assert run(*command, "--verify-data", "data/test", "--calibration-data", "data/train") == 0
    said = capsys.readouterr()
    [document] = json.loads(said.out)["files"]
    assert document["verification"]["data"] == "data/test" and document["verification"]["num_samples"] == 90
    assert document["quantization"]["calibration"] == "158 of 158 samples of data/train (seed 42)"
    assert run(*command, "--verify-data", "data/test", "--calibration-data", "data/test") == 0
    warnings = capsys.readouterr().err
    assert "on the same data" in warnings and "128 or more are better" in warnings


def test_no_test_data_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = checkpoint_file(tmp_path)
    monkeypatch.setattr("common.export.evaluation_data.load_data", _no_data)
    assert run("--checkpoint", path, "--output", "m.onnx") == 0
    said = capsys.readouterr()
    assert "warning: no test data" in said.err and "accuracy" not in said.out
    assert "512 seeded random inputs" in said.out
    assert open_model("m.onnx", "cpu", 1).metadata.test_acc is None
    assert "--calibration-data" in refused(capsys, 2, "--checkpoint", path, "--quantize", "int8", "--output", "q.onnx")


def _no_data(config, *, write_files):
    assert write_files is False
    raise InputFileError("does not exist", path="data", field="data.root")


def test_damaged_and_foreign_checkpoints(checkpoint, tmp_path, capsys):
    output = ["--output", "models/m.onnx"]
    assert "no such file" in refused(capsys, 3, "--checkpoint", "gone.pt", *output)
    text = tmp_path / "text.pt"
    text.write_text("not a checkpoint")
    refused(capsys, 3, "--checkpoint", text, *output)
    foreign = checkpoint_samples.save({"model_state_dict": {}}, tmp_path / "foreign.pt")
    assert "model_spec" in refused(capsys, 3, "--checkpoint", foreign, *output)
    undescribed = checkpoint_samples.save(
        checkpoint_samples.checkpoint(model_spec=checkpoint_samples.MODEL_SPEC), tmp_path / "undescribed.pt"
    )
    assert "class_names" in refused(capsys, 3, "--checkpoint", undescribed, *output)
    checkpoint_samples.flip(checkpoint, checkpoint.stat().st_size // 2)
    assert "damaged" in refused(capsys, 1, "--checkpoint", checkpoint, *output)
    assert left_in(tmp_path / "models") == []


def test_unsupported_operator(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = checkpoint_file(tmp_path, f"{HERE}:WithUnknownOperator")
    error = refused(capsys, 1, "--checkpoint", path, "--output", "m.onnx")
    assert "aten::special_erfcx in layer body.strange" in error
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--opset", 12], "13 to 20"),
        (["--opset", 21], "13 to 20"),
        (["--tolerance", -1], "--tolerance"),
        (["--tolerance", "nan"], "--tolerance"),
        (["--calibration-samples", 127], "128 or more"),
        (["--speed-seconds", -1], "--speed-seconds"),
        (["--format", "pt2", "--quantize", "int8"], "ONNX only"),
        (["--format", "onnx", "onnx"], "twice"),
    ],
)
def test_senseless_command_lines(checkpoint, capsys, arguments, message):
    assert message in refused(capsys, 2, "--checkpoint", checkpoint, "--output", "m.onnx", *arguments)


def test_output_that_must_not_be_written(checkpoint, tmp_path, capsys):
    before = checkpoint.read_bytes()
    link = tmp_path / "link.pt"
    link.symlink_to(checkpoint)
    for output in (checkpoint, link):
        assert "the checkpoint itself" in refused(
            capsys, 2, "--checkpoint", checkpoint, "--format", "torchscript", "--output", output
        )
    assert checkpoint.read_bytes() == before
    assert "is a folder" in refused(capsys, 2, "--checkpoint", checkpoint, "--output", tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    for output in (file / "m.onnx", "/proc/models/m.onnx"):
        assert "cannot be written" in refused(capsys, 4, "--checkpoint", checkpoint, "--output", output)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("place", ["verify", "load_data", "write"])
def test_stopped_in_the_middle(checkpoint, tmp_path, monkeypatch, capsys, number, code, place):
    def stop(*arguments, **options):
        os.kill(os.getpid(), number)
        time.sleep(60)  # the signal ends it
        raise AssertionError("the signal was ignored")

    if place == "verify":
        monkeypatch.setattr("common.export.pipeline.verify", stop)
    elif place == "load_data":
        monkeypatch.setattr("common.export.evaluation_data.load_data", stop)
    else:
        monkeypatch.setitem(formats.FORMATS, "onnx", replace(formats.FORMATS["onnx"], write=stop))
    assert "stopped by" in refused(capsys, code, "--checkpoint", checkpoint, "--output", "models/m.onnx")
    assert left_in(tmp_path / "models") == []


def test_full_disk(checkpoint, tmp_path, capsys):
    # A limit on file sizes fails as a full disk does: in the middle of writing.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        error = refused(capsys, 4, "--checkpoint", checkpoint, "--output", "models/m.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written" in error
    assert left_in(tmp_path / "models") == []


def test_error_as_json(checkpoint, capsys):
    assert run("--checkpoint", checkpoint, "--output", "m.onnx", "--opset", 99, "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["field"] == "--opset"


def test_command_line_and_library_agree():
    """The script repeats names and defaults, so that its help needs no import of torch."""
    args = export_model.make_parser().parse_args(["--checkpoint", "c.pt", "--output", "m.onnx"])
    assert export_model._request(args) == ExportRequest(Path("c.pt"), Path("m.onnx"), ("onnx",))
    assert tuple(formats.FORMATS) == export_model.FORMAT_NAMES
