"""The documentation's commands, exactly as a user types them, in a copy of the project."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from common.config.sections import SOURCES_THAT_NEED_A_ROOT
from tests.project_copy import ROOT, copy_project, shell

EXAMPLES = sorted((ROOT / "configs/examples").glob("*.yaml"))
READY = [path for path in EXAMPLES
         if yaml.safe_load(path.read_text())["data"]["source"] not in SOURCES_THAT_NEED_A_ROOT]  # fmt: skip

BASELINE = """
# 1. Validate config
python config_validator.py --config configs/training_config.yaml

# 2. Run baseline training
python training_orchestrator.py \\
  --config configs/training_config.yaml \\
  --mode baseline \\
  --output-dir results/baseline/

# 3. Inspect best checkpoint
python checkpoint_inspector.py --checkpoint checkpoints/baseline/best_model.pt
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def names_before(project):
    """What lies in the copy before any command is typed."""
    return {path.name for path in project.iterdir()}


@pytest.fixture(scope="module")
def baseline(project, names_before):
    """The baseline pattern of the documentation, run once."""
    return shell(project, BASELINE)


def test_the_baseline_pattern_runs(baseline):
    assert baseline.returncode == 0, baseline.stderr
    assert "Traceback" not in baseline.stderr
    assert "✓ Config valid" in baseline.stdout


def test_the_inspector_shows_the_documented_block(baseline):
    expected = [
        r"Checkpoint: checkpoints/baseline/best_model\.pt",
        r"Epoch: \d+",
        r"Val Loss: \d+\.\d{3}",
        r"Val Acc: \d+\.\d%",
        r"Model params: [\d,]+",
        r"Optimizer state: present",
        r"Loadable: ✓",
    ]
    lines = baseline.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("Checkpoint:"))
    for pattern, line in zip(expected, lines[start:], strict=False):
        assert re.fullmatch(pattern, line), line


def test_the_documented_outputs_are_where_the_documentation_says(project, baseline):
    for path in ("logs/training.log", "logs/metrics.json", "checkpoints/baseline/best_model.pt", "baseline_results.md",
                 "results/baseline/metrics.json"):  # fmt: skip
        assert (project / path).is_file(), path
    metrics = json.loads((project / "logs/metrics.json").read_text())
    assert metrics["run"]["status"] in ("completed", "early_stopped")
    assert metrics["best"]["val_acc"] > 95, "the shipped config learns the digits"


def test_the_log_answers_the_greps_of_the_documentation(project, baseline):
    for tag in ("CONFIG", "REPRODUCIBILITY", "DATA", "MODEL", "OPTIMIZER", "SCHEDULER", "EPOCH"):
        assert shell(project, f"grep -F '[{tag}' logs/training.log").returncode == 0
    assert shell(project, "grep -c 'Val Acc:' logs/training.log").stdout.strip().isdigit()


def test_the_next_command_works_as_it_stands(project, baseline):
    command = next(line for line in baseline.stderr.splitlines() if line.startswith("Next: "))[len("Next: ") :]
    done = shell(project, command)
    assert done.returncode == 0 and "Loadable: ✓" in done.stdout


def test_the_config_that_a_run_leaves_is_valid(project, baseline):
    assert shell(project, "python config_validator.py --config results/baseline/config.yaml").returncode == 0


def test_only_documented_places_are_written_to(project, names_before, baseline):
    new = {path.name for path in project.iterdir()} - names_before
    assert new == {"results", "logs", "checkpoints", "data", "baseline_results.md"}


def test_there_are_examples_that_need_no_data():
    assert len(READY) >= 2


@pytest.mark.parametrize("path", READY, ids=[path.stem for path in READY])
def test_the_examples_run_dry(path, tmp_path, monkeypatch, capsys):
    """In this process, to save the seconds of importing torch; from a folder in which nothing may remain."""
    from tests.training_runs import orchestrate

    monkeypatch.chdir(tmp_path)
    assert orchestrate("--config", path, "--dry-run") == 0
    assert "Dry run: nothing was written" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_process_has_the_exit_code_of_the_error(project):
    done = shell(project, "python training_orchestrator.py --config configs/no_such.yaml --json || echo code $?")
    assert done.stdout.splitlines()[-1] == "code 3" and "configs/no_such.yaml" in done.stderr
    assert json.loads("\n".join(done.stdout.splitlines()[:-1]))["error"]["exit_code"] == 3
