"""When a training saves, and that waiting with it changes nothing but that."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from common.checkpoints import CheckpointStore, snapshot, to_bytes
from common.config import load_config
from common.console import Console
from common.engine.progress import Progress
from common.engine.recorder import MutedRecorder, RunRecorder
from common.engine.run import train as run_training
from common.engine.session import RunRequest
from common.engine.state import TrainingState
from common.engine.training_step import NonFiniteError
from common.exits import EnvironmentLackError, RunFailedError
from common.late import LateMapping
from common.signals import StopSignals
from common.tensorboard_log import TensorBoardLog
from tests.training_runs import WAITING, Run, assert_same, train, without_times, write_config

# All validation samples are right before the last epoch is over.
CHANGES = {
    "model__hidden_dims": [8],
    "training__epochs": 6,
    "optimizer__learning_rate": 0.3,
    "checkpointing__checkpoint_every_n_epochs": None,
    "checkpointing__monitor": "val_acc",
}


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def epochs_saved(run) -> list[int]:
    """The epochs under which the log says that something was saved."""
    saved, epoch = [], 0
    for line in run.log:
        if line.startswith("[EPOCH"):
            epoch = int(line.split()[1].split("/")[0])
        if line.startswith("Checkpoint: saved"):
            saved.append(epoch)
    return saved


def test_epochs_that_follow_quickly_are_saved_with_a_later_one():
    every, seldom = train("every", **CHANGES), train("seldom", **CHANGES, **WAITING)
    assert epochs_saved(every) == [1, 2, 3, 4, 5, 6] and epochs_saved(seldom) == [6]
    best = seldom.metrics["best"]["epoch"]
    assert 1 < best < 6, "the best epoch is written later than it was trained"
    assert seldom.checkpoint_names == every.checkpoint_names == {"best_model.pt", "last_model.pt"}
    for name in every.checkpoint_names:
        one, other = (run.checkpoint_without_times(name) for run in (every, seldom))
        del one["config"]["checkpointing"], other["config"]["checkpointing"]
        assert_same(other, one, name)
    assert seldom.checkpoint("best_model.pt")["epoch"] == best
    assert_same(without_times(seldom.metrics), without_times(every.metrics))


def test_a_periodic_checkpoint_takes_what_waits_with_it():
    run = train("run", **{**CHANGES, **WAITING, "checkpointing__checkpoint_every_n_epochs": 2})
    assert epochs_saved(run) == [2, 4, 6]


def test_not_too_many_epochs_wait(monkeypatch):
    monkeypatch.setattr("common.engine.saver.MOST_WAITING_EPOCHS", 4)
    assert epochs_saved(train("run", **CHANGES, **WAITING)) == [4, 6]


@pytest.mark.parametrize(("changes", "published"), [({}, [0, 1, 2, 3, 4, 5]), (WAITING, [0, 0, 0, 0, 0, 0])])
def test_metrics_and_event_files_come_with_the_checkpoints(changes, published):
    """What a program sees of a run is what the run would go on from."""
    loaded = load_config(write_config(**CHANGES, **changes, logging__tensorboard=True))
    in_metrics, in_events = [], []

    def look(_) -> bool:
        in_metrics.append(len(Run(Path("run")).metrics["epochs"]))
        in_events.append(num_epochs_in_events(Path("run/tensorboard")))
        return False

    with StopSignals() as stop:
        request = RunRequest(loaded, "baseline", Path("run"), ["test"], publish=False, give_up=look)
        metrics = run_training(request, Console(quiet=True), stop)
    assert in_metrics == in_events == published
    assert num_epochs_in_events(Path("run/tensorboard")) == len(metrics["epochs"]) == 6
    assert all(type(epoch["health"]) is dict for epoch in metrics["epochs"])


@pytest.mark.parametrize("most_bytes", [0, 1 << 30])
def test_signals_wait_only_where_that_takes_little_memory(most_bytes, monkeypatch):
    monkeypatch.setattr("common.engine.epoch_record._MOST_WAITING_BYTES", most_bytes)
    are_worked_out = []

    def look(history) -> bool:
        are_worked_out.extend(record["health"]._values._work is None for record in history[-1:])
        return False

    request = RunRequest(
        load_config(write_config(**CHANGES, **WAITING)), "baseline", Path("run"), ["test"], publish=False, give_up=look
    )
    with StopSignals() as stop:
        run_training(request, Console(quiet=True), stop)
    assert are_worked_out == [most_bytes == 0] * 5


def test_a_process_that_writes_nothing_keeps_no_signals():
    """Nobody would ask for them there, and they hold on to what they are worked out from."""
    progress = Progress(history=[{"health": LateMapping(dict)}])
    MutedRecorder().epoch_closed(progress)
    assert progress.history == [{"health": {}}]


def test_event_files_never_fall_behind_the_checkpoints(monkeypatch):
    """Whatever instant a run dies at: what it goes on from is in them, or will be."""
    loaded = load_config(write_config(**CHANGES, **WAITING, logging__tensorboard=True))
    request = RunRequest(loaded, "baseline", Path("run"), ["test"], publish=False)
    saved_before = CheckpointStore.save

    def dying(store, names, content, *, epoch, step):
        saved_before(store, names, content, epoch=epoch, step=step)
        if epoch == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, StopSignals() as stop, pytest.raises(KeyboardInterrupt):
        patched.setattr(CheckpointStore, "save", dying)
        run_training(request, Console(quiet=True), stop)
    with StopSignals() as stop:
        run_training(request, Console(quiet=True), stop)
    events = EventAccumulator("run/tensorboard")
    events.Reload()
    assert [event.step for event in events.Scalars("loss/train")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("fails_in_events", [True, False])
def test_files_that_cannot_be_written_end_a_run_that_goes_on_later(fails_in_events, monkeypatch):
    loaded = load_config(write_config(**CHANGES, logging__tensorboard=True))
    request = RunRequest(loaded, "baseline", Path("run"), ["test"], publish=False)
    whole = train("whole", **CHANGES)
    owner, name = (TensorBoardLog, "add_epochs") if fails_in_events else (RunRecorder, "write_metrics")
    working, calls = getattr(owner, name), []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return working(*args, **kwargs)

    with monkeypatch.context() as patched, StopSignals() as stop:
        patched.setattr(owner, name, failing)
        with pytest.raises(EnvironmentLackError, match="No space left"):
            run_training(request, Console(quiet=True), stop)
    with StopSignals() as stop:
        metrics = run_training(request, Console(quiet=True), stop)
    epochs = [{key: value for key, value in record.items() if key != "data_time_s"} for record in metrics["epochs"]]
    assert [record["weights_sha256"] for record in epochs] == [
        record["weights_sha256"] for record in whole.metrics["epochs"]
    ]
    events = EventAccumulator("run/tensorboard")
    events.Reload()
    assert [event.step for event in events.Scalars("loss/train")] == [1, 2, 3, 4, 5, 6]


def test_an_epoch_that_ends_in_a_state_that_is_not_finite_is_in_no_file(monkeypatch):
    """Not even where epochs before it wait to be written."""
    loaded = load_config(write_config(**CHANGES, **WAITING, diagnostics__nan_loss={"reaction": "off"}))
    request = RunRequest(loaded, "baseline", Path("run"), ["test"], publish=False)
    sound, checks = TrainingState.require_finite, []

    def failing(state):
        checks.append(1)
        if len(checks) == 5:  # the start, and the ends of four epochs
            raise NonFiniteError("a weight", math.nan, torch.empty(0, dtype=torch.int64))
        sound(state)

    monkeypatch.setattr(TrainingState, "require_finite", failing)
    with StopSignals() as stop, pytest.raises(RunFailedError):
        run_training(request, Console(quiet=True), stop)
    run = Run(Path("run"))
    assert len(run.metrics["epochs"]) == run.checkpoint()["epoch"] == 3


def num_epochs_in_events(folder: Path) -> int:
    (path,) = folder.iterdir()
    return sum(event.HasField("summary") for event in LegacyEventFileLoader(str(path)).Load())


def test_so_does_a_training_that_is_cut_short():
    loaded = load_config(write_config(**CHANGES, **WAITING))
    with StopSignals() as stop:
        request = RunRequest(loaded, "baseline", Path("run"), ["test"], publish=False, stop_after_epochs=3)
        run_training(request, Console(quiet=True), stop)
    assert Run(Path("run")).checkpoint()["epoch"] == 3


def test_a_snapshot_keeps_types_and_bytes_and_shares_nothing():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).to(memory_format=torch.channels_last)
    state = {"model": model.state_dict(), "list": [torch.arange(3), (1.5, None)], "text": "x"}
    copied, before = snapshot(state), to_bytes(state)
    assert to_bytes(copied) == before
    assert copied["model"]._metadata == state["model"]._metadata
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    state["list"][0].add_(1)
    assert to_bytes(copied) == before != to_bytes(state)
