from __future__ import annotations

import math

import pytest

from common.engine.progress import CheckpointPlan, Criterion, EarlyStopping, Progress, update_best

VALUES = ("train_loss", "train_acc", "val_loss", "val_f1", "val_precision", "val_recall")


def record(num: int, val_acc: float | None) -> dict:
    return {"num": num, "val_acc": val_acc, **dict.fromkeys(VALUES, 0.0)}


def after(*val_accs: float | None) -> Progress:
    progress = Progress()
    for num, val_acc in enumerate(val_accs, 1):
        progress.history.append(record(num, val_acc))
        update_best(progress, Criterion("val_acc", "max"), progress.history[-1])
        progress.begin_next_epoch()
    return progress


@pytest.mark.parametrize(
    ("mode", "value", "best", "better"),
    [
        ("max", 1.0, None, True),
        ("max", 1.0, 1.0, False),
        ("max", 1.2, 1.0, True),
        ("max", 1.05, 1.0, False),  # within min_delta
        ("min", 0.8, 1.0, True),
        ("min", 0.95, 1.0, False),
        ("min", math.nan, None, False),
        ("max", math.inf, 1.0, False),
        ("max", None, None, False),
    ],
)
def test_what_counts_as_better(mode, value, best, better):
    assert Criterion("m", mode, min_delta=0.1).improves(value, best) is better


def test_early_stopping_counts_epochs_in_a_row():
    stopping, progress = EarlyStopping(Criterion("val_acc", "max"), patience=2), Progress()
    stops = [stopping.update(progress, record(n, value)) for n, value in enumerate([1, 0, 2, 2, 1], 1)]
    assert stops == [False, False, False, False, True]


def test_disabled_early_stopping_never_stops():
    stopping, progress = EarlyStopping(Criterion("val_acc", "max"), patience=1, enabled=False), Progress()
    assert not any(stopping.update(progress, record(n, 0.0)) for n in range(1, 9))


def test_best_is_the_first_of_equals():
    assert after(1.0, 3.0, 3.0, 2.0).best["epoch"] == 2


def test_signals_that_were_replaced_are_in_the_next_checkpoint():
    progress = Progress(signals={"data": {"num_classes": 3}})
    assert Progress.from_dict(progress.as_dict()).signals == {"data": {"num_classes": 3}}
    progress.signals = progress.signals | {"initial_loss_ratio": 1.5}
    assert Progress.from_dict(progress.as_dict()).signals == {"data": {"num_classes": 3}, "initial_loss_ratio": 1.5}


def test_progress_survives_being_a_dict():
    progress = after(1.0, 2.0)
    progress.grad_norms.append(0.1)
    assert Progress.from_dict(progress.as_dict()) == progress


PLAN = CheckpointPlan("best.pt", "last.pt", True, True, 2, None, 0, Criterion("val_acc", "max"))


def plan(**changes) -> CheckpointPlan:
    return CheckpointPlan(**{**vars(PLAN), **changes})


@pytest.mark.parametrize(
    ("changes", "files"),
    [
        ({}, {"best.pt": 2, "last.pt": 5, "checkpoint_epoch_2.pt": 2, "checkpoint_epoch_4.pt": 4}),
        ({"keep_last_n": 1}, {"best.pt": 2, "last.pt": 5, "checkpoint_epoch_4.pt": 4}),
        ({"every_n_epochs": None, "save_best": False}, {"last.pt": 5}),
        ({"save_last": False, "every_n_epochs": None}, {"best.pt": 2}),
        (
            {"every_n_epochs": None, "top_k": 2},
            {"best.pt": 2, "last.pt": 5, "checkpoint_epoch_2.pt": 2, "checkpoint_epoch_5.pt": 5},
        ),
    ],
)
def test_which_checkpoints_are_kept(changes, files):
    assert plan(**changes).files(after(1.0, 5.0, 3.0, None, 4.0)) == files
