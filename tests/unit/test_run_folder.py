from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.exits import EnvironmentLackError, UsageError
from common.run_folder import STALE_LOCK_S, RunFolder, RunLock, move_aside, open_folder, publish_links

ROOT = Path(__file__).resolve().parents[2]


def test_a_new_folder_is_made_and_an_empty_one_taken(tmp_path):
    assert open_folder(tmp_path / "a/b").path.is_dir()
    assert open_folder(tmp_path / "a/b").path.is_dir()


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="not a run's"):
        open_folder(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        open_folder(tmp_path / "file")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((UsageError, EnvironmentLackError)):
        open_folder(tmp_path / "file/below")


def test_a_second_process_is_refused_by_name(tmp_path):
    folder = open_folder(tmp_path / "run")
    lock = RunLock(folder).acquire()
    code = (
        "from common.run_folder import *\n"
        f"try: RunLock(RunFolder(Path({str(folder.path)!r}))).acquire()\n"
        "except UsageError as error: print(error)"
    )
    run = [sys.executable, "-c", code]
    said = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
    assert "another run is writing" in said and f"process {os.getpid()}" in said
    lock.release()
    assert subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout == ""


def test_a_lock_left_by_a_killed_process_is_no_obstacle(tmp_path):
    folder = open_folder(tmp_path / "run")
    code = (
        "from common.run_folder import *; import os, signal\n"
        f"RunLock(RunFolder(Path({str(folder.path)!r}))).acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60)
    assert json.loads(folder.lock.read_text())["pid"] != os.getpid()
    RunLock(folder).acquire().release()


@pytest.mark.parametrize(("age_s", "refused"), [(1.0, True), (STALE_LOCK_S + 60, False)])
def test_another_machines_lock_counts_while_it_is_renewed(tmp_path, age_s, refused):
    folder = open_folder(tmp_path / "run")
    folder.lock.write_text(json.dumps({"host": "elsewhere", "pid": 7}))
    then = time.time() - age_s
    os.utime(folder.lock, (then, then))
    if refused:
        with pytest.raises(UsageError, match="process 7 on elsewhere"):
            RunLock(folder).acquire()
    else:
        RunLock(folder).acquire().release()


@pytest.mark.parametrize("content", [b"{torn", b"[]", b"\xff"])
def test_a_damaged_lock_file_is_no_obstacle(tmp_path, content):
    folder = open_folder(tmp_path / "run")
    folder.lock.write_bytes(content)
    RunLock(folder).acquire().release()


def test_moving_aside_takes_the_first_free_number(tmp_path):
    for expected in ("run.1", "run.2"):
        folder = open_folder(tmp_path / "run")
        folder.metrics.write_text(expected)
        assert move_aside(folder) == tmp_path / expected
        assert (tmp_path / expected / "metrics.json").read_text() == expected
    assert not (tmp_path / "run").exists()


def test_links_lead_to_the_newest_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        folder = open_folder(Path("results") / name)
        folder.checkpoints.mkdir()
        folder.metrics.write_text(name)
        assert publish_links(folder, "baseline") == []
    assert Path("logs/metrics.json").read_text() == "second"
    assert os.readlink("checkpoints/baseline") == "../results/second/checkpoints"
    assert os.readlink("baseline_results.md") == "results/second/baseline_results.md"


def test_real_files_in_the_place_of_links_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("logs").mkdir()
    Path("logs/metrics.json").write_text("mine")
    Path("checkpoints").write_text("a file where a folder should be")
    notices = publish_links(RunFolder(Path("results/run")), "baseline")
    assert Path("logs/metrics.json").read_text() == "mine"
    assert len(notices) == 2 and "logs/metrics.json" in notices[0] and "checkpoints" in notices[1]
