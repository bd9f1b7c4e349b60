"""When a training counts as stalled or a machine as idle, and what the signals call for."""

from __future__ import annotations

import math

import pytest

from common.engine.progress import Progress, Reactions
from common.engine.watch import StallPolicy, has_not_learnt, idle_finding, is_stalled, stall_actions

LN10 = math.log(10)


def progress(losses: list[float], *, watched_from: int = 0, health: dict | None = None, **signals) -> Progress:
    records = [{"num": num, "val_loss": loss, "health": health or {}} for num, loss in enumerate(losses, 1)]
    return Progress(history=records, signals=signals, reactions=Reactions(stall_watched_from=watched_from))


@pytest.mark.parametrize(("classes", "threshold"), [(10, 2.0), (2, 0.87 * math.log(2)), (1000, 2.0)])
def test_the_threshold_fits_the_number_of_classes(classes, threshold):
    assert StallPolicy("act", 15, None).threshold(classes) == pytest.approx(threshold, abs=0.004)


@pytest.mark.parametrize(
    ("losses", "stalled"),
    [
        ([LN10] * 16, True),
        ([LN10] * 15, False),  # not long enough
        ([LN10 - 0.0005 * n for n in range(16)], True),  # creeps: not one percent in all this time
        ([LN10 - 0.01 * n for n in range(16)], False),  # slow, but it learns
        ([2.5, 0.5] + [0.6] * 20, False),  # it has learnt
        ([math.inf] * 16, True),
        ([LN10] * 10 + [math.nan] * 10, True),
    ],
)
def test_a_stall_is_a_high_loss_that_does_not_fall(losses, stalled):
    assert is_stalled(progress(losses), 15, 2.0) is stalled


def test_after_a_reaction_the_watch_begins_anew():
    assert not is_stalled(progress([LN10] * 20, watched_from=10), 15, 2.0)
    assert is_stalled(progress([0.1] * 10 + [LN10] * 16, watched_from=10), 15, 2.0)


def test_one_good_epoch_means_it_has_learnt():
    assert has_not_learnt(progress([LN10, 2.2]), 2.0)
    assert not has_not_learnt(progress([LN10, 1.9, 2.2]), 2.0)
    assert not has_not_learnt(progress([]), 2.0)


@pytest.mark.parametrize(
    ("ratio", "dead", "first", "actions"),
    [
        (1e-6, 0.0, 1.0, ["increase_learning_rate"]),
        (0.5, 0.0, 1.0, ["reduce_learning_rate"]),
        (0.5, 0.9, 1.0, ["reduce_learning_rate", "reinitialise"]),
        (1e-3, 0.9, 1.0, ["reinitialise"]),
        (1e-3, 0.0, 8.0, ["reinitialise"]),
        (1e-3, 0.1, 1.1, []),  # nothing wrong with the training: look at the data
        (None, None, None, []),
    ],
)
def test_actions_follow_the_signals(ratio, dead, first, actions):
    health = {"weights": {"update_to_weight_median": ratio}, "activations": {"dead_share_max": dead}}
    assert stall_actions(progress([LN10], health=health, initial_loss_ratio=first)) == actions


def epochs(gpu_util: float | None, waiting: float, step_s: float = 0.1) -> list[dict]:
    time_s = step_s * 10
    return [{"gpu_util": gpu_util, "time_s": time_s, "data_time_s": waiting * time_s, "num_steps": 10}] * 11


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (epochs(30.0, 0.5), ["below 60%", "now 30%", "50% of the time"]),
        (epochs(30.0, 0.01), ["below 60%"]),
        (epochs(75.0, 0.5), None),
        (epochs(20.0, 0.01, step_s=0.001), None),  # so small a model cannot fill a GPU
        (epochs(20.0, 0.6, step_s=0.001), ["60% of the time"]),  # but it can be kept waiting
        (epochs(None, 0.5), ["50% of the time"]),
        (epochs(None, 0.1), None),
    ],
)
def test_idle_machines_are_told_from_small_models(records, words):
    finding = idle_finding(records, 60.0)
    if words is None:
        assert finding is None
    else:
        assert all(word in finding for word in words)
        assert records[0]["gpu_util"] is not None or "GPU" not in finding
