"""What people see of a search while it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from common.console import Console, ProgressBar, format_duration
from common.search.agenda import CONFIRMATION_SEEDS, best_trials
from common.search.definition import Definition
from common.search.ledger import LedgerState, LedgerTrial


class Display:
    """Tells of every trial and confirmation that ends, wherever it was trained, once."""

    def __init__(self, console: Console, bar: ProgressBar, definition: Definition, state: LedgerState) -> None:
        self._console = console
        self._bar = bar
        self._definition = definition
        self._told = {trial.number for trial in state.trials.values() if trial.outcome}
        self._told_confirmed = set(state.confirmed)
        self._began_s = time.monotonic()
        self._done_at_start = self._num_done(state)
        bar.advance(self._done_at_start)
        bar.describe(self._described(state))

    def show(self, state: LedgerState) -> bool:
        """Tell what is new in the ledger; returns whether anything is."""
        new = [trial for _, trial in sorted(state.trials.items()) if trial.outcome and trial.number not in self._told]
        confirmed = [task for task in state.confirmed if task not in self._told_confirmed]
        if not new and not confirmed:
            return False
        self._told |= {trial.number for trial in new}
        self._told_confirmed |= set(confirmed)
        self._bar.describe(self._described(state))
        self._bar.advance(len(new) + len(confirmed))
        for trial in new:
            self._console.info(self._trial_line(trial, state))
        for task in confirmed:
            self._console.info(self._confirmation_line(task, state.confirmed[task]))
        return True

    def _trial_line(self, trial: LedgerTrial, state: LedgerState) -> str:
        assert trial.outcome is not None and trial.params is not None
        outcome = trial.outcome
        best = best_trials(self._definition, state)
        record = ""
        if best:
            record = " (best so far)" if best[0].number == trial.number else f" (best {self._score(best[0])})"
        left = self.seconds_left(state)
        time_left = "" if left is None else f" | about {format_duration(left)} left"
        done = sum(other.outcome is not None for other in state.trials.values())
        return (
            f"[{done:>{len(str(state.limit))}}/{state.limit}] trial {trial.number}: {self._result(outcome)}{record}"
            f" | {listed(trial.params)} | {format_duration(outcome['duration_s'])}{time_left}"
        )

    def _confirmation_line(self, task: str, outcome: Mapping[str, Any]) -> str:
        _, number, seed = task.split("/")
        return f"Confirmation of trial {number} with seed {seed}: {self._result(outcome)}"

    def _result(self, outcome: Mapping[str, Any]) -> str:
        if outcome["state"] == "complete":
            return f"{self._definition.metric} {score_text(self._definition.metric, outcome['value'])}"
        return f"{outcome['state']} ({outcome['message']})" if outcome["message"] else outcome["state"]

    def _score(self, trial: LedgerTrial) -> str:
        assert trial.outcome is not None
        return score_text(self._definition.metric, trial.outcome["value"])

    def _described(self, state: LedgerState) -> str:
        best = best_trials(self._definition, state)
        left = self.seconds_left(state)
        parts = [f"best {self._score(best[0])} (trial {best[0].number})"] if best else []
        parts += [] if left is None else [f"about {format_duration(left)} left"]
        return ", ".join(["Search", *parts])

    def seconds_left(self, state: LedgerState) -> float | None:
        """How long the rest takes at the rate so far."""
        done = self._num_done(state)
        here = done - self._done_at_start
        if not here:
            return None
        return (time.monotonic() - self._began_s) / here * self.num_left(state)

    def num_left(self, state: LedgerState) -> int:
        """Trainings that are still to be done, confirmations among them."""
        return max(0, num_tasks(self._definition, state) - self._num_done(state))

    @staticmethod
    def _num_done(state: LedgerState) -> int:
        return sum(trial.outcome is not None for trial in state.trials.values()) + len(state.confirmed)


def num_tasks(definition: Definition, state: LedgerState) -> int:
    """How many trainings the whole study takes."""
    return state.limit + min(definition.confirm, state.limit) * CONFIRMATION_SEEDS


def score_text(metric: str, value: float | None) -> str:
    """A score for people: accuracies in percent, the rest as they are."""
    if value is None:
        return "none"
    return f"{value:.2f}%" if metric.endswith("acc") else f"{value:.4f}"


def listed(params: Mapping[str, Any]) -> str:
    """A configuration on one line, by the last part of each name."""
    return ", ".join(f"{path.rpartition('.')[2]} {value:g}" if isinstance(value, float) else
                     f"{path.rpartition('.')[2]} {value}" for path, value in params.items())  # fmt: skip
