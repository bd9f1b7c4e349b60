"""Too little memory: half the samples at once, and all else as it was; found out once, and remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kill.same_end import differences
from tests.interruptions import KILLED, prepared_trainer
from tests.training_runs import Run, train, write_config
from tests.unruly_models import BYTES_PER_SAMPLE, GreedyMlp

GREEDY = "tests.unruly_models:GreedyMlp"
COMMAND = ("--config", "config.yaml", "--output-dir", "run", "--quiet")


def greedy(**arguments) -> dict:
    """Steps of 32 samples on the wines, 4 in an epoch."""
    return {
        "model__architecture": GREEDY,
        "model__hidden_dims": None,
        "model__architecture_args": arguments,
        "training__batch_size": 32,
        "training__epochs": 3,
        "lr_scheduler__type": "cosine",
    }


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    GreedyMlp.survivors.clear()
    GreedyMlp.evaluated.clear()


@pytest.mark.parametrize("in_backward", [False, True])
def test_halving_twice_is_accumulating_four(in_backward):
    run = train(**greedy(fitting_samples=10, in_backward=in_backward))
    changes = greedy(fitting_samples=10)
    planned = train("planned", **{**changes, "training__batch_size": 8, "training__accumulate": 4})
    assert run.weight_hashes() == planned.weight_hashes()
    for key in ("lr", "val_loss", "train_loss"):
        assert [epoch[key] for epoch in run.epochs] == [epoch[key] for epoch in planned.epochs]
    assert (run.path / "step_trace.bin").read_bytes() == (planned.path / "step_trace.bin").read_bytes()
    assert run.checkpoint()["step"] == 12 and run.checkpoint()["progress"]["micro_batch_size"] == 8
    events = run.metrics["events"]
    assert [event["actions"] for event in events] == [["halve_micro_batch"]] * 2
    assert "32" in str(events[0]) and "16" in str(events[1])
    assert planned.metrics["events"] == []


@pytest.mark.parametrize("in_backward", [False, True])
def test_nothing_of_a_failed_attempt_is_kept(in_backward):
    train(**greedy(fitting_samples=10, in_backward=in_backward))
    assert len(GreedyMlp.survivors) > 40
    assert set(GreedyMlp.survivors) == {0}


def test_in_a_later_epoch_the_steps_before_stay_as_they_are():
    whole = train("whole", **greedy(fitting_samples=32))
    run = train("run", **greedy(fitting_samples=16, from_pass=6))
    assert run.weight_hashes()[0] == whole.weight_hashes()[0]
    assert run.weight_hashes()[1] != whole.weight_hashes()[1]  # batch norm over 16 instead of 32
    assert [epoch["lr"] for epoch in run.epochs] == [epoch["lr"] for epoch in whole.epochs]
    assert len(run.metrics["events"]) == 1


def test_no_micro_batch_is_left_with_a_single_sample():
    """A step of 29 samples, at most 7 of them at once: batch norm could do nothing with the last of 4 x 7 + 1."""
    run = train(**{**greedy(fitting_samples=7), "training__batch_size": 28, "training__accumulate": 1}, expect=0)
    assert run.checkpoint()["progress"]["micro_batch_size"] == 7
    run = train("odd", **{**greedy(fitting_samples=7), "training__batch_size": 29})
    assert run.checkpoint()["progress"]["micro_batch_size"] == 7 and run.metrics["run"]["status"] == "completed"


def test_one_sample_that_does_not_fit_is_the_end(capsys):
    run = train(expect=5, **greedy(fitting_samples=0, batch_norm=False))
    assert run.metrics["run"]["status"] == "failed"
    assert "training.batch_size: out of memory with 1 samples" in capsys.readouterr().err


def test_an_evaluation_is_done_in_pieces():
    """124 samples to measure the training on, 27 to validate, and 15 of them at once: found out in the first batch."""
    whole = train("whole", **greedy(fitting_samples=32))
    GreedyMlp.evaluated.clear()
    run = train("run", **greedy(fitting_samples=32, fitting_in_evaluation=15))
    assert max(GreedyMlp.evaluated) == 15 and GreedyMlp.evaluated.count(15) > 20
    assert run.weight_hashes() == whole.weight_hashes()
    for key in ("train_acc", "val_acc"):
        assert [epoch[key] for epoch in run.epochs] == [epoch[key] for epoch in whole.epochs]
    val_loss = [epoch["val_loss"] for epoch in whole.epochs]
    assert [epoch["val_loss"] for epoch in run.epochs] == pytest.approx(val_loss, rel=1e-5)
    assert run.predictions()["index"].tolist() == whole.predictions()["index"].tolist()


def test_an_evaluation_that_does_not_fit_at_all(capsys):
    train(expect=5, **greedy(fitting_samples=32, fitting_in_evaluation=0))
    assert "out of memory with 1 sample in an evaluation" in capsys.readouterr().err


# Interrupted


def start(workplace: Path, **plan):
    return prepared_trainer().train(workplace, *COMMAND, **plan)


@pytest.mark.parametrize("saving", [{}, {"every_n_steps": 3}, {"every_n_seconds": 1e-6}], ids=str)
def test_a_run_that_was_stopped_ends_the_same(saving, tmp_path):
    """Before it ran out of memory, in the very epoch; after; and both. Where it is stopped, it saves."""
    changes = {**greedy(fitting_samples=16, from_pass=7), "logging__log_every_n_steps": 1}
    changes |= {f"checkpointing__checkpoint_{key}": value for key, value in saving.items()}
    for name in ("whole", "recorded"):
        (tmp_path / name).mkdir()
        write_config(tmp_path / name / "config.yaml", **changes)
    assert start(tmp_path / "whole").exit_code == 0
    assert len(Run(tmp_path / "whole/run").metrics["events"]) == 1
    (tmp_path / "states").mkdir()
    assert start(tmp_path / "recorded", kind="record", into=tmp_path / "states").exit_code == 0
    lines = (tmp_path / "states/changes.txt").read_text().splitlines()
    log = [number for number, line in enumerate(lines, 1) if line.endswith("write\trun/training.log")]
    for kind, exit_code, more in (("signal", 143, {"signal": "SIGTERM"}), ("die", KILLED, {})):
        for count, at in enumerate(log[len(log) // 4 :: len(log) // 6]):
            workplace = tmp_path / f"{kind}{count}"
            workplace.mkdir()
            write_config(workplace / "config.yaml", **changes)
            assert start(workplace, kind=kind, at=at, **more).exit_code == exit_code
            outcome = start(workplace)
            assert outcome.exit_code == 0, outcome.said
            assert differences(workplace / "run", tmp_path / "whole/run") == [], (kind, lines[at - 1])


# For real


def test_memory_that_the_system_refuses(tmp_path):
    """124 samples ask for 2.1 GB; there are 0.5 GB, which is enough for 16, or for 8 where other things take more."""
    write_config(tmp_path / "config.yaml", model__architecture="tests.unruly_models:VastMlp", model__hidden_dims=None,
                 training__batch_size=128)  # fmt: skip
    assert BYTES_PER_SAMPLE * 31 > 500_000_000
    outcome = start(tmp_path, kind="memory", more_bytes=500_000_000)
    assert outcome.exit_code == 0, outcome.said
    run = Run(tmp_path / "run")
    halvings = len(run.metrics["events"])
    assert halvings in (3, 4)
    assert run.checkpoint()["progress"]["micro_batch_size"] == 128 // 2**halvings
