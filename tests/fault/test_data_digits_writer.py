"""The writer of the digits is killed, or has company."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from common.data import load_dataset

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 120
WRITE = "import sys; from common.data import load_dataset; print(load_dataset('digits', root=sys.argv[1]).notices)"


def start_writer(root):
    return subprocess.Popen(
        [sys.executable, "-c", WRITE, str(root)], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )


def test_a_killed_writer_leaves_no_half_written_folder(tmp_path):
    root = tmp_path / "data"
    writer = start_writer(root)
    deadline = time.monotonic() + DEADLINE_S
    while not list(tmp_path.rglob("*.png")):
        assert writer.poll() is None and time.monotonic() < deadline
    writer.kill()
    writer.communicate()
    # Either it was caught in the act, or it had just finished: in both cases the folder is whole or not there.
    assert not root.exists() or len(list(root.rglob("*.png"))) == 1797
    dataset = load_dataset("digits", root=root)
    assert len(list(root.rglob("*.png"))) == 1797
    assert load_dataset("image_folder", root=root).fingerprint == dataset.fingerprint


def test_what_a_killed_writer_left_is_removed_when_it_is_old(tmp_path):
    for name, age_s in ((".data.digits-old.tmp", 3600), (".data.digits-new.tmp", 0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    load_dataset("digits", root=tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".data.digits-new.tmp", "data"]


def test_writers_at_the_same_time_do_not_disturb_each_other(tmp_path):
    root = tmp_path / "data"
    writers = [start_writer(root) for _ in range(2)]
    outputs = [writer.communicate(timeout=DEADLINE_S)[0].decode() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sum("were written" in output for output in outputs) == 1
    assert sum(output.strip() == "[]" for output in outputs) == 1
    assert len(list(root.rglob("*.png"))) == 1797
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
