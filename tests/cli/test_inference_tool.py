"""test_inference.py as its users call it: the documented block, formats, requirements, files, exit codes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import test_inference as tool
from tests import inference_samples as samples

TIME = r"\d+(\.\d+)?ms"
SHORT = ("--threads", "1", "--duration", "0.2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with models/ and data/test/."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "models").mkdir()
    samples.write_onnx(folder / "models" / "production_model.onnx")
    samples.write_checkpoint(folder / "models" / "best_model.pt")
    samples.write_folder(folder / "data" / "test")
    return folder


@pytest.fixture
def inference(place, monkeypatch, capsys):
    """Runs the tool there; gives the exit code, standard output and standard error."""
    monkeypatch.chdir(place)

    def run(*arguments: object, model: str = "models/production_model.onnx") -> tuple[int, str, str]:
        code = tool.main(["--model", model, *SHORT, *map(str, arguments)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_the_documented_block_stands_first_and_exactly(inference):
    code, out, _ = inference("--test-data", "data/test/", "--batch-size", 1, "--device", "cpu")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "Inference Performance:"
    assert re.fullmatch(f"- Latency p50: {TIME}", lines[1])
    assert re.fullmatch(f"- Latency p95: {TIME}", lines[2])
    assert re.fullmatch(rf"- Latency p99: ({TIME}|not enough samples \(\d+ of 662\))", lines[3])
    assert re.fullmatch(r"- Throughput: \d+(\.\d+)? samples/sec", lines[4])
    assert lines[5] == f"- Test Accuracy: {samples.expected_accuracy_pct():.1f}%"
    assert lines[6:8] == ["- GPU Memory: n/a (CPU run)", ""]
    rest = "\n".join(lines[8:])
    for part in (
        "Model: models/production_model.onnx (ONNX, simple_mlp, fp32",
        "36 samples of 3 classes",
        "End-to-end (read, decode, normalise, run): p50",
        "Cold start in a fresh process: import",
        "over the",
        "none left out",
        "88.8% when it was trained",
    ):
        assert part in rest


def test_quiet_prints_the_block_alone(inference):
    code, out, err = inference("--quiet")
    assert code == 0 and len(out.splitlines()) == 7 and err == ""


def test_json_says_the_same_for_programs(inference):
    code, out, _ = inference("--json", "--batch-size", 2, "--min-accuracy", 10)
    found = json.loads(out)
    assert code == 0 and found["schema_version"] == 1
    assert found["model"]["format"] == "onnx" and found["model"]["device"] == "cpu"
    [one] = found["measurements"]
    assert one["batch_size"] == 2 and one["accuracy"]["test_acc"] == samples.expected_accuracy_pct()
    assert one["latency_ms"]["p50"]["low"] <= one["latency_ms"]["p50"]["value"] <= one["latency_ms"]["p50"]["high"]
    assert one["latency_ms"]["p99"]["num_needed"] == 662
    assert one["contention"]["verdict"] in ("clean", "contended")
    assert one["resources"]["over_baseline_bytes"] > 0
    assert [gate["verdict"] for gate in found["gates"]] == ["met"]
    assert np.array(one["accuracy"]["confusion_matrix"]).sum() == 36


def test_several_batch_sizes_make_a_table(inference):
    code, out, _ = inference("--batch-size", 1, 8, "--quiet", "--max-latency-ms", 1e-6)
    lines = out.splitlines()
    assert code == 1 and lines[0] == "Inference Performance:" and lines[2].startswith("| Batch | p50")
    assert [line.split("|")[1].strip() for line in lines[4:6]] == ["1", "8"]
    assert lines[-1].startswith("Required latency at batch size 8: ")


@pytest.mark.parametrize(
    ("model", "min_accuracy", "code"), [("models/best_model.pt", 100, 1), ("models/production_model.onnx", 50, 0)]
)
def test_requirements_decide_the_exit_code(inference, model, min_accuracy, code):
    found, out, _ = inference("--min-accuracy", min_accuracy, "--quiet", model=model)
    assert found == code and f"- Test Accuracy: {samples.expected_accuracy_pct():.1f}%" in out
    assert out.splitlines()[-1].startswith(f"Required accuracy: {'missed' if code else 'met'}; test accuracy is ")


def test_the_result_the_samples_and_the_environment_are_kept(inference, tmp_path):
    folder = tmp_path / "kept" / "here"
    code, out, _ = inference("--output", folder, "--plot", tmp_path / "pictures" / "latency.png", "--json")
    assert code == 0
    assert json.loads((folder / "inference.json").read_text()) == json.loads(out)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["run"]["num_threads"] == 1 and environment["command_line"] == sys.argv
    with np.load(folder / "samples.npz") as arrays:
        calls = json.loads(out)["measurements"][0]["num_calls"]
        assert len(arrays["batch_1_latency_ns"]) == len(arrays["batch_1_preemptions"]) == calls
        assert (arrays["batch_1_predictions"] == samples.expected_predictions()).all()
    assert (tmp_path / "pictures" / "latency.png").read_bytes().startswith(b"\x89PNG")


def test_two_models_side_by_side(inference, tmp_path):
    other = samples.write_onnx(tmp_path / "other.onnx")
    code, out, _ = inference("--compare", other, "--plot", tmp_path / "both.png")
    assert code == 0
    assert "Compared at batch size 1, in" in out and "Median latency: " in out
    assert "Test accuracy: +0.00 points" in out and "Same predicted class: 100.0%" in out
    assert (tmp_path / "both.png").is_file()


def test_a_schedule_that_cannot_be_kept_is_said_also_when_quiet(inference):
    code, out, _ = inference("--rate", 2_000_000, "--quiet", "--max-latency-ms", 1e6)
    assert code == 1 and "Overloaded: " in out and "Required latency: not proven" in out


def test_unreadable_images_are_named_and_left_out(inference, tmp_path):
    folder = samples.write_folder(tmp_path / "test")
    (folder / "bee" / "13.png").write_bytes(b"no picture")
    (folder / "bee" / "14.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    code, out, err = inference("--test-data", folder)
    assert code == 0 and "34 samples of 3 classes" in out
    assert "warning: 2 images of 36 cannot be read, left out: bee/13.png" in err and "bee/14.png" in err


def test_tables_are_test_data_too(inference, tmp_path):
    code, out, _ = inference("--test-data", samples.write_npz(tmp_path / "test.npz"))
    assert code == 0 and "End-to-end (normalise, run): p50" in out
    assert f"- Test Accuracy: {samples.expected_accuracy_pct():.1f}%" in out


def test_classes_that_the_model_does_not_know_are_named(inference, tmp_path):
    folder = samples.write_folder(tmp_path / "test", ["ant", "bee", "dog"])
    code, out, err = inference("--test-data", folder)
    assert code == 3 and out == "" and "classes that the model does not know: dog" in err


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--test-data", "nowhere"), 3, "nowhere"),
        (("--device", "tpu"), 2, "`tpu` is no device"),
        (("--compare", "models/best_model.pt", "--rate", "5"), 2, "cannot keep a schedule"),
        (("--batch-size", "4", "4"), 2, "names a size twice"),
        (("--plot", "latency.pdf"), 2, "end it in .png"),
        (("--rate", "1e9"), 2, "1 to 10,000,000 are possible"),
        (("--output", "models/best_model.pt"), 4, "cannot be made"),
        (("--plot", "models/best_model.pt/latency.png"), 4, "cannot be made"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_a_documented_code(inference, flags, code, message):
    found, out, err = inference(*flags)
    assert (found, out) == (code, "") and message in err and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize("flags", [("--batch-size", "0"), ("--duration", "-1"), ("--rate", "inf"), ("--threads", "x"),
                                   ("--min-accuracy", "101"), ("--min-accuracy", "0.8"), ("--max-latency-ms", "0"),
                                   ("--max-latency-ms", "nan")], ids=" ".join)  # fmt: skip
def test_numbers_out_of_range_are_wrong_usage(inference, flags, capsys):
    with pytest.raises(SystemExit) as end:
        inference(*flags)
    assert end.value.code == 2 and flags[0] in capsys.readouterr().err


@pytest.mark.parametrize("model", ["models/production_model.onnx", "models/best_model.pt"])
def test_cuda_is_never_a_silent_cpu_number(inference, model):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code, out, err = inference("--device", "cuda", model=model)
    assert (code, out) == (4, "") and "CUDA" in err and "--device cpu" in err


def test_a_missing_model_is_named(inference):
    code, out, err = inference(model="models/none.onnx")
    assert (code, out) == (3, "") and "models/none.onnx: no such file" in err


def test_help_shows_the_documented_command(capsys):
    with pytest.raises(SystemExit) as end:
        tool.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert "--model models/production_model.onnx --test-data data/test/ --batch-size 1 --device cuda" in text
    assert "Open only those you trust" in text and Path(tool.__file__).name == "test_inference.py"
