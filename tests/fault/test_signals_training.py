"""Asked to stop, a training saves within a step and ends with the documented code, whatever it is doing just then."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.kill.cases import write_images
from benchmarks.kill.killing import running_in_sessions
from benchmarks.kill.same_end import differences
from tests.interruptions import Outcome, prepared_trainer, recorded
from tests.training_runs import ROOT, STOPPABLE, Run, wait_until, write_config

COMMAND = ("--config", "config.yaml", "--output-dir", "run", "--quiet")
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 143}
CHANGES = {
    "model__hidden_dims": [8],
    "training__batch_size": 32,
    "checkpointing__checkpoint_every_n_steps": 3,
    "logging__tensorboard": True,
    "logging__log_every_n_steps": 1,
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A run that nobody stopped, and the changes that a recorded one made."""
    folder = tmp_path_factory.mktemp("signals")
    assert start(new_workplace(folder, "whole")).exit_code == 0
    (folder / "states").mkdir()
    outcome = start(new_workplace(folder, "recorded"), kind="record", into=folder / "states")
    assert outcome.exit_code == 0, outcome.said
    return folder


def new_workplace(scene: Path, name: str) -> Path:
    workplace = scene / name
    workplace.mkdir()
    write_config(workplace / "config.yaml", **CHANGES)
    return workplace


def start(workplace: Path, **plan) -> Outcome:
    return prepared_trainer().train(workplace, *COMMAND, **plan)


def is_finished(run: Path) -> bool:
    return (run / "metrics.json").exists() and Run(run).metrics["run"]["status"] == "completed"


@pytest.mark.parametrize("name", CODES)
def test_a_signal_at_any_write(name, scene):
    """In the middle of a checkpoint, of metrics.json, of the report, of a line in the log."""
    total = len(list(recorded(scene / "states")))
    for at in random.Random(name).sample(range(1, total + 1), 10):
        workplace = new_workplace(scene, f"{name}{at}")
        run = workplace / "run"
        outcome = start(workplace, kind="signal", at=at, signal=name)
        assert outcome.exit_code == CODES[name], f"at {at}: {outcome}"
        assert outcome.said.count("\n") == 1 and "Traceback" not in outcome.said, f"at {at}: {outcome.said}"
        assert f"stopped by {name}; run the same command again to go on" in outcome.said
        if not is_finished(run):
            assert_all_steps_saved(run)
            assert start(workplace).exit_code == 0
        assert differences(run, scene / "whole/run") == [], f"at {at}"


def assert_all_steps_saved(run: Path) -> None:
    """No step that was taken is lost: the newest checkpoint is at the step that the log tells last."""
    log = Run(run).log if (run / "training.log").exists() else []
    steps = [line.split()[1] for line in log if line.startswith("Step:")]
    if steps:
        position = Run(run).checkpoint()["progress"]
        assert position["batch"] in (0, int(steps[-1])), steps
        assert (run / "step_trace.bin").stat().st_size == 16 * position["step"]


# Real processes


def launch(workplace: Path, **variables: str) -> subprocess.Popen:
    """The training in a process group of its own; what it and its workers say goes to ``said``."""
    command = [sys.executable, ROOT / "training_orchestrator.py", *COMMAND]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    with (workplace / "said").open("wb") as said:
        return subprocess.Popen(
            command, cwd=workplace, env=environment, stdout=said, stderr=said, start_new_session=True
        )


def said(workplace: Path) -> str:
    return (workplace / "said").read_text(encoding="utf-8", errors="replace")


def log_of(workplace: Path) -> str:
    log = workplace / "run/training.log"
    return log.read_text(encoding="utf-8") if log.exists() else ""


def ended(process: subprocess.Popen) -> int:
    """The exit code, once the process and all that it started have ended."""
    code = process.wait(120)
    wait_until(lambda: not running_in_sessions([process.pid]), "the end of all processes of the training")
    return code


@pytest.mark.parametrize("library", ["libtorch_python", "_multiarray_umath", "libtorch_cpu"])
def test_a_signal_while_libraries_are_loaded(library, scene):
    rng = random.Random(library)
    workplace = new_workplace(scene, library)
    process = launch(workplace)
    maps = Path(f"/proc/{process.pid}/maps")
    wait_until(lambda: process.poll() is not None or library in maps.read_text(), library)
    time.sleep(rng.uniform(0.0, 0.5))  # any moment will do
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 143, said(workplace)
    assert "Traceback" not in said(workplace) and "stopped by SIGTERM" in said(workplace)
    assert start(workplace).exit_code == 0
    assert differences(workplace / "run", scene / "whole/run") == []


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """What to change to train on images that two processes load; and such a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("streamed")
    images = write_images(folder / "data", train=12, val=6)
    changes = {
        "data__source": "image_folder", "data__root": str(images), "data__cache": "none", "data__num_workers": 2,
        "training__epochs": 3, "training__batch_size": 4, "model__hidden_dims": [8], "logging__log_every_n_steps": 1,
    }  # fmt: skip
    (folder / "whole").mkdir()
    write_config(folder / "whole/config.yaml", **changes)
    assert ended(launch(folder / "whole")) == 0
    return changes, folder / "whole/run"


@pytest.mark.parametrize(("name", "moment"), [("SIGINT", "[EPOCH 1/3]"), ("SIGTERM", "[EPOCH 2/3]")])
def test_a_signal_to_all_processes_of_a_training_with_workers(name, moment, streamed, tmp_path):
    """As Ctrl-C in a terminal does, or a batch scheduler."""
    changes, whole = streamed
    write_config(tmp_path / "config.yaml", **changes)
    process = launch(tmp_path)
    wait_until(lambda: process.poll() is not None or "Step: 3 " in log_of(tmp_path).partition(moment)[2], moment)
    os.killpg(process.pid, getattr(signal, name))
    assert ended(process) == CODES[name], said(tmp_path)
    assert said(tmp_path).count("\n") == 1, said(tmp_path)
    assert Run(tmp_path / "run").metrics["run"]["status"] == "interrupted"
    assert_all_steps_saved(tmp_path / "run")
    assert ended(launch(tmp_path)) == 0, said(tmp_path)
    assert differences(tmp_path / "run", whole) == []


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    """The training stands still in its first step, so the first one cannot be heeded."""
    write_config(tmp_path / "config.yaml", model__architecture=STOPPABLE, model__hidden_dims=None)
    process = launch(tmp_path, TEST_STOP_AT=f"train:1:{tmp_path / 'never'}")
    wait_until(lambda: process.poll() is not None or "[EPOCH 1/2]" in log_of(tmp_path), "the first epoch")
    process.send_signal(signal.SIGINT)
    # Two that come before Python looks count as one, and whether it has looked cannot be seen from here.
    for _ in range(10):
        time.sleep(1.0)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGINT)
    assert ended(process) == 130
    assert "Traceback" not in said(tmp_path)
    assert Run(tmp_path / "run").metrics["run"]["status"] == "running"
    assert prepared_trainer().train(tmp_path, *COMMAND).exit_code == 0
