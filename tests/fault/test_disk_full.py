"""Real limits of the operating system: a file that may not grow, and a small file system that fills up."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.kill.same_end import differences
from tests.interruptions import prepared_trainer
from tests.training_runs import ROOT, STOPPABLE, Run, wait_until, write_config

COMMAND = ("--config", "config.yaml", "--output-dir", "run", "--quiet")
CHANGES = {"model__architecture": STOPPABLE, "model__hidden_dims": None, "training__batch_size": 32}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workplace = tmp_path_factory.mktemp("whole")
    write_config(workplace / "config.yaml", **CHANGES)
    outcome = prepared_trainer().train(workplace, *COMMAND)
    assert outcome.exit_code == 0, outcome.said
    return workplace / "run"


def size_of(whole: Path, name: str) -> int:
    return (whole / name).stat().st_size


@pytest.mark.parametrize("too_large", ["checkpoints/last_model.pt", "environment.json", "training.log"])
def test_a_file_that_may_not_grow(too_large, whole, tmp_path):
    """The system takes the first half of it and refuses the rest (EFBIG)."""
    write_config(tmp_path / "config.yaml", **CHANGES)
    limit = size_of(whole, too_large) // 2
    outcome = prepared_trainer().train(tmp_path, *COMMAND, kind="limit", size_bytes=limit)
    assert outcome.exit_code == 4, outcome.said
    assert outcome.said.count("\n") == 1 and "File too large" in outcome.said and "same command again" in outcome.said
    assert list((tmp_path / "run").rglob("*.tmp")) == []
    again = prepared_trainer().train(tmp_path, *COMMAND)
    assert again.exit_code == 0, again.said
    assert differences(tmp_path / "run", whole) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 48 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"a file system can only be mounted by root with the right to: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path, leave_bytes: int) -> None:
    with path.open("wb") as file:
        free = os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize
        file.write(bytes(max(free - leave_bytes, 0)))


def test_a_disk_that_fills_up_while_training(small_disk, whole, tmp_path):
    with waiting_in_epoch_2(small_disk, tmp_path / "go") as process:
        before = (small_disk / "run/checkpoints/last_model.pt").read_bytes()
        fill(small_disk / "filler", leave_bytes=8192)
        (tmp_path / "go").touch()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 4 and "No space left" in said and "Traceback" not in said, said
    assert (small_disk / "run/checkpoints/last_model.pt").read_bytes() == before
    (small_disk / "filler").unlink()
    assert prepared_trainer().train(small_disk, *COMMAND).exit_code == 0
    assert differences(small_disk / "run", whole) == []


@contextlib.contextmanager
def waiting_in_epoch_2(workplace: Path, go: Path, before_command: Sequence[str] = ()) -> Iterator[subprocess.Popen]:
    """A training in ``workplace`` that stands still in the middle of its second epoch until ``go`` exists."""
    write_config(workplace / "config.yaml", **CHANGES)
    log = workplace / "run/training.log"
    command = [*before_command, sys.executable, ROOT / "training_orchestrator.py", *COMMAND]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TEST_STOP_AT": f"train:6:{go}"}
    with subprocess.Popen(command, cwd=workplace, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: process.poll() is not None or (log.exists() and "[EPOCH 2/2]" in log.read_text()), "epoch 2")
        yield process


def test_too_little_space_is_told_at_the_start(small_disk):
    write_config(small_disk / "config.yaml", **CHANGES)
    fill(small_disk / "filler", leave_bytes=8_000_000)
    outcome = prepared_trainer().train(small_disk, *COMMAND)
    assert outcome.exit_code == 4 and "are free" in outcome.said and outcome.said.count("\n") == 1, outcome.said
    assert not (small_disk / "run/metrics.json").exists()
    (small_disk / "filler").unlink()
    assert prepared_trainer().train(small_disk, *COMMAND).exit_code == 0
    assert Run(small_disk / "run").metrics["run"]["status"] == "completed"


@pytest.mark.parametrize("place", ["run", "run/checkpoints"])
def test_permissions_lost_while_training(place, whole, as_anyone, tmp_path):
    with waiting_in_epoch_2(tmp_path, tmp_path / "go", as_anyone) as process:
        before = (tmp_path / "run/checkpoints/last_model.pt").read_bytes()
        (tmp_path / place).chmod(0o555)
        (tmp_path / "go").touch()
        _, said = process.communicate(timeout=120)
    (tmp_path / place).chmod(0o755)
    assert process.returncode == 4 and "Permission denied" in said and "Traceback" not in said, said
    if place == "run/checkpoints":
        assert (tmp_path / "run/checkpoints/last_model.pt").read_bytes() == before
    assert prepared_trainer().train(tmp_path, *COMMAND).exit_code == 0
    assert differences(tmp_path / "run", whole) == []


def test_a_folder_that_is_read_only(as_anyone, tmp_path):
    write_config(tmp_path / "config.yaml", **CHANGES)
    (tmp_path / "run").mkdir(mode=0o555)
    command = [*as_anyone, sys.executable, ROOT / "training_orchestrator.py", *COMMAND]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    (tmp_path / "run").chmod(0o755)
    assert done.returncode == 4 and "not writable" in done.stderr and done.stderr.count("\n") == 1, done.stderr
