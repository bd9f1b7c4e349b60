"""Wherever between two changes of the disk a run dies, the same command brings it to the same end.

A recorded run copies its working directory before every change that it makes: exactly what a process killed there would
leave, since what it has not handed to the operating system dies with it. From each of these states, half-written files
among them, a run is started as if nothing had happened. That a process that really dies leaves the recorded state, and
that runs outlive several deaths in a row, is tried at places drawn by lot.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from benchmarks.kill.same_end import differences
from tests.interruptions import KILLED, Outcome, content_of, prepared_trainer, recorded
from tests.training_runs import WAITING, write_config

COMMAND = ("--config", "config.yaml", "--output-dir", "run", "--quiet")
CHANGES = {
    "model__hidden_dims": [8],
    "training__batch_size": 32,
    "training__ema": 0.9,
    "lr_scheduler__type": "cosine",
    "checkpointing__keep_last_n": 1,
}
SAVING = {
    # Saves in the middle of an epoch, keeps one periodic checkpoint and so deletes the one before, and has a best one.
    "often": {"checkpointing__checkpoint_every_n_steps": 3, "checkpointing__checkpoint_every_n_epochs": 1},
    # The best epoch waits for a later one's periodic checkpoint, and is written with that one's last checkpoint.
    "seldom": {**WAITING, "training__epochs": 6, "optimizer__learning_rate": 1.0,
               "checkpointing__checkpoint_every_n_epochs": 3},
}  # fmt: skip
SHARDS = 4


@pytest.fixture(scope="module", params=SAVING)
def scene(request, tmp_path_factory):
    """A folder with a run that nobody disturbed, and the states that a recorded one went through."""
    folder = tmp_path_factory.mktemp(request.param)
    write_config(folder / "config.yaml", **CHANGES, **SAVING[request.param])
    assert start(new_workplace(folder, "whole")).exit_code == 0
    into = folder / "states"
    into.mkdir()
    outcome = prepared_trainer().train(new_workplace(folder, "recorded"), *COMMAND, kind="record", into=into)
    assert outcome.exit_code == 0, outcome.said
    return folder


def new_workplace(scene: Path, name: str) -> Path:
    workplace = scene / name
    workplace.mkdir()
    shutil.copy(scene / "config.yaml", workplace)
    return workplace


def start(workplace: Path, **plan) -> Outcome:
    return prepared_trainer().train(workplace, *COMMAND, **plan)


def distinct_states(scene: Path) -> list[tuple[Path, str]]:
    """The recorded states but those that a run cannot tell apart.

    Of a log it only sees whether its last line is whole; of a temporary file, which is deleted unread, that it is
    there, so that the half-written one stands for the empty and the whole one.
    """
    states: dict[str, tuple[Path, str]] = {}
    for state, what in recorded(scene / "states"):
        content = content_of(state)
        log = content.pop("run/training.log", b"")
        temporary = [name for name in content if name.endswith(".tmp") and isinstance(content[name], bytes)]
        key = repr((log.endswith(b"\n"), [(name, name in temporary or content[name]) for name in content]))
        if key not in states or "second half" in what:
            states[key] = (state, what)
    return list(states.values())


def assert_ended_well(workplace: Path, scene: Path, outcome: Outcome, where: str) -> None:
    """The run is as if nothing had been. One that died when all was done is finished, so it is moved aside, whole."""
    assert outcome.exit_code == 0 and "Traceback" not in outcome.said, f"killed before {where}: {outcome.said}"
    for run in (workplace / "run", workplace / "run.1"):
        if run.exists():
            assert differences(run, scene / "whole/run") == [], f"killed before {where}"
            shutil.rmtree(run)
    whole = {str(path.relative_to(scene / "whole")) for path in (scene / "whole").rglob("*")}
    rest = {name for name in whole if name.split("/")[0] != "run"}
    assert {str(path.relative_to(workplace)) for path in workplace.rglob("*")} == rest, f"killed before {where}"
    assert os.readlink(workplace / "logs/metrics.json") == "../run/metrics.json"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_state_of_the_disk_leads_to_the_same_end(shard, scene, tmp_path):
    states = distinct_states(scene)
    assert len(states) > 60
    kinds = {what.split()[0] for _, what in recorded(scene / "states")}
    assert {"open", "write", "pwrite", "replace", "unlink", "symlink", "mkdir", "ftruncate"} <= kinds
    for number, (state, what) in enumerate(states[shard::SHARDS]):
        workplace = tmp_path / str(number)
        shutil.copytree(state, workplace, symlinks=True)
        assert_ended_well(workplace, scene, start(workplace), what)
        shutil.rmtree(workplace)


def test_a_process_that_dies_leaves_the_recorded_state(scene):
    states = list(recorded(scene / "states"))
    for at in random.Random(0).sample(range(1, len(states) + 1), 4):
        workplace = new_workplace(scene, f"died{at}")
        assert start(workplace, kind="die", at=at).exit_code == KILLED
        state, what = states[at - 1]
        assert_same_shape(_shape(workplace), _shape(state), what)
        assert_ended_well(workplace, scene, start(workplace), what)


def assert_same_shape(died: dict[str, object], recorded_then: dict[str, object], what: str) -> None:
    """Checkpoints hold times, whose digits make them a little longer or shorter; half of one is far from the whole."""
    assert died.keys() == recorded_then.keys(), what
    for name, size in died.items():
        slack = 0.05 * recorded_then[name] if name.endswith(".pt") else 0
        same = abs(size - recorded_then[name]) <= slack if isinstance(size, int) else size == recorded_then[name]
        assert same, f"{name} has {size} and not {recorded_then[name]} before {what}"


def _shape(workplace: Path) -> dict[str, object]:
    """Every name, a temporary file's without its random part, with the size; of what holds times, the lines."""
    shape: dict[str, object] = {}
    for name, content in content_of(workplace, ignored=(".run.lock",)).items():
        folder, _, file = name.rpartition("/")
        stem = ".".join(file.split(".")[:3]) if file.startswith(".") else file
        is_text = not stem.endswith((".pt", ".npz", ".png", ".bin"))
        size = content if isinstance(content, str) else content.count(b"\n") if is_text else len(content)
        shape[f"{folder}/{stem}"] = size
    return shape


@pytest.mark.parametrize("seed", range(4))
def test_several_deaths_in_a_row(seed, scene):
    rng = random.Random(seed)
    workplace = new_workplace(scene, f"chain{seed}")
    total = len(list(recorded(scene / "states")))
    deaths = 0
    for _ in range(rng.randint(3, 5)):
        outcome = start(workplace, kind="die", at=rng.randint(1, total))
        deaths += outcome.exit_code == KILLED
        if outcome.exit_code != KILLED:  # this one had less to do than the place of its death
            break
    assert deaths
    if outcome.exit_code == KILLED:
        outcome = start(workplace)
    assert_ended_well(workplace, scene, outcome, f"{deaths} deaths of seed {seed}")
