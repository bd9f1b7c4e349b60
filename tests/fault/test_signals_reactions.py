"""A run that gets into trouble and is interrupted too: it takes the same remedies, and comes to the same end."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kill.same_end import differences
from tests.interruptions import KILLED, Outcome, prepared_trainer, recorded
from tests.training_runs import WAITING, Run, write_config

COMMAND = ("--config", "config.yaml", "--output-dir", "run", "--quiet")
TROUBLES = {
    # The loss is infinite in the middle of the second epoch.
    "diverging": {"optimizer__type": "sgd", "optimizer__learning_rate": 100.0},
    # Nothing is learnt, so the rate is raised after an epoch.
    "stalling": {
        "optimizer__learning_rate": 1e-9,
        "diagnostics__convergence_stall": {"reaction": "act", "patience_epochs": 1, "loss_threshold": 0.5},
    },
}
# The same, while the epochs before have not been written yet.
TROUBLES |= {f"{name}, not saved": {**changes, **WAITING} for name, changes in TROUBLES.items()}
ACTIONS = {
    "diverging": [["replay_batch"], ["reduce_learning_rate_and_clip"]],
    "stalling": [["increase_learning_rate"]],
}


@pytest.fixture(scope="module", params=TROUBLES)
def scene(request, tmp_path_factory):
    """The name of the trouble, and a folder with a run that got into it undisturbed, and one that was recorded."""
    folder = tmp_path_factory.mktemp(request.param)
    assert start(new_workplace(folder, "whole", request.param)).exit_code == 0
    events = Run(folder / "whole/run").metrics["events"]
    assert [event["actions"] for event in events] == ACTIONS[request.param.split(",")[0]]
    (folder / "states").mkdir()
    recording = start(new_workplace(folder, "recorded", request.param), kind="record", into=folder / "states")
    assert recording.exit_code == 0
    return request.param, folder


def new_workplace(folder: Path, name: str, trouble: str) -> Path:
    workplace = folder / name
    workplace.mkdir()
    changes = {"training__batch_size": 16, "training__epochs": 3, "logging__log_every_n_steps": 1}
    write_config(workplace / "config.yaml", **changes, **TROUBLES[trouble])
    return workplace


def start(workplace: Path, **plan) -> Outcome:
    return prepared_trainer().train(workplace, *COMMAND, **plan)


@pytest.mark.parametrize(
    ("exit_code", "plan"),
    [(143, {"kind": "signal", "signal": "SIGTERM"}), (KILLED, {"kind": "die"})],
    ids=["stopped", "killed"],
)
def test_an_interruption_changes_no_remedy(exit_code, plan, scene):
    """In steps before the trouble, in it, and after it."""
    trouble, folder = scene
    changes = [what for _, what in recorded(folder / "states")]
    first = changes.index("mkdir logs")
    places = [number for number, what in enumerate(changes, 1) if number > first and what == "write run/training.log"]
    for at in places[:: len(places) // 10]:
        workplace = new_workplace(folder, f"{plan['kind']}{at}", trouble)
        assert start(workplace, at=at, **plan).exit_code == exit_code
        outcome = start(workplace)
        assert outcome.exit_code == 0, outcome.said
        assert differences(workplace / "run", folder / "whole/run") == [], at
