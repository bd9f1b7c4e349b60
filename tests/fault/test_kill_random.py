"""The benchmark of kills at random moments, in short; and what else a second process on a run's folder meets."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.kill.cases import CASES, write_images
from benchmarks.kill.kill import table
from benchmarks.kill.killing import PHASES, kill_runs
from tests.training_runs import ROOT, STOPPABLE, Run, wait_until, write_config


@pytest.mark.parametrize(("name", "kills"), [("wine", 3), ("streamed", 1)])
def test_killed_at_random_and_started_again(name, kills, tmp_path):
    images = write_images(tmp_path / "data", train=12, val=6)
    tally = kill_runs(CASES[name], kills, seed=3, folder=tmp_path / "runs", images=images)
    assert tally.problems == []
    assert tally.num_kills == kills and set(tally.kills) <= set(PHASES)
    assert tally.identical == tally.runs >= 1
    assert f"{tally.runs} of {tally.runs}" in table([tally])


def test_of_two_started_at_once_one_trains(tmp_path):
    write_config(tmp_path / "config.yaml", model__architecture=STOPPABLE, model__hidden_dims=None)
    command = [sys.executable, ROOT / "training_orchestrator.py", "--config", "config.yaml", "--output-dir", "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TEST_STOP_AT": f"train:1:{tmp_path / 'go'}"}
    processes = [subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
                 for _ in range(2)]  # fmt: skip
    # The one that holds the folder stands still in its first step, so the other one cannot come too late.
    wait_until(lambda: any(process.poll() is not None for process in processes), "one of the two to give up")
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=120)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 2], said
    refusal = said[codes.index(2)]
    assert refusal.count("\n") == 1 and "another run is writing to this folder" in refusal
    assert Run(tmp_path / "run").metrics["run"]["status"] == "completed"
