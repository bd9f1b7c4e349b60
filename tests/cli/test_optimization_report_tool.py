"""optimization_report_tool.py as its users see it: the documented command, moved folders, runs that went wrong."""

from __future__ import annotations

import json
import re
import shutil

import pytest

import optimization_report_tool
from tests.comparison_runs import ROOT, epoch, write_run, write_seeds
from tests.training_runs import train

SECTIONS = ["Configuration Changes", "Performance Comparison: at the best epoch",
            "Performance Comparison: at the final epoch", "Significance", "Training Profile", "Learning Curves",
            "Analysis", "Reproducibility", "Checkpoints", "Decision", "Runs"]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    return optimization_report_tool.main([str(argument) for argument in arguments])


def test_the_documented_command_on_real_trainings(here, capsys):
    train("results/baseline", target__val_acc=20)
    train("results/optimization", "--mode", "optimization", "--epochs", 2, model__dropout=0.3, target__val_acc=20)
    code = call("--baseline", "results/baseline/", "--optimized", "results/optimization/",
                "--output", "optimization_results.md")  # fmt: skip
    assert code == 0
    # The training left a link of that name, which the report takes the place of; what it led to stays as it was.
    assert not (here / "optimization_results.md").is_symlink()
    assert (
        (here / "results/optimization/optimization_results.md").read_text().startswith("# Optimization results: wine")
    )
    text = (here / "optimization_results.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert re.search(r"\| model\.dropout +\| 0\.1 +\| 0\.3 +\| as in overfitting\.md, dropout", text)
    assert "](optimization_results.png)" in text and (here / "optimization_results.png").is_file()
    assert re.search(r"results/optimization/checkpoints/best_model\.pt \| \d", text)
    assert "Phase 5 with the optimized configuration" in capsys.readouterr().out


def test_folders_may_be_moved(here):
    train("first/one", training__epochs=1)
    train("first/two", training__epochs=2)
    shutil.move(here / "first", here / "elsewhere")
    assert call("--baseline", "elsewhere/one", "--optimized", "elsewhere/two", "--quiet") == 0
    text = (here / "optimization_results.md").read_text()
    assert "elsewhere/two/checkpoints/best_model.pt" in text and "first/two" not in text
    assert "n/a (CPU run)" in text


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_runs_that_did_not_end_well(here, capsys, status):
    write_run(here / "a")
    write_run(here / "b", status=status, mode="optimization")
    assert call("--baseline", "a", "--optimized", "b") == 0
    assert "after 3 epochs; what it has is shown" in capsys.readouterr().out
    text = (here / "optimization_results.md").read_text()
    assert text.splitlines()[2] == "To be known first:"
    assert "**Finish the training first.**" in text


def test_runs_that_came_to_nothing(here):
    write_run(here / "a", status="failed", epochs=[])
    write_run(here / "b", status="failed", epochs=[epoch(1, 10.0, val_loss=None) | {"val_acc": None}])
    assert call("--baseline", "a", "--optimized", "b", "--quiet") == 0
    text = (here / "optimization_results.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert "Nothing to test" in text and "**Not enough evidence**" in text
    write_run(here / "c", status="failed", epochs=[])
    assert call("--baseline", "a", "--optimized", "c", "--quiet") == 0
    assert "No run has an epoch to draw." in (here / "optimization_results.md").read_text()


def test_bare_metrics_are_enough(here):
    for name, count in (("a", 180), ("b", 190)):
        folder = write_run(here / name, num_right=count)
        for path in folder.iterdir():
            if path.name != "metrics.json":
                path.unlink()
    assert call("--baseline", "a", "--optimized", "b", "--quiet") == 0
    text = (here / "optimization_results.md").read_text()
    assert "Unknown: config.yaml is missing beside a/metrics.json" in text
    assert "Exactness: unknown" in text


def test_seeds_and_json(here, capsys):
    write_seeds(here / "a", [180, 182, 181])
    write_seeds(here / "b", [190, 191, 192], mode="optimization", overrides=["model.dropout=0.3"])
    assert call("--baseline", "a", "--optimized", "b", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "better"
    assert document["decision"]["action"] == "Phase 5 with the optimized configuration"
    assert [change["key"] for change in document["changes"]] == ["model.dropout"]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("docs", "docs: --optimized: is not a run folder: it holds neither metrics.json nor seed_* runs"),
        ("nothing", "nothing: there is no such file"),
        ("docs/text.md", "docs/text.md: is not valid JSON"),
    ],
)
def test_what_is_no_run_folder_is_refused(here, capsys, folder, message):
    write_run(here / "a")
    (here / "docs").mkdir()
    (here / "docs/text.md").write_text("# Text")
    assert call("--baseline", "a", "--optimized", folder) == 3
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (here / "optimization_results.md").exists()


def test_the_phase_script_is_the_documented_pattern():
    script = (ROOT / "phases/04_optimization/run.sh").read_text()
    commands = re.sub(r"\\\n\s*", "", script)
    for command in (
        'python config_validator.py --config "$config"',
        'python training_orchestrator.py --config "$config" --mode optimization --output-dir results/optimization/',
        "python compare_results.py --baseline results/baseline/metrics.json "
        "--optimized results/optimization/metrics.json --output comparison.md",
        "python optimization_report_tool.py --baseline results/baseline/ --optimized results/optimization/ "
        "--output optimization_results.md",
    ):
        assert command in commands
