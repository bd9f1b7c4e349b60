"""Several processes that train one model: the numbers of one process, one writer, and whole again after any death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kill.killing import running_in_sessions
from benchmarks.kill.same_end import differences
from common.checkpoints import load_checkpoint, load_model
from tests.interruptions import KILLED, Outcome, prepared_trainer, recorded
from tests.training_runs import ROOT, Run, measured_again, wait_until, wines, write_config

COMMAND = ("--config", "config.yaml", "--output-dir", "run", "--quiet")
# 124 samples: the last step's 28 are 14 for each of two, and the 27 to validate on cannot be halved.
CHANGES = {
    "model__architecture": "tests.unruly_models:MortalMlp",
    "model__hidden_dims": None,
    "training__epochs": 3,
    "training__batch_size": 32,
    "training__ema": 0.9,
    "lr_scheduler__type": "cosine",
    "checkpointing__checkpoint_every_n_steps": 3,
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Runs of two processes that nobody disturbed: ``whole`` with dropout, ``alike`` without; and its twin of one."""
    folder = tmp_path_factory.mktemp("processes")
    for name, dropout, processes in (("whole", 0.2, 2), ("alike", 0.0, 2), ("alone", 0.0, 1)):
        outcome = start(new_workplace(folder, name, model__dropout=dropout), processes=processes)
        assert (outcome.exit_code, *outcome.others) == (0,) * processes, outcome.said
    return folder


def new_workplace(scene: Path, name: str, **changes) -> Path:
    workplace = scene / name
    workplace.mkdir()
    write_config(workplace / "config.yaml", **{**CHANGES, "model__dropout": 0.2, **changes})
    return workplace


def start(workplace: Path, processes: int = 2, **plan) -> Outcome:
    return prepared_trainer().train(workplace, *COMMAND, processes=processes, **plan)


def test_two_processes_train_as_one_does(scene):
    two, one = (Run(scene / name / "run").epochs for name in ("alike", "alone"))
    assert len(two) == len(one) == 3
    for key in ("train_loss", "val_loss"):
        assert [epoch[key] for epoch in two] == pytest.approx([epoch[key] for epoch in one], rel=1e-4)
    assert [epoch["lr"] for epoch in two] == [epoch["lr"] for epoch in one]
    assert [epoch["val_acc"] for epoch in two] == [epoch["val_acc"] for epoch in one]
    assert two[-1]["train_loss"] < two[0]["train_loss"]
    run = Run(scene / "alike/run")
    assert run.environment["run"]["world_size"] == 2
    assert run.checkpoint()["step"] == Run(scene / "alone/run").checkpoint()["step"] == 12


def test_every_validation_sample_counts_once(scene):
    run = Run(scene / "whole/run")
    model = load_model(load_checkpoint(run.path / "checkpoints/last_model.pt"))
    again = measured_again(model, wines(), "val")
    assert len(again.labels_B) % 2 == 1, "the processes cannot share these evenly"
    assert run.epochs[-1]["val_acc"] == pytest.approx(again.accuracy_pct, abs=1e-9)
    assert run.epochs[-1]["val_loss"] == pytest.approx(again.loss, rel=1e-5)
    assert run.predictions()["index"].tolist() == list(range(len(again.labels_B)))
    assert run.predictions()["label"].tolist() == again.labels_B.tolist()


def test_two_runs_of_two_processes_are_the_same(scene):
    assert start(new_workplace(scene, "second")).exit_code == 0
    assert differences(scene / "second/run", scene / "whole/run") == []


def test_one_process_writes(scene):
    log = Run(scene / "whole/run").log
    assert sum(line.startswith("[EPOCH") for line in log) == 3
    assert sum(line.startswith("[CONFIG]") and "2 processes" in line for line in log) == 1
    result = prepared_trainer().train(new_workplace(scene, "json"), *COMMAND, "--json", processes=2)
    assert json.loads(result.said)["run"]["status"] == "completed"


@pytest.mark.parametrize(("rank", "place"), [(0, 0.3), (0, 0.6), (0, 0.9), (1, 0.0)])
def test_a_process_that_dies(rank, place, scene, tmp_path):
    """Its companion ends too, with one sentence or none; the same command brings the run to its end."""
    if rank == 0:
        states = tmp_path / "states"
        states.mkdir()
        assert start(new_workplace(tmp_path, "recorded"), kind="record", into=states).exit_code == 0
        total = len(list(recorded(states)))
        outcome = start(new_workplace(tmp_path, "died"), kind="die", at=int(place * total))
        assert outcome.exit_code == KILLED and outcome.others[0] in (0, 5)  # 0: it had nothing left to do
    else:
        environment = {"TEST_STOP_AT": "train:7:SIGKILL"}
        outcome = start(new_workplace(tmp_path, "died"), rank=1, kind="environment", variables=environment)
        assert outcome.exit_code != 0 and outcome.others == (-signal.SIGKILL,)
    assert "this is a bug" not in outcome.said, outcome.said
    again = start(tmp_path / "died")
    assert (again.exit_code, *again.others) == (0, 0), again.said
    assert differences(tmp_path / "died/run", scene / "whole/run") == []


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_is_asked_to_stop_stops_all(rank, scene, tmp_path):
    workplace = new_workplace(tmp_path, "stopped")
    environment = {"TEST_STOP_AT": "train:6:SIGTERM"}
    outcome = start(workplace, rank=rank, kind="environment", variables=environment)
    assert (outcome.exit_code, *outcome.others) == (143, 143), outcome.said
    assert Run(workplace / "run").checkpoint()["step"] in (6, 7)
    assert Run(workplace / "run").metrics["run"]["status"] == "interrupted"
    assert start(workplace).exit_code == 0
    assert differences(workplace / "run", scene / "whole/run") == []


def test_a_disk_that_fails_the_writer(scene, tmp_path):
    (tmp_path / "states").mkdir()
    assert start(new_workplace(tmp_path, "recorded"), kind="record", into=tmp_path / "states").exit_code == 0
    changes = [what for _, what in recorded(tmp_path / "states")]
    at = 1 + max(number for number, what in enumerate(changes) if what == "replace run/checkpoints/last_model.pt")
    outcome = start(new_workplace(tmp_path, "failed"), kind="fail", at=at, errno="EIO", lasting=False)
    assert outcome.exit_code == 4 and outcome.others[0] != 0
    assert "cannot be written" in outcome.said and "this is a bug" not in outcome.said, outcome.said
    assert start(tmp_path / "failed").exit_code == 0
    assert differences(tmp_path / "failed/run", scene / "whole/run") == []


def test_with_another_number_of_processes_a_run_goes_on_and_says_so(tmp_path):
    workplace = new_workplace(tmp_path, "stopped")
    start(workplace, kind="environment", variables={"TEST_STOP_AT": "train:6:SIGTERM"})
    outcome = prepared_trainer().train(workplace, *COMMAND[:-1])
    assert outcome.exit_code == 0 and "not exact: processes: 2 then, 1 now" in outcome.said, outcome.said


# torchrun


def torchrun(workplace: Path, *arguments: object, **variables: str) -> subprocess.Popen:
    """``torchrun --nproc-per-node 2 training_orchestrator.py ...`` in a session of its own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments,
               ROOT / "training_orchestrator.py", *COMMAND]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    with (workplace / "said").open("ab") as said:
        return subprocess.Popen(
            [str(part) for part in command], cwd=workplace, env=environment, stdout=said, stderr=said,
            start_new_session=True,
        )  # fmt: skip


def said(workplace: Path) -> str:
    return (workplace / "said").read_text(encoding="utf-8", errors="replace")


def test_torchrun_starts_a_killed_worker_again(scene, tmp_path):
    """Nobody has to do anything when a worker dies."""
    workplace = new_workplace(tmp_path, "killed")
    process = torchrun(workplace, "--max-restarts", 1, TEST_STOP_AT="train:7:SIGKILL", TEST_STOP_RANK="1")
    assert process.wait(240) == 0, said(workplace)
    assert "this is a bug" not in said(workplace), said(workplace)
    assert any(line.startswith("Resuming at epoch 2") for line in Run(workplace / "run").log)
    assert differences(workplace / "run", scene / "whole/run") == []


def test_torchrun_passes_a_stop_on(scene, tmp_path):
    workplace = new_workplace(tmp_path, "stopped")
    go, log = tmp_path / "go", workplace / "run/training.log"
    process = torchrun(workplace, TEST_STOP_AT=f"train:6:{go}")
    wait_until(lambda: process.poll() is not None or (log.exists() and "[EPOCH 2/3]" in log.read_text()), "epoch 2")
    process.send_signal(signal.SIGTERM)
    # Both stand still; when torchrun turns to the second one, the first has its signal, which is enough.
    wait_until(lambda: said(workplace).count("closing signal SIGTERM") == 2, "torchrun to pass the signal on")
    go.touch()
    assert process.wait(240) != 0
    wait_until(lambda: not running_in_sessions([process.pid]), "the end of all processes")
    assert "this is a bug" not in said(workplace), said(workplace)
    assert Run(workplace / "run").metrics["run"]["status"] == "interrupted"
    assert start(workplace).exit_code == 0
    assert differences(workplace / "run", scene / "whole/run") == []


# Too little memory


def greedy_workplace(folder: Path, name: str, **changes) -> Path:
    """Steps of 32 samples, 16 for each process, which does not have the memory for more than ``fitting_samples``."""
    arguments = {"fitting_samples": 10, "from_pass": 5}
    changes = {"model__architecture": "tests.unruly_models:GreedyMlp", "model__architecture_args": arguments, **changes}
    return new_workplace(folder, name, model__dropout=0.0, **changes)


@pytest.fixture(scope="module")
def halved(tmp_path_factory) -> Path:
    """A run that ran out of memory and went on with half as many samples at once when it was started again."""
    workplace = greedy_workplace(tmp_path_factory.mktemp("memory"), "halved")
    outcome = start(workplace)
    assert outcome.exit_code == 5 and outcome.others == (5,), outcome.said
    assert "it goes on with 16 at once" in outcome.said and "this is a bug" not in outcome.said, outcome.said
    assert start(workplace).exit_code == 0
    return workplace / "run"


def test_one_that_runs_out_of_memory_goes_on_with_half(halved, tmp_path):
    run = Run(halved)
    (event,) = run.metrics["events"]
    assert event["actions"] == ["halve_micro_batch"] and (event["epoch"], event["step"]) == (2, 5)
    assert run.checkpoint()["progress"]["micro_batch_size"] == 16 and run.checkpoint()["step"] == 12
    assert not (run.path / ".out_of_memory.json").exists()
    whole = Run(start_whole(tmp_path) / "run")
    assert run.weight_hashes()[0] == whole.weight_hashes()[0], "the epoch before is as it was"
    assert [epoch["lr"] for epoch in run.epochs] == [epoch["lr"] for epoch in whole.epochs]
    assert [epoch["train_loss"] for epoch in run.epochs] == pytest.approx(
        [epoch["train_loss"] for epoch in whole.epochs], rel=0.1
    )


def start_whole(folder: Path) -> Path:
    """A training with memory enough."""
    arguments = {"fitting_samples": 100, "from_pass": 5}
    workplace = greedy_workplace(folder, "enough", model__architecture_args=arguments)
    assert start(workplace).exit_code == 0
    return workplace


def test_a_note_survives_a_process_that_dies_before_it_saves(halved, tmp_path):
    workplace = greedy_workplace(tmp_path, "died")
    assert start(workplace).exit_code == 5
    for at in (4, 8, 12):
        assert start(workplace, kind="die", at=at).exit_code == KILLED
    assert start(workplace).exit_code == 0
    assert differences(workplace / "run", halved) == []


def test_torchrun_starts_those_again_that_ran_out_of_memory(halved, tmp_path):
    workplace = greedy_workplace(tmp_path, "restarted")
    process = torchrun(workplace, "--max-restarts", 1)
    assert process.wait(240) == 0, said(workplace)
    assert differences(workplace / "run", halved) == []
