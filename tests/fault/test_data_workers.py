"""Loader workers: signals meant for the training, and a training that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from common.data import load_dataset

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 120

PROGRAM = """
import sys, time
import torch
from common.data import load_dataset, make_batches

def main():
    dataset = load_dataset("image_folder", root=sys.argv[1], cache="none")
    source = make_batches(dataset.splits["val"], "cpu", normalizer=dataset.normalizer(), num_workers=2,
                          persistent_workers=True)
    batches = list(torch.arange(270).split(10))
    stream = source.batches(batches)
    next(stream)
    print("ready", *[worker.pid for worker in source._workers], flush=True)
    sys.stdin.readline()
    # The source is not closed: the end of the program has to see to its workers.
    print("left", len(list(stream)), flush=True)

if __name__ == "__main__":
    main()
"""


def has_ended(pid):
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def started(tmp_path):
    load_dataset("digits", root=tmp_path / "data")
    (tmp_path / "program.py").write_text(PROGRAM)
    processes = []

    def start():
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "data")],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        word, *pids = process.stdout.readline().split()
        assert word == "ready" and len(pids) == 2, process.stderr.read()
        return process, [int(pid) for pid in pids]

    yield start
    for process in processes:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


def test_signals_to_workers_are_left_to_the_training(started):
    process, workers = started()
    for pid in workers:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    output, errors = process.communicate("go\n", timeout=DEADLINE_S)
    assert (output, errors, process.returncode) == ("left 26\n", "", 0)
    assert all(has_ended(pid) for pid in workers)


def test_workers_end_with_a_training_that_is_killed(started):
    process, workers = started()
    assert not any(has_ended(pid) for pid in workers)
    process.kill()
    process.wait()
    wait_until(lambda: all(has_ended(pid) for pid in workers))


def test_killed_worker_is_one_plain_sentence(tmp_path):
    import torch

    from common.data import make_batches
    from common.exits import RunFailedError

    load_dataset("digits", root=tmp_path / "data")
    dataset = load_dataset("image_folder", root=tmp_path / "data", cache="none")
    with make_batches(
        dataset.splits["val"], "cpu", normalizer=dataset.normalizer(), num_workers=1, persistent_workers=True
    ) as source:
        stream = source.batches(list(torch.arange(270).split(10)))
        next(stream)
        os.kill(source._workers[0].pid, signal.SIGKILL)
        with pytest.raises(RunFailedError, match=r"data\.num_workers: a process that loads data was killed"):
            list(stream)
