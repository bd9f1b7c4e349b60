"""When a training saves, and that waiting with it changes nothing but that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from common.checkpoints import snapshot, to_bytes
from common.config import load_config
from common.console import Console
from common.engine.run import train as run_training
from common.engine.session import RunRequest
from common.signals import StopSignals
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
