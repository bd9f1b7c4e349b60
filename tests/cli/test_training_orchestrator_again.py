"""The same command again: going on to the same end wherever a run was stopped, and losing nothing that was there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.run_folder import RunFolder, RunLock
from tests.training_runs import (
    ROOT,
    STOPPABLE,
    Run,
    assert_same,
    flip_byte,
    orchestrate,
    train,
    tree,
    wait_until,
    without_times,
)

# Everything that has a state: dropout, batch norm, augmentation, an average, a schedule, several batches a step.
EVENTFUL = {
    "model__architecture": STOPPABLE,
    "model__hidden_dims": None,
    "model__dropout": 0.3,
    "training__epochs": 4,
    "training__ema": 0.9,
    "training__accumulate": 2,
    "lr_scheduler__type": "cosine",
    "lr_scheduler__warmup_epochs": 0.5,
    "data_augmentation__enabled": True,
    "data_augmentation__transforms": ["random_crop", "mixup"],
    "checkpointing__checkpoint_every_n_epochs": 1,
    "logging__tensorboard": True,
    "data__source": "digits",
}
FORWARDS_PER_EPOCH = 20  # 1,257 samples in batches of 64, two of them in a step


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody stopped, and the digits as files that all runs here share."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return train(**EVENTFUL, data__root=str(folder / "data"))


@pytest.fixture
def eventful(whole, tmp_path, monkeypatch):
    """The changes of the whole run, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return {**EVENTFUL, "data__root": str(whole.path.parent / "data")}


@pytest.fixture
def stopping(monkeypatch):
    """Train with the signal coming at a given forward pass of the process; see ``StoppableMlp``."""

    def stop_at(where: str, expect: int, changes: dict, *arguments: str) -> Run:
        with monkeypatch.context() as patch:
            patch.setenv("TEST_STOP_AT", where)
            return train("run", *arguments, expect=expect, **changes)

    return stop_at


def assert_same_end(run: Run, whole: Run) -> None:
    assert run.weight_hashes() == whole.weight_hashes()
    assert_same(without_times(run.metrics), without_times(whole.metrics))
    assert run.checkpoint_names == whole.checkpoint_names
    for name in whole.checkpoint_names:
        assert_same(run.checkpoint_without_times(name), whole.checkpoint_without_times(name))
    assert (run.path / "step_trace.bin").read_bytes() == (whole.path / "step_trace.bin").read_bytes()
    assert {k: v.tobytes() for k, v in run.predictions().items()} == {
        k: v.tobytes() for k, v in whole.predictions().items()
    }


@pytest.mark.parametrize(
    "stops",
    [
        [("train:1:SIGTERM", 143)],
        [("train:27:SIGINT", 130)],
        [(f"train:{2 * FORWARDS_PER_EPOCH}:SIGTERM", 143)],  # the last step of an epoch
        [("eval:1:SIGUSR1", 143)],  # the training's accuracy is being measured, with averaged weights
        [(f"train:{4 * FORWARDS_PER_EPOCH}:SIGTERM", 143)],  # all is trained; only the end is missing
        [("train:7:SIGTERM", 143), ("train:30:SIGINT", 130), ("eval:2:SIGTERM", 143)],
    ],
    ids=lambda stops: " ".join(where for where, _ in stops),
)
def test_a_stopped_run_ends_as_if_nothing_had_been(stops, stopping, eventful, whole, capsys):
    for where, code in stops:
        run = stopping(where, code, eventful)
        assert run.metrics["run"]["status"] in ("interrupted", "running")
        assert "run the same command again" in capsys.readouterr().err
    run = train(**eventful)
    assert_same_end(run, whole)
    assert any(line.startswith("Resuming at epoch") for line in run.log)
    assert not Path("run.1").exists()


def test_a_stop_says_so_in_the_metrics_and_the_log(stopping, eventful):
    run = stopping("train:27:SIGTERM", 143, eventful)
    assert run.metrics["run"]["status"] == "interrupted" and len(run.epochs) == 1
    assert any("Stopped in epoch 2" in line for line in run.log)
    checkpoint = run.checkpoint()
    assert (checkpoint["epoch"], checkpoint["progress"]["epoch"]) == (1, 2)
    assert checkpoint["step"] == 10 + checkpoint["progress"]["batch"] == 14


def test_resumed_epochs_are_not_twice_in_tensorboard(stopping, eventful):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stopping("train:50:SIGTERM", 143, eventful)
    run = train(**eventful)
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/val")] == [1, 2, 3, 4]


def test_a_process_stopped_from_outside_while_another_wants_its_folder(eventful, whole, tmp_path, capsys):
    go, log = tmp_path / "go", tmp_path / "run/training.log"
    train("other", **eventful)  # writes the config; and shows that the folder of another run is no obstacle
    command = [sys.executable, ROOT / "training_orchestrator.py", "--config", "other.yaml", "--output-dir", "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TEST_STOP_AT": f"train:30:{go}"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process.poll() is not None or (log.exists() and "[EPOCH 2/4]" in log.read_text()), "epoch 2")
        before = tree("run/checkpoints")
        assert orchestrate("--config", "other.yaml", "--output-dir", "run", "--quiet") == 2
        said = capsys.readouterr().err
        assert "another run is writing" in said and f"process {process.pid}" in said and said.count("\n") == 1
        assert tree("run/checkpoints") == before
        process.send_signal(signal.SIGINT)
        go.touch()
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert "Traceback" not in err and "run the same command again" in err
    assert orchestrate("--config", "other.yaml", "--output-dir", "run", "--quiet") == 0
    assert_same_end(Run(tmp_path / "run"), whole)


# Moved aside


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_finished_runs_are_moved_aside_one_after_the_other(workplace, capsys):
    first = train("run").metrics
    for expected in ("run.1", "run.2"):
        config = Path("run.yaml")
        assert orchestrate("--config", config, "--output-dir", "run/") == 0
        assert f"moved to {workplace / expected}" in capsys.readouterr().err
        assert any("moved to" in line and "finished" in line for line in Run(workplace / "run").log)
    documents = [Run(workplace / name).metrics for name in ("run", "run.1", "run.2")]
    assert documents[1] == first, "the first to be moved gets the first number"
    assert [without_times(d) for d in documents] == [without_times(first)] * 3
    assert os.readlink("logs/metrics.json") == "../run/metrics.json"


@pytest.mark.parametrize("change", [("--seed", "7"), ("--mode", "optimization"), ("--epochs", "3")])
def test_an_unfinished_run_of_another_config_is_moved_aside(change, workplace, stopping):
    changes = {"model__architecture": STOPPABLE, "model__hidden_dims": None}
    before = tree(stopping("train:2:SIGTERM", 143, changes).path)
    run = train("run", *change, **changes)
    assert run.metrics["run"]["status"] == "completed"
    moved = tree("run.1")
    assert {name: stamp for name, stamp in moved.items() if name != ".run.lock"} == {
        name: stamp for name, stamp in before.items() if name != ".run.lock"
    }


def test_what_changes_no_number_does_not_begin_a_new_run(workplace, stopping):
    """More workers, another target, other words: the same training, gone on with under what is asked for now."""
    changes = {"model__architecture": STOPPABLE, "model__hidden_dims": None}
    stopping("train:3:SIGTERM", 143, changes)
    run = train("run", **changes, data__num_workers=1, target__val_acc=1.0, experiment__notes="later")
    assert not Path("run.1").exists() and run.metrics["run"]["status"] == "completed"
    assert "Target met" in (run.path / "baseline_results.md").read_text()
    assert (run.config["experiment"]["notes"], run.config["target"]["val_acc"]) == ("later", 1.0)


# --resume


@pytest.mark.parametrize("there", ["nothing", "finished", "another"])
def test_insisting_on_a_resumption_that_is_impossible(there, workplace, stopping, capsys):
    changes = {"model__architecture": STOPPABLE, "model__hidden_dims": None}
    if there == "finished":
        train(**changes)
    elif there == "another":
        stopping("train:2:SIGTERM", 143, changes, "--seed", "7")
    before = {name: stamp for name, stamp in tree(".").items() if not name.endswith(".yaml")}
    capsys.readouterr()
    train("run", "--resume", expect=3, **changes)
    assert "--resume" in capsys.readouterr().err
    after = {name: stamp for name, stamp in tree(".").items() if not name.endswith(".yaml")}
    if there != "nothing":
        assert {n: s for n, s in after.items() if ".run.lock" not in n and n != "run"} == {
            n: s for n, s in before.items() if ".run.lock" not in n and n != "run"
        }


def test_a_failed_resumption_leaves_no_folder(workplace):
    train("run", "--resume", expect=3)
    assert not Path("run").exists()


def test_insisting_on_a_resumption_that_is_possible(workplace, stopping):
    changes = {"model__architecture": STOPPABLE, "model__hidden_dims": None}
    stopping("train:2:SIGTERM", 143, changes)
    assert train("run", "--resume", **changes).metrics["run"]["status"] == "completed"


def test_a_folder_in_use_is_refused_before_anything_in_it_changes(workplace, capsys):
    run = train()
    before = tree(run.path)
    lock = RunLock(RunFolder(run.path)).acquire()
    try:
        train("run", expect=2)
    finally:
        lock.release()
    assert str(os.getpid()) in capsys.readouterr().err
    after = tree(run.path)
    assert {n: s for n, s in after.items() if n != ".run.lock"} == {n: s for n, s in before.items() if n != ".run.lock"}


# Damage


def damaged(run: Run, names: list[str]) -> None:
    for name in names:
        flip_byte(run.path / "checkpoints" / name)


@pytest.mark.parametrize(
    "names",
    [
        ["last_model.pt"],
        ["best_model.pt"],
        ["last_model.pt", "best_model.pt"],
        ["last_model.pt", "best_model.pt", "checkpoint_epoch_1.pt", "checkpoint_epoch_2.pt"],
    ],
    ids=len,
)
def test_damaged_checkpoints_are_set_aside_and_the_run_ends_the_same(names, stopping, eventful, whole, capsys):
    run = stopping("train:50:SIGTERM", 143, eventful)
    damaged(run, names)
    assert orchestrate("--config", "run.yaml", "--output-dir", "run") == 0
    err = capsys.readouterr().err
    for name in names:
        assert (run.path / "checkpoints" / f"{name}.damaged").exists()
        assert any("warning" in line and f"{name}.damaged" in line for line in err.splitlines())
        assert f"{name}.damaged" in (run.path / "baseline_results.md").read_text()
    assert run.weight_hashes() == whole.weight_hashes()
    assert_same(without_times(run.metrics), without_times(whole.metrics))
    assert_same(run.checkpoint_without_times("best_model.pt"), whole.checkpoint_without_times("best_model.pt"))


NO_STATUS = b'{"schema_version": 1, "run": {}, "epochs": [], "events": []}'


@pytest.mark.parametrize("content", [b"", b"{", b"[]", NO_STATUS, b"\xff\xfe"])
def test_damaged_metrics_are_made_again_from_the_checkpoint(content, stopping, eventful, whole):
    run = stopping("train:50:SIGTERM", 143, eventful)
    (run.path / "metrics.json").write_bytes(content)
    (run.path / "checkpoints/manifest.json").write_bytes(content)
    train(**eventful)
    assert_same(without_times(run.metrics), without_times(whole.metrics))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"identity": 3}', b"\xff\xfe"])
def test_a_damaged_environment_costs_no_run(content, workplace, stopping):
    changes = {"model__architecture": STOPPABLE, "model__hidden_dims": None}
    run = stopping("train:3:SIGTERM", 143, changes)
    (run.path / "environment.json").write_bytes(content)
    train("run", **changes)
    kept = list(Path().glob("run*/checkpoints/last_model.pt"))
    assert kept and Run(workplace / "run").metrics["run"]["status"] == "completed"


def test_a_foreign_file_among_the_checkpoints_is_no_obstacle(stopping, eventful, whole):
    import torch

    run = stopping("train:50:SIGTERM", 143, eventful)
    with (run.path / "checkpoints/pretrained.pt").open("wb") as file:
        torch.save({"weight": torch.zeros(3)}, file)
    damaged(run, ["last_model.pt", "best_model.pt", "checkpoint_epoch_1.pt", "checkpoint_epoch_2.pt"])
    train(**eventful)
    assert run.weight_hashes() == whole.weight_hashes()
    assert (run.path / "checkpoints/pretrained.pt").exists()


def test_a_checkpoint_of_another_run_is_never_gone_on_with(workplace, stopping, capsys):
    """Not even a newer one of the same shape, copied in by hand."""
    changes = {"model__architecture": STOPPABLE, "model__hidden_dims": None}
    whole = train("whole", **changes)
    other = train("other", **changes, reproducibility__seed=7, training__epochs=5)
    run = stopping("train:3:SIGTERM", 143, changes)
    (other.path / "checkpoints/last_model.pt").rename(run.path / "checkpoints/better.pt")
    assert orchestrate("--config", "run.yaml", "--output-dir", "run") == 0
    assert "better.pt was left alone" in capsys.readouterr().err
    assert run.weight_hashes() == whole.weight_hashes()


def test_a_run_folder_that_is_a_link_is_moved_aside_too(workplace):
    Path("scratch").mkdir()
    Path("run").symlink_to("scratch")
    first = train("run").metrics
    train("run")
    assert Run(workplace / "run").metrics["run"]["status"] == "completed"
    moved = [path for path in (workplace / "run.1", workplace / "scratch.1") if path.exists()]
    assert [Run(path).metrics for path in moved] == [first]


def test_other_software_is_told(workplace, stopping, capsys):
    changes = {"model__architecture": STOPPABLE, "model__hidden_dims": None}
    run = stopping("train:3:SIGTERM", 143, changes)
    environment = json.loads((run.path / "environment.json").read_text())
    environment["packages"]["torch"] = "2.0.0"
    (run.path / "environment.json").write_text(json.dumps(environment))
    assert orchestrate("--config", "run.yaml", "--output-dir", "run") == 0
    assert "not exact: " in capsys.readouterr().err
    assert "torch: 2.0.0 then" in (run.path / "baseline_results.md").read_text()
