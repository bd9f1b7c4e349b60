"""What a finished run leaves on disk: every file, what is in it, and that the files agree with one another."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional

from common import checkpoints
from common.config import config_from_mapping, config_sha256, load_config
from common.data import load_dataset
from common.metrics_file import read_metrics
from tests.training_runs import Run, leaves, measured_again, train

EPOCHS = 4
CHECKPOINT_KEYS = [
    "schema_version", "epoch", "step", "model_state_dict", "optimizer_state_dict", "scheduler_state_dict", "val_loss",
    "val_acc", "metrics", "config", "rng_state", "progress", "model_spec", "sample_history",
]  # fmt: skip
PERCENTAGES = ("train_acc", "val_acc", "cpu_util")
FRACTIONS = ("val_f1", "val_precision", "val_recall")
NOT_NEGATIVE = ("train_loss", "val_loss", "lr", "time_s", "data_time_s", "samples_per_s")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A working directory in which one run has been: a small network on the digits."""
    folder = tmp_path_factory.mktemp("workplace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(
            "results/baseline",
            training__epochs=EPOCHS,
            data__source="digits",
            logging__tensorboard=True,
            checkpointing__checkpoint_every_n_epochs=2,
            experiment__name="ein Versuch: größer",
        )
    return folder


@pytest.fixture(scope="module")
def run(workplace):
    return Run(workplace / "results/baseline")


def test_the_folder_holds_what_is_documented_and_no_more(run):
    assert {path.name for path in run.path.iterdir()} == {
        "config.yaml", "environment.json", "metrics.json", "training.log", "learning_curves.png",
        "baseline_results.md", "predictions_val.npz", "checkpoints", "tensorboard", "step_trace.bin", ".run.lock",
        "sample_history.npz",
    }  # fmt: skip
    assert {path.name for path in (run.path / "checkpoints").iterdir()} == {
        "best_model.pt", "last_model.pt", "checkpoint_epoch_2.pt", "checkpoint_epoch_4.pt", "manifest.json",
    }  # fmt: skip


def test_the_resolved_config_says_where_it_comes_from_and_reads_back(workplace, run):
    text = (run.path / "config.yaml").read_text()
    assert text.startswith("# ") and "results_baseline.yaml" in text.split("model:")[0]
    original = load_config(workplace / "results_baseline.yaml", mode="baseline").config
    again = load_config(run.path / "config.yaml")
    assert again.config == original
    assert not any("has no effect" in notice for notice in again.notices), "nobody chose what is a default"
    assert config_from_mapping(run.checkpoint()["config"], "checkpoint") == original
    assert run.config["experiment"]["name"] == "ein Versuch: größer"
    assert run.config["checkpointing"]["save_last"] is True, "defaults are written out"


def test_the_environment(run):
    environment = run.environment
    assert environment["versions"]["torch"] == environment["packages"]["torch"] == torch.__version__
    assert environment["packages"]["numpy"] == np.__version__
    assert environment["cpu"]["model"] and environment["cpu"]["usable_cores"] >= 1
    assert {"gpu", "git", "platform", "memory_bytes", "torch_build"} <= environment.keys()
    assert environment["run"]["num_threads"] == 1 and environment["run"]["device"] == "cpu"
    assert environment["run"]["deterministic"] is True
    assert environment["run"]["dataset_fingerprint"] == run.metrics["run"]["dataset"]["fingerprint"]
    assert environment["command_line"][0] == "training_orchestrator.py"


def test_the_run_object_of_the_metrics(workplace, run):
    document = read_metrics(run.path)
    assert document.keys() == {"schema_version", "run", "epochs", "best", "events", "signals", "test"}
    assert document["schema_version"] == 1 and document["events"] == [] and document["test"] is None
    about = document["run"]
    assert (about["mode"], about["status"], about["seed"], about["device"]) == ("baseline", "completed", 42, "cpu")
    assert about["config_sha256"] == config_sha256(load_config(workplace / "results_baseline.yaml").config)
    assert about["num_parameters"] == 64 * 24 + 24 + 24 * 10 + 10
    assert isinstance(about["id"], str) and about["id"]
    dataset = about["dataset"]
    assert (dataset["name"], dataset["class_names"]) == ("digits", list("0123456789"))
    assert dataset["num_train"] + dataset["num_val"] + dataset["num_test"] == 1797
    assert re.fullmatch("[0-9a-f]{64}", dataset["fingerprint"])


def test_the_times_of_the_metrics(run):
    about = run.metrics["run"]
    started, finished = (datetime.fromisoformat(about[key]) for key in ("started_at", "finished_at"))
    assert started.utcoffset() == finished.utcoffset() == timedelta(0)
    assert started <= finished
    assert about["duration_s"] > 0
    assert all(0 <= epoch["data_time_s"] <= epoch["time_s"] for epoch in run.epochs)


def test_the_epochs_of_the_metrics(run):
    assert [epoch["num"] for epoch in run.epochs] == list(range(1, EPOCHS + 1))
    for epoch in run.epochs:
        assert all(type(epoch[key]) is float and epoch[key] >= 0 for key in NOT_NEGATIVE)
        assert all(0 <= epoch[key] <= 1 for key in FRACTIONS)
        assert all(0 <= epoch[key] <= 100 for key in PERCENTAGES)
        assert epoch["gpu_util"] is None and epoch["gpu_mem_gb"] is None
        assert 0 < epoch["grad_norm"]["median"] <= epoch["grad_norm"]["max"]
        assert isinstance(epoch["health"], dict)
        assert re.fullmatch("[0-9a-f]{64}", epoch["weights_sha256"])
    last = run.epochs[-1]
    assert last["val_acc"] > 80 and last["train_acc"] > 80, "it did learn; and percent are not fractions"
    assert last["lr"] == 0.003 and len(set(run.weight_hashes())) == EPOCHS


def test_the_best_epoch_is_the_one_with_the_lowest_validation_loss(run):
    best, epochs = run.metrics["best"], run.epochs
    expected = min(epochs, key=lambda epoch: epoch["val_loss"])
    assert best["epoch"] == expected["num"] and best["metric"] == "val_loss"
    for key in ("train_loss", "train_acc", "val_loss", "val_acc", "val_f1", "val_precision", "val_recall"):
        assert best[key] == expected[key]
    assert run.checkpoint("best_model.pt")["epoch"] == expected["num"]


def test_checkpoints_hold_the_documented_keys_and_plain_values_only(run):
    for name in run.checkpoint_names:
        checkpoint = run.checkpoint(name)
        assert list(checkpoint) == CHECKPOINT_KEYS and checkpoint["schema_version"] == 1
        assert all(leaf is None or type(leaf) in (torch.Tensor, int, float, str, bool) for leaf in leaves(checkpoint))
        assert all(value.dtype == torch.float32 for value in checkpoint["model_state_dict"].values())
        assert checkpoint["step"] == checkpoint["epoch"] * 20
        record = run.epochs[checkpoint["epoch"] - 1]
        assert (checkpoint["val_loss"], checkpoint["val_acc"]) == (record["val_loss"], record["val_acc"])
        assert checkpoints.state_sha256(checkpoint["model_state_dict"]) == record["weights_sha256"]
    assert run.checkpoint("checkpoint_epoch_2.pt")["epoch"] == 2
    assert run.checkpoint("last_model.pt")["epoch"] == EPOCHS


def test_the_manifest_has_the_hash_of_every_checkpoint(run):
    files = json.loads((run.path / "checkpoints/manifest.json").read_text())["files"]
    assert files.keys() == run.checkpoint_names
    for name, entry in files.items():
        content = (run.path / "checkpoints" / name).read_bytes()
        assert (entry["sha256"], entry["size_bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
        assert (entry["epoch"], entry["step"]) == (run.checkpoint(name)["epoch"], run.checkpoint(name)["step"])


def test_the_model_spec_suffices_to_predict(run):
    checkpoint = run.checkpoint("best_model.pt")
    spec, dataset = checkpoint["model_spec"], load_dataset("digits", write_files=False)
    assert spec["class_names"] == list("0123456789") and spec["input_shape"] == [1, 8, 8]
    mean, std = (torch.tensor(spec["preprocessing"][key]).view(1, 1, 1, 1) for key in ("mean", "std"))
    pixels = dataset.splits["val"].inputs.float() / 255
    with torch.no_grad():
        logits = checkpoints.load_model(checkpoint)((pixels - mean) / std)
    assert np.allclose(logits.numpy(), run.predictions()["logits"], atol=1e-4)


def test_the_predictions_are_those_of_the_best_epoch(run):
    arrays, best = run.predictions(), run.metrics["best"]
    count = run.metrics["run"]["dataset"]["num_val"]
    assert arrays["logits"].shape == (count, 10) and arrays["logits"].dtype == np.float32
    assert arrays["index"].tolist() == list(range(count))
    assert np.array_equal(arrays["predicted"], arrays["logits"].argmax(axis=1))
    assert 100 * np.mean(arrays["predicted"] == arrays["label"]) == pytest.approx(best["val_acc"])
    logits, labels = torch.from_numpy(arrays["logits"]).double(), torch.from_numpy(arrays["label"])
    assert float(functional.cross_entropy(logits, labels)) == pytest.approx(best["val_loss"], rel=1e-5)


def test_tensorboard_shows_every_epoch(run):
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    for tag, key in (("loss/train", "train_loss"), ("loss/val", "val_loss"), ("accuracy_pct/val", "val_acc")):
        assert [event.step for event in events.Scalars(tag)] == list(range(1, EPOCHS + 1))
        assert np.allclose([event.value for event in events.Scalars(tag)], [epoch[key] for epoch in run.epochs])


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("logs/training.log", "../results/baseline/training.log"),
        ("logs/metrics.json", "../results/baseline/metrics.json"),
        ("checkpoints/baseline", "../results/baseline/checkpoints"),
        ("baseline_results.md", "results/baseline/baseline_results.md"),
    ],
)
def test_the_documented_paths_lead_to_the_run(workplace, link, target):
    assert os.readlink(workplace / link) == target
    assert (workplace / link).exists()


def test_the_digits_are_there_as_ordinary_files(workplace, run):
    dataset = run.metrics["run"]["dataset"]
    for split in ("train", "val", "test"):
        files = sorted((workplace / "data" / split).glob("[0-9]/*.png"))
        assert len(files) == dataset[f"num_{split}"]
        assert {file.parent.name for file in files} == set(dataset["class_names"])


def test_the_curves_are_a_picture(run):
    with Image.open(run.path / "learning_curves.png") as image:
        image.verify()
        assert min(image.size) >= 400


def test_the_step_trace_adds_up_to_the_epochs(run):
    trace = np.fromfile(run.path / "step_trace.bin", dtype="<f8").reshape(-1, 2)
    assert trace.shape == (EPOCHS * 20, 2)
    for epoch, steps in zip(run.epochs, trace.reshape(EPOCHS, 20, 2), strict=True):
        assert steps[:, 0].sum() / 1257 == pytest.approx(epoch["train_loss"], rel=1e-9)
        assert (np.median(steps[:, 1]), steps[:, 1].max()) == (epoch["grad_norm"]["median"], epoch["grad_norm"]["max"])


# training.log

HEADER = {
    "[CONFIG]": r"\[CONFIG\] .+",
    "[REPRODUCIBILITY]": r"\[REPRODUCIBILITY\] .+: .+",
    "[DATA]": r"\[DATA\] .+",
    "[MODEL]": r"\[MODEL\] simple_mlp: 1,810 parameters.*",
    "[OPTIMIZER]": r"\[OPTIMIZER\] adam: .*0\.003.*",
    "[SCHEDULER]": r"\[SCHEDULER\] constant; 20 steps per epoch",
}
EPOCH_LINES = [
    r"\[EPOCH \d+/4\]",
    r"Train Loss: \d+\.\d{3,} \| Train Acc: \d+\.\d%",
    r"Val Loss: \d+\.\d{3,} \| Val Acc: \d+\.\d%",
    r"LR: \d\.\d\de[+-]\d\d",
    r"GPU Util: (n/a \(CPU run\)|\d+%) \| Time: \S+( \S+)?",
    r"Checkpoint: saved \([\w.]+(, [\w.]+)*\)",
]


def test_every_log_line_has_its_time(run):
    lines = (run.path / "training.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| \S", line) for line in lines)
    assert [line[:19] for line in lines] == sorted(line[:19] for line in lines)


def test_the_log_begins_with_what_is_trained(run):
    lines = run.log[: run.log.index("[EPOCH 1/4]")]
    tags = [line.split()[0] for line in lines]
    assert list(dict.fromkeys(tags)) == list(HEADER), "in this order, nothing else between"
    for tag, line in zip(tags, lines, strict=True):
        assert re.fullmatch(HEADER[tag], line)
    seeded = [line for line in lines if line.startswith("[REPRODUCIBILITY]") and "seed" in line]
    assert [line.split()[1] for line in seeded] == ["Python", "NumPy:", "PyTorch:", "CUDA:"]


def test_the_log_has_the_documented_lines_for_every_epoch(run):
    first, last = run.log.index("[EPOCH 1/4]"), next(n for n, line in enumerate(run.log) if "complete" in line)
    lines = run.log[first:last]
    assert len(lines) == EPOCHS * len(EPOCH_LINES)
    for number, line in enumerate(lines):
        assert re.fullmatch(EPOCH_LINES[number % len(EPOCH_LINES)], line), line
    for number, epoch in enumerate(run.epochs):
        train_line, val_line = lines[6 * number + 1 : 6 * number + 3]
        assert float(train_line.split()[2]) == pytest.approx(epoch["train_loss"], abs=1e-3)
        assert val_line.endswith(f"Val Acc: {epoch['val_acc']:.1f}%")
    saved = {name for line in lines[-1:] for name in line[len("Checkpoint: saved (") : -1].split(", ")}
    assert {"last_model.pt", "checkpoint_epoch_4.pt"} <= saved


def test_the_log_ends_with_the_next_command(run):
    assert any(line.startswith("Training complete") for line in run.log)
    assert run.log[-1].endswith("python checkpoint_inspector.py --checkpoint checkpoints/baseline/best_model.pt")


# baseline_results.md


def test_the_report_agrees_with_the_metrics(run):
    text, best = (run.path / "baseline_results.md").read_text(), run.metrics["best"]
    assert text.startswith("# Baseline results: digits")
    for value in (f"{best['val_acc']:.2f}%", f"{best['val_loss']:.4f}", "(learning_curves.png)", "n/a (CPU run)"):
        assert value in text
    assert text.count("✓") == 5 and "✗" not in text
    assert (run.path / "config.yaml").read_text().strip() in text
    assert "python checkpoint_inspector.py --checkpoint" in text


def test_the_report_is_prose_and_tables_without_programming(run):
    report = (run.path / "baseline_results.md").read_text().split("## Configuration")[0]
    assert "{'" not in report and "None," not in report and "nan" not in report.lower().split()


def test_a_run_can_be_moved_and_read_elsewhere(workplace, run, tmp_path):
    moved = Run(shutil.copytree(run.path, tmp_path / "elsewhere"))
    shutil.copy(run.path / "config.yaml", tmp_path / "copy.yaml")
    checkpoint = checkpoints.load_checkpoint(moved.path / "checkpoints/best_model.pt")
    val = measured_again(checkpoints.load_model(checkpoint), load_dataset("digits", write_files=False), "val")
    assert val.loss == moved.metrics["best"]["val_loss"]
    assert str(workplace) not in (moved.path / "metrics.json").read_text()
    assert load_config(tmp_path / "copy.yaml").config == load_config(moved.path / "config.yaml").config
    assert not Path(moved.path / "checkpoints").is_symlink()
