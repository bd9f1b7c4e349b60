"""Searches replayed from a recorded table: the shipped proposals, and recorded scores in place of trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy import stats

from benchmarks.search.tables import Table, key_of
from common.search.proposals import Proposer
from common.search_results.records import Confirmation

NUM_CONFIRMED = 3


@dataclass(frozen=True)
class Replay:
    """The configurations that a search tried, by their numbers in the table, and what each scored with its seed."""

    tried: Sequence[int]
    scores: Sequence[float | None]

    def best(self, num_trials: int) -> list[int]:
        """Of the first so many trials the numbers of the best three, the best first, the earlier among equals."""
        scored = [number for number in range(num_trials) if self.scores[number] is not None]
        return sorted(scored, key=lambda number: (-self.scores[number], number))[:NUM_CONFIRMED]


def replay(table: Table, method: str, num_trials: int, *, study_seed: int, column: int, lag: int) -> Replay:
    """One search; ``column`` says with which of the recorded seeds its trials were trained."""
    proposer = Proposer(table.plan.entries, method, num_trials, study_seed, lag)
    results: dict[int, tuple[dict, float | None]] = {}
    tried = []
    for number in range(num_trials):
        params = proposer.propose(number, results)
        assert params is not None
        tried.append(table.index[key_of(params)])
        results[number] = (params, table.scores[tried[-1]][column])
    return Replay(tried, [results[number][1] for number in range(num_trials)])


def confirmations(table: Table, found: Replay, num_trials: int, columns: Sequence[int]) -> list[Confirmation]:
    """The best three with their scores for each of ``columns``, the search's own first."""
    return [
        Confirmation(
            trial,
            table.configurations[found.tried[trial]],
            tuple(table.plan.seeds[column] for column in columns),
            tuple(table.scores[found.tried[trial]][column] for column in columns),
        )
        for trial in found.best(num_trials)
    ]


def true_scores(table: Table) -> list[float]:
    """The mean over all recorded seeds of each configuration; a training that diverged counts as the worst of all."""
    worst = min(score for scores in table.scores for score in scores if score is not None)
    return [fmean(worst if score is None else score for score in scores) for scores in table.scores]


def mean_with_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the half width of its 95% confidence interval (Student's t)."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values)), float(half)
