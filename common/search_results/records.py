"""What a hyperparameter search found, as plain data: what the search hands over and the results are written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

TrialState = Literal["complete", "diverged", "pruned", "failed", "running", "waiting"]


@dataclass(frozen=True)
class SpaceEntry:
    """One hyperparameter of the search space.

    ``path`` is the full name in the config (``optimizer.learning_rate``). Either ``choices`` are the values to choose
    from, in the order of the file, or ``low`` and ``high`` bound a range, both ends included, in steps of ``step``
    where given, even in its logarithm with ``log``. The entry is part of a configuration only where every path of
    ``when`` has one of the values given there.
    """

    path: str
    choices: tuple[Any, ...] | None = None
    low: float | int | None = None
    high: float | int | None = None
    step: float | int | None = None
    log: bool = False
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    ``params`` has the values by full path, without the entries that its other values switch off. ``value`` is the score
    in the study's metric, None where there is none. ``duration_s`` is the time the training took, ``attempts`` how
    often it was begun, ``measures`` are further numbers of the best epoch (``val_loss``, ``val_acc`` in percent,
    ``val_f1``, ``best_epoch``, ``epochs``), ``message`` says why a trial failed or what ended it.
    """

    number: int
    state: TrialState
    params: Mapping[str, Any]
    value: float | None
    seed: int
    attempts: int = 1
    started_at: str | None = None
    finished_at: str | None = None
    duration_s: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    run_dir: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class Confirmation:
    """A configuration among the best, with its score for every seed that it was trained with, the search's first."""

    number: int
    params: Mapping[str, Any]
    seeds: tuple[int, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class StudyRecord:
    """A whole study as it stands.

    ``metric`` is a key of the measures, ``direction`` says whether more of it is better. ``winner`` is the number of
    the trial chosen, None while there is none. ``elapsed_s`` is the time of day that the search took, over all starts.
    ``size`` counts the configurations of the space, None where it is not finite. ``end`` is why the search stopped:
    ``finished``, ``exhausted`` (every configuration was tried), ``timeout`` or ``interrupted``; ``running`` before.
    ``machines`` are the conditions that it was worked on under, as ``common.environment.exactness_fingerprint`` has
    them: more than one where machines or versions of libraries differed.
    """

    name: str
    method: Literal["random_search", "grid_search", "bayesian"]
    sampler: str
    metric: str
    direction: Literal["maximize", "minimize"]
    n_trials: int
    seed: int
    lag: int
    epochs: int | None
    space: Sequence[SpaceEntry]
    size: int | None
    trials: Sequence[TrialRecord]
    confirmations: Sequence[Confirmation]
    winner: int | None
    elapsed_s: float
    end: Literal["finished", "exhausted", "timeout", "interrupted", "running"]
    base_config: str
    search_space: str
    command_line: Sequence[str] = ()
    machines: Sequence[Mapping[str, Any]] = ()
