"""The deployment guide's programs run as they stand and answer as the model does; reports say what was found."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from common.console import Console
from common.data.image_files import decode_image
from common.export.guide import NAME, write_guide
from common.export.guide_code import inference_program
from common.export.pipeline import ExportRequest, export
from common.export.report import report_paths, write_reports
from common.inference.engines import open_model
from common.manifest import sha256_of_file
from tests.exported_models import checkpoint_file, dataset

NUM_SAMPLES = 12


def exported(folder, *formats, architecture="simple_cnn", data="digits", name="model", **options):
    """Export into ``folder``/models and write reports and guide; returns the guide's text."""
    checkpoint = checkpoint_file(folder, architecture, data)
    output = folder / "models" / (name if len(formats) > 1 else f"{name}.{formats[0]}")
    request = ExportRequest(checkpoint, output, formats, speed_s=0.0, **options)
    documents = write_reports(export(request, Console(quiet=True)))
    return write_guide(output.parent, documents, checkpoint).read_text(encoding="utf-8")


def programs(guide):
    return re.findall(r"```python\n(.*?)```", guide, re.DOTALL)


def run(program, folder, arguments, monkeypatch):
    """Run a program as a file in ``folder`` with ``arguments``; its lines, split into words."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["program.py", *map(str, arguments)])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "program.py", "exec"), {"__name__": "__main__"})
    return [line.split() for line in printed.getvalue().splitlines()]


def write_images(folder):
    """The first test images as files, and their raw tensors."""
    split = dataset("digits").splits["test"]
    chosen = split.inputs[:: split.num_samples // NUM_SAMPLES][:NUM_SAMPLES]
    paths = [folder / f"{number}.png" for number in range(NUM_SAMPLES)]
    for path, image in zip(paths, chosen, strict=True):
        Image.fromarray(image[0].numpy()).save(path)
    return paths, chosen


def probabilities(model_path, data, raw):
    """What the model answers to raw inputs: predicted class names and their probabilities."""
    inputs = dataset(data).normalizer()(raw)
    logits = torch.from_numpy(open_model(model_path, "cpu", 1)(inputs.numpy()))
    best = logits.softmax(dim=1).max(dim=1)
    return [dataset(data).class_names[index] for index in best.indices], best.values.tolist()


@pytest.mark.parametrize("form", ["onnx", "torchscript", "pt2"])
def test_image_programs_answer_as_the_model(tmp_path, monkeypatch, form):
    guide = exported(tmp_path, form)
    models = tmp_path / "models"
    paths, raw = write_images(tmp_path)
    names, confidences = probabilities(models / f"model.{form}", "digits", raw)
    program = programs(guide)[0 if form == "onnx" else -1]
    lines = run(program, models, paths, monkeypatch)
    assert [words[0] for words in lines] == [str(path) for path in paths]
    assert [words[1] for words in lines] == names
    np.testing.assert_allclose([float(words[2]) for words in lines], confidences, atol=2e-4)


def test_program_that_loads_the_checkpoint(tmp_path, monkeypatch):
    guide = exported(tmp_path, "onnx")
    paths, raw = write_images(tmp_path)
    names, _ = probabilities(tmp_path / "models" / "model.onnx", "digits", raw)
    [_, program] = programs(guide)
    assert "load_checkpoint" in program
    assert [words[1] for words in run(program, tmp_path, paths, monkeypatch)] == names


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_table_programs_answer_as_the_model(tmp_path, monkeypatch, form):
    guide = exported(tmp_path, form, architecture="simple_mlp", data="wine")
    raw = dataset("wine").splits["test"].inputs
    rows = tmp_path / "rows.csv"
    np.savetxt(rows, raw.numpy(), delimiter=",", fmt="%.9g")
    names, _ = probabilities(tmp_path / "models" / f"model.{form}", "wine", raw)
    lines = run(programs(guide)[0 if form == "onnx" else -1], tmp_path / "models", [rows], monkeypatch)
    assert [words[1] for words in lines] == names


def test_larger_colour_photographs_are_prepared_as_in_training(tmp_path):
    photo = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo, exif=_lying_on_its_side())
    spec = {"input_shape": [3, 16, 12], "preprocessing": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}}
    program = inference_program("onnx", "model.onnx", images=True)
    prepare = program[program.index("def prepare") : program.index("def softmax")]
    names = {"np": np, "spec": spec, "Image": Image, "ImageOps": ImageOps}
    exec(prepare, names)
    mean, std = (np.array(spec["preprocessing"][key]).reshape(3, 1, 1) for key in ("mean", "std"))
    expected = (decode_image(photo, (3, 16, 12), resize=True) / 255 - mean) / std
    np.testing.assert_allclose(names["prepare"](photo), expected[None], atol=1e-6)


def _lying_on_its_side():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_guide_covers_all_sound_exports_of_the_checkpoint(tmp_path):
    exported(tmp_path, "onnx", name="fp32")
    exported(tmp_path, "torchscript", name="old")
    models = tmp_path / "models"
    (models / "old.torchscript").write_bytes(b"changed since")
    (models / "notes.json").write_text("[1]")
    (models / "half.json").write_text('{"kind": "ml_trainer_export", "schema_version": 1, "file": {}}')
    guide = exported(tmp_path, "onnx", name="int8", precision="int8")
    assert (models / NAME).read_text() == guide
    assert "`int8.onnx`" in guide and "`fp32.onnx`" in guide and "old.torchscript" not in guide
    assert "InferenceSession('fp32.onnx'" in guide  # the programs show the unquantised file
    for heading in ("Overview", "Input", "Output", "Measured performance", "Monitoring", "Troubleshooting"):
        assert f"\n## {heading}\n" in guide
    assert "(batch, 1, 8, 8), any batch size" in guide


def test_reports(tmp_path):
    exported(tmp_path, "onnx", name="small", precision="int8")
    path = tmp_path / "models" / "small.onnx"
    json_path, markdown_path = report_paths(path)
    document = json.loads(json_path.read_text())
    assert document["file"]["sha256"] == sha256_of_file(path)
    assert document["file"]["size_bytes"] == path.stat().st_size < document["file"]["fp32_size_bytes"]
    assert document["checkpoint"]["path"] == "../checkpoints/final_model_best.pt"
    assert document["quantization"]["method"] == "static" and "train split" in document["quantization"]["calibration"]
    assert document["verification"]["passed"] and document["verification"]["num_samples"] == 270
    assert document["speed"]["baseline"] == "ONNX in fp32" and document["speed"]["verdict"]
    text = markdown_path.read_text()
    assert f"{document['verification']['exported_acc']:.2f}%" in text and "exact McNemar p =" in text
    assert document["speed"]["verdict"] in text and str(Path.cwd()) not in text
