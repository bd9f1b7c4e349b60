"""A full or broken disk, at every place where a run writes: nothing that was saved is lost, and the run says so.

The disk fails from one write on, or at that one alone. The run either goes on (what failed, it can do without) or stops
with exit code 4 and one sentence; with the disk well again, the same command brings it to the end it would have had.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks.kill.same_end import differences
from common import manifest
from tests.interruptions import Outcome, prepared_trainer, recorded
from tests.training_runs import Run, write_config

COMMAND = ("--config", "config.yaml", "--output-dir", "run", "--quiet")
CHANGES = {
    "model__hidden_dims": [8],
    "training__batch_size": 32,
    "checkpointing__checkpoint_every_n_steps": 3,
    "checkpointing__checkpoint_every_n_epochs": 1,
    "logging__tensorboard": True,
}
# What a run can do without: its own event says that it did.
SPARE = "checkpoint_epoch_"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A run on a good disk, and the states that a recorded one went through."""
    folder = tmp_path_factory.mktemp("disk")
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


def places(scene: Path) -> list[tuple[int, str]]:
    """The last change of each kind to each file, by its number: by then there is most to lose."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, (_, what) in enumerate(recorded(scene / "states"), 1):
        numbers[re.sub(r"\.\w{8}\.tmp$|\d{10}\.trainer$", "", what)].append(number)
    return sorted((of_kind[-1], what) for what, of_kind in numbers.items())


def newest_step(run: Path) -> int:
    """The step of the newest sound checkpoint, -1 without one."""
    folder = run / "checkpoints"
    sound = manifest.sound_checkpoints(folder) if folder.is_dir() else []
    return Run(run).checkpoint(sound[0].name)["step"] if sound else -1


def assert_nothing_lost(scene: Path, number: int, what: str, plan: dict) -> None:
    workplace = new_workplace(scene, f"{number}")
    run = workplace / "run"
    outcome = start(workplace, kind="fail", at=number, **plan)
    where = f"{plan} at {what}: {outcome.said}"
    assert outcome.exit_code in (0, 4) and "Traceback" not in outcome.said, where
    before = newest_step(scene / f"states/{number:04d}/run")
    assert not run.exists() or newest_step(run) >= before, f"a saved step was lost: {where}"
    if outcome.exit_code == 4:
        assert len(outcome.said.strip().splitlines()) == 1 and "cannot be" in outcome.said, where
    if not is_finished(run):
        again = start(workplace)
        assert again.exit_code == 0, f"{where}\n{again.said}"
    assert not (workplace / "run.1").exists(), where
    assert set(differences(run, scene / "whole/run", ignored_events=("save_failed",))) <= not_saved(run), where
    shutil.rmtree(workplace)


def is_finished(run: Path) -> bool:
    return (run / "metrics.json").exists() and Run(run).metrics["run"]["status"] == "completed"


def not_saved(run: Path) -> set[str]:
    """Differences that a run announces, because it went on without a spare checkpoint."""
    outcomes = [event["outcome"] for event in Run(run).metrics["events"] if event["kind"] == "save_failed"]
    names = [outcome.split()[0] for outcome in outcomes]
    assert all(name.startswith(SPARE) for name in names)
    log = "\n".join(Run(run).log)
    assert all(f"warning: {outcome}" in log for outcome in outcomes)
    return {f"checkpoints/{name}: is missing" for name in names}


@pytest.mark.parametrize("half", range(2))
@pytest.mark.parametrize(
    ("kinds", "plan"),
    [
        ({"mkdir", "symlink", "write (second half)", "pwrite (second half)"}, {"errno": "ENOSPC", "lasting": True}),
        ({"ftruncate", "fsync", "replace", "unlink"}, {"errno": "EIO", "lasting": False}),
    ],
    ids=["full from then on", "one change fails"],
)
def test_nothing_is_lost_wherever_the_disk_fails(half, kinds, plan, scene):
    chosen = [(number, what) for number, what in places(scene) if what.rpartition(" ")[0] in kinds]
    assert {what.rpartition(" ")[0] for _, what in chosen} == kinds and len(chosen) > 20
    for number, what in chosen[half::2]:
        assert_nothing_lost(scene, number, what, plan)


@pytest.mark.parametrize("errno", ["EROFS", "EACCES", "EDQUOT"])
def test_nor_when_permissions_are_lost(errno, scene):
    chosen = [place for place in places(scene) if place[1].split()[0] in ("open", "replace")]
    for number, what in chosen[:: len(chosen) // 4]:
        assert_nothing_lost(scene, number, what, {"errno": errno, "lasting": True})
