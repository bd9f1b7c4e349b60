"""diagnostic_tool.py on real trainings: what it says, writes and refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import config_validator
import diagnostic_tool
from common.config import load_config
from common.data import load_dataset
from tests.training_runs import train, tree

LABELS = "flipped.npz"


def diagnose(*arguments: object) -> int:
    return diagnostic_tool.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A working directory with four runs: sound, a rate far too low, wrong labels, and samples in two splits."""
    folder = tmp_path_factory.mktemp("workplace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_data(folder)
        digits = {"model__hidden_dims": [48], "training__epochs": 10, "training__batch_size": 64, "model__dropout": 0.0}
        train("results/slow", data__source="digits", optimizer__learning_rate=2e-6, **digits)
        for name in ("flipped", "shared"):
            train(f"results/{name}", data__source="npz", data__root=f"{name}.npz", **digits)
        # The last run is the one that logs/ and baseline_results.md lead to.
        train("results/baseline", data__source="digits", **digits)
    return folder


def write_data(folder: Path) -> None:
    """The digits with a quarter of the labels wrong, and with validation samples taken from training."""
    dataset = load_dataset("digits", write_files=False)
    arrays = {}
    for name, split in dataset.splits.items():
        arrays[f"x_{name}"], arrays[f"y_{name}"] = split.inputs.numpy(), split.labels.numpy()
    generator = np.random.default_rng(0)
    flipped = dict(arrays)
    for key in ("y_train", "y_val"):
        rows = generator.random(len(arrays[key])) < 0.25
        flipped[key] = np.where(rows, (arrays[key] + generator.integers(1, 10, len(rows))) % 10, arrays[key])
    np.savez(folder / "flipped.npz", **flipped)
    shared = {key: value.copy() for key, value in arrays.items()}
    shared["x_val"][:90], shared["y_val"][:90] = arrays["x_train"][::10][:90], arrays["y_train"][::10][:90]
    np.savez(folder / "shared.npz", **shared)


@pytest.fixture
def here(workplace, tmp_path, monkeypatch):
    """A fresh copy of that working directory, links and all."""
    copy = tmp_path / "work"
    shutil.copytree(workplace, copy, symlinks=True)
    monkeypatch.chdir(copy)
    return copy


def test_the_documented_command(here, capsys):
    assert diagnose("--baseline", "baseline_results.md", "--metrics", "logs/metrics.json",
                    "--output", "diagnostic_report.md") == 0  # fmt: skip
    out, err = capsys.readouterr()
    assert re.fullmatch(r"Primary issue: none \(healthy\) \(confidence \d+%\)\n", out)
    assert "Report: diagnostic_report.md" in err
    report = Path("diagnostic_report.md").read_text()
    assert report.split("\n")[0] == out.rstrip()
    assert "Nothing is wrong." in report and "Phase 5" in report
    assert "n/a (CPU run)" in report
    assert Path("diagnostic_report.png").read_bytes().startswith(b"\x89PNG")


def test_without_flags_it_takes_the_documented_files(here, capsys):
    assert diagnose() == 0
    assert capsys.readouterr().out.startswith("Primary issue: none (healthy)")


def test_a_report_alone_leads_to_its_run(here, capsys):
    assert diagnose("--baseline", "results/slow/baseline_results.md") == 0
    assert capsys.readouterr().out.startswith("Primary issue: convergence_stall")


def test_metrics_and_report_of_different_runs_are_refused(here, capsys):
    before = tree(here)
    assert diagnose("--baseline", "baseline_results.md", "--metrics", "results/slow/metrics.json") == 3
    error = capsys.readouterr().err
    assert "baseline_results.md: --baseline: is of another run than results/slow/metrics.json" in error
    assert "configuration" in error and "--run" in error
    assert tree(here) == before


def test_a_rate_too_low_leads_to_a_config_with_a_higher_one(here, capsys):
    assert diagnose("--run", "results/slow/", "--write-config", "configs/optimization_config.yaml") == 0
    out, err = capsys.readouterr()
    assert out.startswith("Primary issue: convergence_stall (confidence ")
    assert "the learning rate is far too low" in err.lower()
    config = Path("configs/optimization_config.yaml")
    assert "  # was 2e-06: increase the learning rate by 10x" in config.read_text()
    assert config_validator.main(["--config", str(config), "--mode", "optimization"]) == 0
    was, now = load_config("results/slow/config.yaml").config, load_config(config).config
    assert now.optimizer.learning_rate == pytest.approx(100 * was.optimizer.learning_rate)
    report = Path("diagnostic_report.md").read_text()
    assert "Written to `configs/optimization_config.yaml`" in report
    assert "python config_validator.py --config configs/optimization_config.yaml --mode optimization" in report


def test_an_existing_config_is_replaced_with_force_only(here, capsys):
    config = Path("next.yaml")
    config.write_text("precious: true\n")
    before = tree(here)
    assert diagnose("--run", "results/slow", "--write-config", config) == 2
    assert "next.yaml: --write-config: exists already" in capsys.readouterr().err
    assert tree(here) == before
    assert diagnose("--run", "results/slow", "--write-config", config, "--force") == 0
    assert load_config(config).config.training.epochs == 10


def test_a_sound_run_is_written_down_unchanged(here):
    assert diagnose("--run", "results/baseline", "--write-config", "next.yaml") == 0
    assert load_config("next.yaml").config == load_config("results/baseline/config.yaml").config
    assert "No setting is to be changed." in Path("next.yaml").read_text()


def test_wrong_labels_are_listed_and_shown(here, capsys):
    assert diagnose("--run", "results/flipped", "--output", "out.md", "--json", "--quiet") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["issue"], result["cause"]) == ("data_quality", "label_errors")
    assert result["confidence"] > 0.8 and result["findings"][0]["by_hand"]
    listed = result["suspicious_samples"]
    assert {row["split"] for row in listed} == {"train", "val"}
    # Most of what is listed is indeed wrong: each row against the labels of the original.
    original = load_dataset("digits", write_files=False)
    wrong = [row for row in listed if row["label"] != str(true_label(original, row))]
    assert len(wrong) >= 0.8 * len(listed) >= 20
    assert Path("out_samples.png").read_bytes().startswith(b"\x89PNG")
    assert "![The suspicious samples](out_samples.png)" in Path("out.md").read_text()


def true_label(original, row) -> int:
    index = int(re.search(r"\[(\d+)\]", row["name"])[1])
    return int(original.splits[row["split"]].labels[index])


def test_samples_in_two_splits_are_listed_as_pairs(here, capsys):
    assert diagnose("--run", "results/shared", "--json", "--quiet") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["issue"], result["cause"]) == ("data_quality", "leakage")
    pairs = [row for row in result["suspicious_samples"] if "of the training data" in row["why"]]
    assert pairs[0]["name"] == "x_val[0]" and pairs[0]["why"] == "equals x_train[0] of the training data"
    assert pairs[1]["why"] == "equals x_train[10] of the training data"


def test_data_that_has_changed_is_not_shown_as_the_run_s(here, capsys):
    Path("flipped.npz").write_bytes(Path("shared.npz").read_bytes())
    assert diagnose("--run", "results/flipped") == 0
    assert "no longer what the run was trained on" in capsys.readouterr().err
    report = Path("diagnostic_report.md").read_text()
    assert "| sample " in report and not Path("diagnostic_report_samples.png").exists()


def test_data_that_is_gone_is_only_a_notice(here, capsys):
    Path("flipped.npz").unlink()
    assert diagnose("--run", "results/flipped") == 0
    out, err = capsys.readouterr()
    assert out.startswith("Primary issue: data_quality") and "could not be loaded" in err


def test_samples_can_be_left_out(here):
    assert diagnose("--run", "results/flipped", "--no-samples") == 0
    assert not Path("diagnostic_report_samples.png").exists()
    assert "| sample " in Path("diagnostic_report.md").read_text()


def test_a_copied_metrics_file_finds_its_run_through_the_report(here):
    shutil.copy("results/slow/metrics.json", "copied.json")
    assert diagnose("--metrics", "copied.json", "--baseline", "results/slow/baseline_results.md",
                    "--write-config", "next.yaml") == 0  # fmt: skip


def test_a_metrics_file_alone_is_diagnosed_without_a_config(here, capsys):
    shutil.copy("results/slow/metrics.json", "copied.json")
    assert diagnose("--metrics", "copied.json") == 0
    out, err = capsys.readouterr()
    assert out.startswith("Primary issue: convergence_stall") and "config is not known" in err
    assert diagnose("--metrics", "copied.json", "--write-config", "next.yaml") == 2
    assert not Path("next.yaml").exists()


def test_the_same_run_gives_the_same_report(here):
    for name in ("one", "two"):
        folder = Path(name)
        folder.mkdir()
        assert diagnose("--run", "results/flipped", "--output", folder / "report.md") == 0
    for file in ("report.md", "report.png", "report_samples.png"):
        assert Path("one", file).read_bytes() == Path("two", file).read_bytes()


def test_the_run_is_left_as_it_was(here):
    before = tree(here / "results")
    assert diagnose("--run", "results/flipped") == 0
    assert tree(here / "results") == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--run", "results/baseline", "--metrics", "logs/metrics.json"), 2, "names the run already"),
        (("--run", "results/none"), 2, "is not a folder"),
        (("--metrics", "none.json"), 3, "no such file"),
        (("--baseline", "none.md", "--metrics", "logs/metrics.json"), 3, "no such file"),
        (("--baseline", "flipped.yaml", "--metrics", "logs/metrics.json"), 3, "not the results report"),
        (("--force",), 2, "goes with --write-config only"),
        (("--output", "missing/report.md"), 4, "cannot be written"),
    ],
)  # fmt: skip
def test_errors_are_one_sentence(here, capsys, arguments, code, said):
    Path("flipped.yaml").write_text("no: report\n")
    assert diagnose(*arguments) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_quiet_prints_the_verdict_alone(here, capsys):
    assert diagnose("--run", "results/slow", "--quiet") == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and out.startswith("Primary issue: ") and err == ""
