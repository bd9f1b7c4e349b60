"""Names, values and scores as the results show them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from common.search_results.records import StudyRecord, TrialRecord

METHODS = {"random_search": "random search", "grid_search": "grid search", "bayesian": "Bayesian optimization"}
METRICS = {
    "val_acc": "validation accuracy",
    "val_loss": "validation loss",
    "val_f1": "validation F1 (macro)",
    "val_precision": "validation precision (macro)",
    "val_recall": "validation recall (macro)",
}
STATES = ("complete", "diverged", "pruned", "failed", "running", "waiting")


def metric_name(metric: str) -> str:
    """``validation accuracy`` for ``val_acc``."""
    return METRICS.get(metric, metric)


def is_percent(metric: str) -> bool:
    """Whether the metric runs from 0 to 100."""
    return metric.endswith("acc")


def shown_score(value: float | None, metric: str) -> str:
    """``97.31%`` for an accuracy, four digits after the point for anything else, ``n/a`` for None."""
    if value is None:
        return "n/a"
    return f"{value:.2f}%" if is_percent(metric) else f"{value:.4f}"


def shown_spread(value: float, metric: str) -> str:
    """A difference of scores: ``0.31 points`` for an accuracy."""
    return f"{value:.2f} points" if is_percent(metric) else f"{value:.4f}"


def shown_value(value: Any) -> str:
    """A hyperparameter's value as YAML has it: ``0.001``, ``1e-05``, ``null``, ``[64, 32]``, ``adam``."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path where no other ends alike, else the path: ``optimizer.type``, ``learning_rate``."""
    leaves = Counter(path.rpartition(".")[2] for path in paths)
    # `type` alone says nothing about what it is the type of.
    return {path: leaf if leaves[leaf := path.rpartition(".")[2]] == 1 and leaf != "type" else path for path in paths}


def param_paths(study: StudyRecord) -> list[str]:
    """The hyperparameters in the order of the space, then what only trials have."""
    paths = [entry.path for entry in study.space]
    return list(dict.fromkeys([*paths, *(path for trial in study.trials for path in trial.params)]))


def is_better(a: float, b: float, study: StudyRecord) -> bool:
    """Whether score ``a`` is better than ``b``."""
    return a > b if study.direction == "maximize" else a < b


def ranked_trials(study: StudyRecord) -> list[TrialRecord]:
    """The complete trials with a score, best first, the earlier one first among equals."""
    sign = -1.0 if study.direction == "maximize" else 1.0
    scored = [trial for trial in study.trials if trial.state == "complete" and trial.value is not None]
    return sorted(scored, key=lambda trial: (sign * trial.value, trial.number))


def trial_of(study: StudyRecord, number: int) -> TrialRecord:
    """The trial with this number."""
    return next(trial for trial in study.trials if trial.number == number)
