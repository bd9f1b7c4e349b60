"""What there is to do in a study, as a function of its ledger: the trials, then the confirmations."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.search.definition import Definition
from common.search.ledger import LedgerState, LedgerTrial

CONFIRMATION_SEEDS = 2
# A task that ends for want of a machine or by the death of its worker is begun so often in all.
MAX_ATTEMPTS = 4


@dataclass(frozen=True)
class Task:
    """A training to be done: a trial, or with a ``seed`` of its own the confirmation of one."""

    number: int
    seed: int | None = None

    @property
    def name(self) -> str:
        return f"trial/{self.number}" if self.seed is None else f"confirm/{self.number}/{self.seed}"

    @property
    def run_dir(self) -> str:
        """The folder of its run within the output."""
        confirmation = f"confirm/{self.number:04d}_seed_{self.seed}"
        return f"trials/{self.number:04d}" if self.seed is None else confirmation


@dataclass(frozen=True)
class Agenda:
    """``ready`` can be begun now, in this order; ``num_open`` tasks are not done, ready or not."""

    ready: Sequence[Task]
    num_open: int


def agenda(definition: Definition, state: LedgerState) -> Agenda:
    """What is to be done as the ledger stands, whoever does it."""
    open_trials = [number for number in range(state.limit) if _outcome(state, number) is None]
    if open_trials:
        return Agenda([Task(number) for number in open_trials if _is_ready(definition, state, number)],
                      len(open_trials))  # fmt: skip
    tasks = [task for task in confirmation_tasks(definition, state) if task.name not in state.confirmed]
    return Agenda(tasks, len(tasks))


def confirmation_tasks(definition: Definition, state: LedgerState) -> list[Task]:
    """The best configurations, each with every fresh seed. Meant for when all trials have ended."""
    best = best_trials(definition, state)[: definition.confirm]
    return [Task(trial.number, seed) for trial in best for seed in confirmation_seeds(definition)]


def confirmation_seeds(definition: Definition) -> list[int]:
    """Seeds that no trial had, the same for every configuration."""
    rng = random.Random(f"{definition.seed} confirmation")
    seeds: list[int] = []
    while len(seeds) < CONFIRMATION_SEEDS:
        seed = rng.getrandbits(32)
        if seed not in (*seeds, definition.trial_seed):
            seeds.append(seed)
    return seeds


def best_trials(definition: Definition, state: LedgerState) -> list[LedgerTrial]:
    """The complete trials, the best first; of equal ones the earlier."""
    complete = [
        trial
        for number in range(state.limit)
        if (trial := state.trials.get(number)) and trial.outcome and trial.outcome["state"] == "complete"
    ]
    return sorted(complete, key=lambda trial: (-definition.sign * _value(trial), trial.number))


def results_for(definition: Definition, state: LedgerState, number: int) -> dict[int, tuple[Mapping[str, Any], Any]]:
    """What ``Proposer.propose`` is told: of each earlier trial what it tries and its score, the higher the better."""
    return {
        earlier: (trial.params, _signed_value(definition, trial))
        for earlier in range(number)
        if (trial := state.trials.get(earlier)) is not None and trial.params is not None
    }


def _is_ready(definition: Definition, state: LedgerState, number: int) -> bool:
    earlier = [state.trials.get(n) for n in range(number)]
    if any(trial is None or trial.params is None for trial in earlier):
        return False  # another worker is just proposing it
    if not definition.waits:
        return True
    return all(trial is not None and trial.outcome for trial in earlier[: max(0, number - definition.lag)])


def _outcome(state: LedgerState, number: int) -> Mapping[str, Any] | None:
    trial = state.trials.get(number)
    return None if trial is None else trial.outcome


def _value(trial: LedgerTrial) -> float:
    assert trial.outcome is not None
    return trial.outcome["value"]


def _signed_value(definition: Definition, trial: LedgerTrial) -> float | None:
    if trial.outcome is None or trial.outcome["value"] is None:
        return None
    return definition.sign * trial.outcome["value"]
