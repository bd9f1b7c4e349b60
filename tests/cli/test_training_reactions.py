"""A training that gets into trouble: what it does by itself, what it says, and that it does the same every time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from common.checkpoints import load_checkpoint
from tests.faulty_models import Glitch
from tests.training_runs import assert_same, leaves, train, without_times

GLITCH = {"model__architecture": "tests.faulty_models:Glitch", "model__hidden_dims": None, "model__dropout": 0.0}
# Diverges at once; a rate a hundred times lower does not, with clipped gradients.
DIVERGING = {
    "optimizer__type": "sgd",
    "optimizer__learning_rate": 1e6,
    "model__architecture": "simple_cnn",
    "model__hidden_dims": None,
    "data__source": "digits",
    "training__epochs": 2,
}


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Glitch, "passes", 0)


def actions(run) -> list[list[str]]:
    return [event["actions"] for event in run.metrics["events"]]


def write_npz(bad: float, count: int) -> list[int]:
    """Three separable classes in ten columns, with ``bad`` in one place of each of ``count`` training rows."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 3
    inputs = (generator.normal(size=(120, 10)) + 3 * np.eye(10)[labels]).astype(np.float32)
    rows = generator.choice(90, size=count, replace=False)
    inputs[rows, 4] = bad
    np.savez("data.npz", x_train=inputs[:90], y_train=labels[:90], x_val=inputs[90:], y_val=labels[90:])
    return sorted(rows.tolist())


def test_a_one_off_leaves_no_trace_in_the_weights(monkeypatch):
    healthy = train("healthy", **GLITCH)
    monkeypatch.setenv("TEST_GLITCHES", str(Glitch.passes + 3))
    run = train("glitch", **GLITCH)
    assert run.weight_hashes() == healthy.weight_hashes()
    assert actions(run) == [["replay_batch"]]
    (event,) = run.metrics["events"]
    assert "one-off" in event["outcome"] and event["recurred"] is False and event["guide"] == "diagnostics/nan_loss.md"


def test_what_is_logged_is_what_the_documentation_shows(monkeypatch):
    monkeypatch.setenv("TEST_GLITCHES", "3")
    log = train(**GLITCH).log
    tags = [line.split("]")[0] for line in log if line.removeprefix("warning: ").startswith("[")]
    start = next(n for n, tag in enumerate(tags) if "DIAGNOSTIC" in tag)
    shown = list(dict.fromkeys(tags[start:]))
    assert shown[:4] == ["warning: [DIAGNOSTIC", "[AUTO-LOAD", "[ACTIONS", "[RESTART"]
    assert "[AUTO-LOAD] diagnostics/nan_loss.md" in log
    assert any(line.startswith("[AUTO-LOAD] reduce_learning_rate: ") for line in log), "what the guide recommends"


def test_a_rate_that_is_far_too_high_is_lowered_until_it_works():
    run = train("run", **DIVERGING)
    assert run.metrics["run"]["status"] == "completed"
    assert actions(run)[:3] == [["replay_batch"], ["reduce_learning_rate_and_clip"], ["reduce_learning_rate_and_clip"]]
    assert [epoch["lr"] for epoch in run.epochs] == pytest.approx([1e4, 1e4])
    assert run.epochs[0]["health"]["clipped_share"] is not None
    assert_same(without_times(train("again", **DIVERGING).metrics), without_times(run.metrics))


def test_after_the_last_remedy_the_run_fails_and_names_the_batch(capsys):
    run = train("run", expect=5, **{**DIVERGING, "optimizer__learning_rate": 1e30})
    assert run.metrics["run"]["status"] == "failed"
    assert actions(run).count(["reduce_learning_rate_and_clip"]) == 3 and actions(run)[-1] == []
    err = capsys.readouterr().err
    assert "is nan" in err and ".png" in err and "Traceback" not in err


@pytest.mark.parametrize("reaction", ["suggest", "off"])
def test_a_run_that_may_not_act_stops(reaction):
    changes = {**DIVERGING, "diagnostics__nan_loss": {"reaction": reaction}}
    run = train("run", expect=5, **changes)
    assert actions(run) == [[]]
    assert ("suggestion" in run.metrics["events"][0]["outcome"]) is (reaction == "suggest")


def test_no_checkpoint_ever_holds_a_number_that_is_not_finite():
    run = train("run", expect=5, **{**DIVERGING, "optimizer__learning_rate": 1e30})
    files = list((run.path / "checkpoints").glob("*.pt"))
    assert files
    for path in files:
        for value in leaves(load_checkpoint(path)):
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                assert value.isfinite().all(), path


def test_rows_with_nan_are_set_aside_named_and_counted():
    rows = write_npz(math.nan, 5)
    run = train("run", data__source="npz", data__root="data.npz", training__epochs=3)
    assert run.metrics["run"]["status"] == "completed"
    assert run.metrics["run"]["dataset"]["num_train"] == 85
    assert any("5 rows of 90" in line and str(rows[0]) in line for line in run.log)


def test_rows_with_nan_end_a_run_that_may_not_repair_itself(capsys):
    write_npz(math.nan, 5)
    train("run", expect=3, data__source="npz", data__root="data.npz", diagnostics__nan_loss={"reaction": "off"})
    assert "5 rows of 90" in capsys.readouterr().err


def test_samples_that_blow_the_loss_up_are_set_aside():
    rows = write_npz(1e38, 2)
    run = train(
        "run",
        data__source="npz",
        data__root="data.npz",
        data__normalize=False,
        training__epochs=3,
        optimizer__learning_rate=0.1,
    )
    assert run.metrics["run"]["status"] == "completed"
    aside = [event for event in run.metrics["events"] if event["actions"] == ["set_aside_samples"]]
    assert sorted(sample for event in aside for sample in event["samples"]) == rows
    assert actions(run) == [["set_aside_samples"]]
    assert run.checkpoint()["progress"]["reactions"].count(str(rows[0]))
    assert "set aside" in Path("run/baseline_results.md").read_text()
