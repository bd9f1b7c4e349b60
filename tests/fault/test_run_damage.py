"""Damage in a run's files: found before anything is loaded, named, set aside, and made good by the same command."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from benchmarks.kill.same_end import differences
from common import manifest
from common.checkpoint_container import verify
from tests.interruptions import Outcome, prepared_trainer
from tests.training_runs import Run, write_config

COMMAND = ("--config", "config.yaml", "--output-dir", "run")
CHANGES = {
    "model__hidden_dims": [8],
    "training__epochs": 4,
    "training__batch_size": 32,
    "checkpointing__checkpoint_every_n_epochs": 1,
    "checkpointing__checkpoint_every_n_steps": 3,
}
FLIPS = 400


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A finished run in ``whole``; in ``stopped`` one that died when it had saved all of its third epoch."""
    folder = tmp_path_factory.mktemp("damage")
    for name in ("whole", "stopped"):
        (folder / name).mkdir()
        write_config(folder / name / "config.yaml", **CHANGES)
    (folder / "states").mkdir()
    assert start(folder / "whole", kind="record", into=folder / "states").exit_code == 0
    lines = (folder / "states/changes.txt").read_text().splitlines()
    third = "\treplace\trun/checkpoints/checkpoint_epoch_3.pt"
    (saved,) = [number for number, line in enumerate(lines, 1) if third in line]
    assert start(folder / "stopped", kind="die", at=saved + 1).exit_code == 9
    assert len(Run(folder / "stopped/run").epochs) == 3
    return folder


def start(workplace: Path, **plan) -> Outcome:
    return prepared_trainer().train(workplace, *COMMAND, **plan)


@pytest.fixture
def stopped(scene, tmp_path):
    """A copy of the stopped run's working directory."""
    shutil.copytree(scene / "stopped", tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def checkpoints_of(workplace: Path) -> list[Path]:
    return manifest.checkpoint_files(workplace / "run/checkpoints")


@pytest.mark.parametrize("name", ["best_model.pt", "last_model.pt", "checkpoint_epoch_1.pt", "checkpoint_epoch_3.pt"])
def test_every_flipped_byte_of_a_checkpoint_is_found(name, stopped):
    path = stopped / "run/checkpoints" / name
    entry = manifest.manifest_entry(path)
    rng = random.Random(name)
    offsets = [*range(0, path.stat().st_size, path.stat().st_size // (FLIPS // 2)),
               *(rng.randrange(path.stat().st_size) for _ in range(FLIPS // 2))]  # fmt: skip
    with path.open("r+b", buffering=0) as file:
        for offset in offsets:
            byte = os.pread(file.fileno(), 1, offset)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 1 << rng.randrange(8)]), offset)
            assert verify(path).status == "damaged", offset
            assert verify(path, entry).status == "damaged", offset
            os.pwrite(file.fileno(), byte, offset)
    assert verify(path, entry).status == "ok"


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def lose_a_page(path: Path, rng: random.Random) -> None:
    """As after a power cut: zeros where a block never reached the disk."""
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    content[at : at + 4096] = bytes(len(content[at : at + 4096]))
    path.write_bytes(content)


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


DAMAGES = (flip, flip, cut, lose_a_page, empty)


def damaged_names(workplace: Path) -> set[str]:
    return {path.name for path in (workplace / "run/checkpoints").glob("*.damaged*")}


@pytest.mark.parametrize("seed", range(12))
def test_damaged_checkpoints_are_named_and_the_run_ends_the_same(seed, stopped, scene):
    """Some of them or all, each in its own way."""
    rng = random.Random(seed)
    chosen = rng.sample(checkpoints_of(stopped), rng.randint(1, 5))
    for path in chosen:
        rng.choice(DAMAGES)(path, rng)
    damaged_bytes = {path.name: path.read_bytes() for path in chosen}
    outcome = start(stopped)
    assert outcome.exit_code == 0 and "Traceback" not in outcome.said, outcome.said
    for path in chosen:
        aside = path.with_name(f"{path.name}.damaged")
        assert aside.read_bytes() == damaged_bytes[path.name]
        assert f"warning: A damaged checkpoint was set aside as {aside.name}" in outcome.said
        aside.unlink()
    assert damaged_names(stopped) == set(), "no sound checkpoint was set aside"
    # A checkpoint of an earlier epoch is not worth training it again, as long as the run's end does not need it.
    gone = {f"checkpoints/{path.name}: is missing" for path in chosen if path.name.startswith("checkpoint_epoch_")}
    assert set(differences(stopped / "run", scene / "whole/run")) <= gone


def test_the_newest_sound_checkpoint_is_used(stopped):
    newest_first = manifest.sound_checkpoints(stopped / "run/checkpoints")
    steps = {path.name: Run(stopped / "run").checkpoint(path.name)["step"] for path in newest_first}
    assert list(steps.values()) == sorted(steps.values(), reverse=True)
    assert steps["checkpoint_epoch_3.pt"] > steps["checkpoint_epoch_2.pt"] > steps["checkpoint_epoch_1.pt"]
    for name in ("last_model.pt", "best_model.pt", "checkpoint_epoch_3.pt"):
        flip(stopped / "run/checkpoints" / name, random.Random(0))
    # Epoch 3 was the best so far and its file is gone, so the run goes on from before it.
    assert f"Resuming at epoch 3, step {steps['checkpoint_epoch_2.pt']}" in start(stopped).said


@pytest.mark.parametrize("name", ["manifest.json", "metrics.json", "step_trace.bin"])
@pytest.mark.parametrize("seed", range(4))
def test_damaged_records_are_made_again(name, seed, stopped, scene):
    rng = random.Random(seed)
    path = stopped / "run" / ("checkpoints/manifest.json" if name == "manifest.json" else name)
    if name == "step_trace.bin":
        # What lies before the checkpoint cannot be made again; what comes after it can.
        path.write_bytes(path.read_bytes() + rng.randbytes(40))
    else:
        DAMAGES[seed + 1](path, rng)
    outcome = start(stopped)
    assert outcome.exit_code == 0 and "Traceback" not in outcome.said, outcome.said
    assert "Resuming at epoch 4, step " in outcome.said, "nothing is trained again"
    assert damaged_names(stopped) == set() and not (stopped / "run.1").exists()
    assert differences(stopped / "run", scene / "whole/run") == []


@pytest.mark.parametrize("damage", [cut, empty])
def test_metrics_of_a_finished_run_are_made_again(damage, scene, tmp_path):
    shutil.copytree(scene / "whole", tmp_path / "copy", symlinks=True)
    workplace = tmp_path / "copy"
    damage(workplace / "run/metrics.json", random.Random(1))
    assert start(workplace).exit_code == 0
    assert not (workplace / "run.1").exists()
    assert differences(workplace / "run", scene / "whole/run") == []


def test_a_file_among_the_checkpoints_that_is_none(stopped, scene):
    """A folder, a dangling link, a text: told from checkpoints, and left alone."""
    folder = stopped / "run/checkpoints"
    (folder / "old.pt").mkdir()
    (folder / "gone.pt").symlink_to("nowhere.pt")
    (folder / "notes.txt").write_text("mine")
    assert start(stopped).exit_code == 0
    assert (folder / "old.pt").is_dir() and (folder / "gone.pt").is_symlink()
    assert (folder / "notes.txt").read_text() == "mine"
    for path in (folder / "gone.pt", folder / "notes.txt"):
        path.unlink()
    (folder / "old.pt").rmdir()
    assert differences(stopped / "run", scene / "whole/run") == []
