"""The command line of the training: modes and what overrides what, the screen, the dry run, exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.config import load_config
from tests.training_runs import STOPPABLE, Run, leaves, orchestrate, train, tree, write_config

SCREEN_LINE = r"Epoch [12]/2 \| train \d+\.\d{4} +\d+\.\d% \| val \d+\.\d{4} +\d+\.\d% \| lr 3\.00e-03 \| \S+( \| .+)?"


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The screen


def test_the_screen_shows_a_line_per_epoch_and_what_to_do_next(capsys):
    assert orchestrate("--config", write_config()) == 0
    out, err = capsys.readouterr()
    assert out == "", "standard output is for results"
    lines = [line for line in err.splitlines() if line.startswith("Epoch ")]
    assert len(lines) == 2 and all(re.fullmatch(SCREEN_LINE, line) for line in lines)
    assert "Train Loss:" not in err, "details are for --verbose"
    closing = err.splitlines()[-3:]
    assert closing[0].startswith("Training complete")
    assert closing[-1] == "Next: python checkpoint_inspector.py --checkpoint checkpoints/baseline/best_model.pt"
    assert not re.search(r"\x1b|\r", err), "no bar and no colours where nobody watches"


def test_quiet_shows_nothing_and_the_log_has_all(capsys):
    run = train()
    assert capsys.readouterr() == ("", "")
    assert "[EPOCH 2/2]" in run.log and any(line.startswith("Training complete") for line in run.log)


class ClosedPipe(io.StringIO):
    """A screen whose reader has gone, as after ``2>&1 | head``."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_reader_that_goes_away_does_not_end_the_training(monkeypatch):
    monkeypatch.setattr(sys, "stderr", ClosedPipe())
    assert orchestrate("--config", write_config(), "--output-dir", "run") == 0
    assert Run(Path("run")).metrics["run"]["status"] == "completed"


def test_verbose_shows_what_the_log_gets(capsys):
    assert orchestrate("--config", write_config(), "--verbose") == 0
    err = capsys.readouterr().err.splitlines()
    assert set(Run(Path("results/baseline")).log) <= set(err)


def test_json_is_one_document_on_standard_output(capsys):
    assert orchestrate("--config", write_config(), "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == Run(Path("results/baseline")).metrics
    assert "Epoch 2/2" in err


@pytest.mark.parametrize(
    ("arguments", "code", "names"),
    [
        (("--config", "missing.yaml"), 3, "missing.yaml"),
        (("--set", "model.dropout=1.5"), 1, "model.dropout"),
        (("--set", "optimizer.learning_rte=1"), 1, "learning_rate"),
        (("--epochs", "0"), 1, "epochs"),
        (("--seed", "-1"), 1, "seed"),
        (("--set", "nonsense"), 2, "nonsense"),
        (("--set", "data.source=npz", "--set", "data.root=absent.npz"), 3, "absent.npz"),
        (("--set", "model.num_classes=5"), 3, "num_classes"),
        (("--set", "model.architecture=no_such_module:build"), 2, "no_such_module"),
        (("--output-dir", "config.yaml"), 2, "config.yaml"),
    ],
)
def test_errors_name_what_is_wrong_and_have_their_exit_code(arguments, code, names, capsys):
    argv = arguments if "--config" in arguments else ("--config", write_config(), *arguments)
    found = orchestrate(*argv, "--json")
    out, err = capsys.readouterr()
    assert names in err and "Traceback" not in err
    error = json.loads(out)["error"]
    assert error["exit_code"] == found and names in json.dumps(error)
    assert found == code or (found, code) == (1, 2), "a malformed --set may count as an invalid config"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_gpu_that_is_not_there(device, capsys):
    assert orchestrate("--config", write_config(), "--device", device, "--quiet") == 4
    err = capsys.readouterr().err
    assert "training.device" in err and err.count("\n") == 1, "one sentence"


@pytest.mark.parametrize("argv", [("--mode", "fast"), ("--epochs", "many"), ("--epoch", "3"), ("stray",)])
def test_wrong_usage(argv, capsys):
    with pytest.raises(SystemExit) as end:
        orchestrate("--config", write_config(), *argv)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err and not Path("results").exists()


def test_a_folder_with_other_files_is_left_alone(capsys):
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").write_text("precious")
    before = tree("thesis")
    train("thesis", expect=2)
    assert "thesis" in capsys.readouterr().err and tree("thesis") == before


def test_a_config_of_ones_own_is_never_overwritten():
    own = write_config("config.yaml", experiment__notes="mine")
    Path("project").mkdir()
    written = own.rename("project/config.yaml")
    text = written.read_text()
    orchestrate("--config", written, "--output-dir", "project", "--quiet")
    assert written.read_text() == text


# Modes and precedence


@pytest.mark.parametrize("mode", ["baseline", "optimization"])
def test_a_mode_names_its_folder_report_and_links(mode):
    assert orchestrate("--config", write_config(), "--mode", mode, "--quiet") == 0
    run = Run(Path("results") / mode)
    assert run.metrics["run"]["mode"] == mode and run.metrics["test"] is None
    assert Path(f"{mode}_results.md").read_text().startswith(f"# {mode.title()} results: ")
    assert Path(f"checkpoints/{mode}/best_model.pt").exists()
    assert not (run.path / "predictions_test.npz").exists()


def test_production_tests_the_best_model():
    assert orchestrate("--config", write_config(), "--mode", "production", "--quiet") == 0
    run = Run(Path("results/production"))
    assert run.checkpoint_names == {"final_model_best.pt", "final_model_last.pt"}
    assert Path("checkpoints/production/final_model_best.pt").exists() and Path("production_results.md").exists()
    test, arrays = run.metrics["test"], run.predictions("test")
    matrix = np.array(test["confusion_matrix"])
    assert matrix.shape == (3, 3) and matrix.sum() == run.metrics["run"]["dataset"]["num_test"]
    assert test["test_acc"] == pytest.approx(100 * matrix.trace() / matrix.sum())
    assert 100 * np.mean(arrays["predicted"] == arrays["label"]) == pytest.approx(test["test_acc"])
    assert [row["support"] for row in test["per_class"]] == matrix.sum(axis=1).tolist()
    assert np.mean([row["f1"] for row in test["per_class"]]) == pytest.approx(test["test_f1"])
    report = (run.path / "test_results.md").read_text()
    for row in test["per_class"]:
        assert re.search(rf"\| {row['name']} +\| {row['support']} +\| {row['precision']:.4f}", report)
    with Image.open(run.path / "confusion_matrix.png") as image:
        image.verify()
    assert "test_results.md" in Path("production_results.md").read_text()


def resolved(*arguments: str, **changes) -> dict:
    """The config that a run with these arguments had."""
    run = train("resolved", *arguments, **changes)
    return run.config


def test_what_overrides_what():
    file_says = {"test_set__enabled": False, "optimizer__learning_rate": 0.002, "training__epochs": 2}
    config = resolved(
        "--mode", "production", "--set", "optimizer.learning_rate=5e-4", "--set", "training.epochs=3",
        "--set", "reproducibility.seed=1", "--epochs", "1", "--seed", "7", "--device", "cpu", **file_says,
    )  # fmt: skip
    assert config["test_set"]["enabled"] is False, "file beats mode"
    assert config["test_set"]["evaluate_at_end"] is True, "mode beats default"
    assert config["optimizer"]["learning_rate"] == 5e-4, "--set beats file"
    assert (config["training"]["epochs"], config["reproducibility"]["seed"]) == (1, 7), "flags beat --set"


def test_a_departure_from_the_mode_is_told(capsys):
    orchestrate("--config", write_config())
    assert "[CONFIG] training.epochs: 2 (the baseline mode means 20)" in capsys.readouterr().err


# Dry run


@pytest.mark.parametrize("mode", ["baseline", "production"])
def test_a_dry_run_tells_the_plan_and_leaves_nothing(mode, capsys):
    config = write_config(data__source="digits", training__epochs=7, logging__tensorboard=True)
    before = tree(".")
    assert orchestrate("--config", config, "--mode", mode, "--dry-run") == 0
    assert tree(".") == before
    out = capsys.readouterr().out
    for fact in ("7 epochs x 20 = 140", "1,257 train", "1,810 parameters", f"results/{mode}", "10 classes"):
        assert fact in out
    assert re.search(r"Estimated time: \S+", out) and re.search(r"Estimated disk: [\d.]+ kB", out)


def test_a_dry_run_for_programs(capsys):
    assert orchestrate("--config", write_config(), "--dry-run", "--json", "--output-dir", "x") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["dry_run"] is True and plan["output_dir"] == "x" and not Path("x").exists()
    assert plan["samples"]["train"] == 124 and plan["steps"] == plan["steps_per_epoch"] * plan["epochs"] == 4
    assert plan["first_loss"] > 0.5 and plan["estimated_s"] > 0 and plan["estimated_disk_bytes"] > 0


def test_a_dry_run_leaves_a_run_that_is_there_alone():
    run = train("run")
    before = tree(run.path)
    assert orchestrate("--config", "run.yaml", "--output-dir", "run", "--dry-run", "--quiet") == 0
    assert tree(run.path) == before


@pytest.mark.parametrize("scheduler", ["one_cycle", "cosine", "step", "reduce_on_plateau"])
def test_a_dry_run_of_a_training_shorter_than_its_trial(scheduler):
    config = write_config(lr_scheduler__type=scheduler, training__epochs=1, training__batch_size=500)
    assert orchestrate("--config", config, "--dry-run", "--quiet") == 0


def test_a_dry_run_finds_what_would_fail(capsys):
    config = write_config(data_augmentation__enabled=True, data_augmentation__transforms=["random_crop"])
    before = tree(".")
    assert orchestrate("--config", config, "--dry-run") == 2, "a table cannot be cropped"
    assert "data_augmentation.transforms" in capsys.readouterr().err and tree(".") == before


# Links


def test_links_lead_to_the_newest_run_of_the_phase():
    for name in ("first", "second"):
        train(name)
        assert os.readlink("logs/metrics.json") == f"../{name}/metrics.json"
        assert os.readlink("checkpoints/baseline") == f"../{name}/checkpoints"
        assert os.readlink("baseline_results.md") == f"{name}/baseline_results.md"


def test_real_files_in_the_place_of_links_stay_and_are_named(capsys):
    Path("logs").mkdir()
    Path("logs/metrics.json").write_text("mine")
    Path("checkpoints/baseline").mkdir(parents=True)
    Path("baseline_results.md").write_text("my own words")
    assert orchestrate("--config", write_config(), "--output-dir", "run") == 0
    err, run = capsys.readouterr().err, Run(Path("run"))
    assert Path("logs/metrics.json").read_text() == "mine" and Path("baseline_results.md").read_text() == "my own words"
    assert list(Path("checkpoints/baseline").iterdir()) == []
    assert os.readlink("logs/training.log") == "../run/training.log"
    for path in ("logs/metrics.json", "checkpoints/baseline", "baseline_results.md"):
        assert any(path in line and "left alone" in line for line in err.splitlines())
        assert any(path in line and "left alone" in line for line in run.log)
    assert "--checkpoint run/checkpoints/best_model.pt" in run.log[-1], "the next command names what is there"


def test_links_work_through_a_linked_folder(tmp_path):
    (tmp_path / "scratch/deep").mkdir(parents=True)
    Path("checkpoints").symlink_to("scratch/deep")
    train()
    assert Path("checkpoints/baseline/best_model.pt").exists()


def test_an_output_folder_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = train("../far/away/run/")
    assert run.metrics["run"]["status"] == "completed"
    assert os.readlink("checkpoints/baseline") == "../../far/away/run/checkpoints"


# Failures


def test_a_loss_that_stays_non_finite_fails_with_the_batch_named(capsys):
    run = train(expect=5, optimizer__learning_rate=1e30, data__source="digits", training__epochs=3)
    err = capsys.readouterr().err
    assert re.search(r"(loss|gradient norm) is (nan|-?inf) in epoch \d, step \d+, on a batch with \d/\d{4}\.png", err)
    assert "learning_rate" in err and "Traceback" not in err
    assert run.metrics["run"]["status"] == "failed"
    text = (run.path / "metrics.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    for name in run.checkpoint_names:
        tensors = [leaf for leaf in leaves(run.checkpoint(name)["model_state_dict"]) if isinstance(leaf, torch.Tensor)]
        assert all(bool(tensor.isfinite().all()) for tensor in tensors)


def test_a_run_that_failed_is_gone_on_with_when_its_config_allows(capsys):
    """The same command after a failure fails the same way, and loses nothing."""
    for _ in range(2):
        run = train(expect=5, optimizer__learning_rate=1e30, data__source="digits")
    assert run.metrics["run"]["status"] == "failed" and not Path("run.1").exists()


def test_the_log_says_why_a_run_failed():
    run = train(expect=5, optimizer__learning_rate=1e30, data__source="digits")
    assert any("nan" in line or "inf" in line for line in run.log)


def test_too_little_memory_is_met_with_smaller_batches_and_equal_steps(monkeypatch):
    changes = {"model__architecture": STOPPABLE, "model__hidden_dims": None, "training__batch_size": 62}
    roomy = train("roomy", **changes)
    monkeypatch.setenv("TEST_FITTING_SAMPLES", "20")
    run = train("tight", **changes)
    assert run.metrics["run"]["status"] == "completed"
    assert run.checkpoint()["step"] == roomy.checkpoint()["step"] == 4
    kinds = [(event["kind"], event["actions"]) for event in run.metrics["events"]]
    assert kinds and all(actions == ["halve_micro_batch"] for _, actions in kinds)
    assert any(line.startswith("[RESTART]") for line in run.log)
    assert "from now on, with the same samples per optimizer step" in (run.path / "baseline_results.md").read_text()


def test_no_memory_at_all(monkeypatch, capsys):
    monkeypatch.setenv("TEST_FITTING_SAMPLES", "0")
    run = train(expect=5, model__architecture=STOPPABLE, model__hidden_dims=None)
    err = capsys.readouterr().err
    assert "out of memory" in err and "training.batch_size" in err and "Traceback" not in err
    assert run.metrics["run"]["status"] == "failed"


def test_a_full_disk_is_no_bug(capsys):
    Path("run").mkdir()
    Path("run/.run.lock").touch()
    Path("run/training.log").symlink_to("/dev/full")
    train("run", expect=4)
    assert "space" in capsys.readouterr().err.lower()


def test_the_config_is_what_was_resolved_whatever_the_mode():
    train("run", "--mode", "production")
    assert load_config("run/config.yaml").config.test_set.evaluate_at_end
