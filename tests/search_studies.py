"""Studies as a search hands them over, made from scores that tests choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from common.search_results.records import Confirmation, SpaceEntry, StudyRecord, TrialRecord
from common.search_results.winner import choose_winner

RATE, DROPOUT, KIND, MOMENTUM = "optimizer.learning_rate", "model.dropout", "optimizer.type", "optimizer.momentum"
SPACE = (
    SpaceEntry(RATE, low=1e-5, high=1e-1, log=True),
    SpaceEntry(DROPOUT, choices=(0.0, 0.2, 0.4)),
    SpaceEntry(KIND, choices=("adam", "sgd")),
    SpaceEntry(MOMENTUM, low=0.0, high=0.95, when={KIND: ("sgd",)}),
)


def params_of(number: int) -> dict[str, Any]:
    """A configuration of ``SPACE``, another one for every number."""
    params: dict[str, Any] = {
        RATE: float(f"{10 ** (-5 + 4 * (number * 0.618 % 1)):.3g}"),
        DROPOUT: (0.0, 0.2, 0.4)[number % 3],
        KIND: ("adam", "sgd")[number // 3 % 2],
    }
    return {**params, MOMENTUM: round(0.95 * (number * 0.37 % 1), 3)} if params[KIND] == "sgd" else params


def trial(number: int, value: float | None, **changes: Any) -> TrialRecord:
    """A complete trial, or a diverged one where it has no score."""
    given = {
        "number": number,
        "state": "diverged" if value is None else "complete",
        "params": params_of(number),
        "value": value,
        "seed": 42,
        "duration_s": 2.5 + number % 4,
        "measures": {} if value is None else {"val_loss": 0.25, "best_epoch": 4, "epochs": 5},
        "message": "the loss was no longer finite in epoch 2" if value is None else None,
    }
    return TrialRecord(**{**given, **changes})


def study(
    trials: Sequence[TrialRecord], fresh: Mapping[int, Sequence[float | None]] | None = None, **changes: Any
) -> StudyRecord:
    """A study of ``trials``; ``fresh`` has the scores with fresh seeds by trial number."""
    direction = changes.get("direction", "maximize")
    by_number = {one.number: one for one in trials}
    confirmations = [
        Confirmation(number, by_number[number].params, (42, *range(1001, 1001 + len(values))),
                     (by_number[number].value, *values))
        for number, values in (fresh or {}).items()
    ]  # fmt: skip
    scored = [one for one in trials if one.state == "complete" and one.value is not None]
    sign = 1 if direction == "maximize" else -1
    best = max(scored, key=lambda one: (sign * one.value, -one.number), default=None)
    chosen = choose_winner(confirmations, direction)
    record = StudyRecord(
        name="hyperparam_search",
        method="random_search",
        sampler="random without repetition",
        metric="val_acc",
        direction=direction,
        n_trials=len(trials),
        seed=42,
        lag=2,
        epochs=5,
        space=SPACE,
        size=None,
        trials=trials,
        confirmations=confirmations,
        winner=chosen.number if chosen else best.number if best else None,
        elapsed_s=75.0,
        end="finished",
        base_config="configs/training_config.yaml",
        search_space="configs/search_space.yaml",
        command_line=("hyperparam_search.py", "--n-trials", str(len(trials)), "--output", "results/my search/"),
    )
    return replace(record, **changes)


def scored_study(num_trials: int, score: Callable[[Mapping[str, Any]], float | None], **changes: Any) -> StudyRecord:
    """A study whose trials have the score that ``score`` gives their configuration."""
    return study([trial(number, score(params_of(number))) for number in range(num_trials)], **changes)
