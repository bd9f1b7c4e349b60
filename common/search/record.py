"""A study's ledger as the record that its results are written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from common.search.agenda import best_trials, confirmation_seeds, confirmation_tasks
from common.search.configurations import Configurations
from common.search.definition import Definition
from common.search.ledger import LedgerState, LedgerTrial
from common.search_results.records import Confirmation, StudyRecord, TrialRecord
from common.search_results.winner import choose_winner

End = Literal["finished", "exhausted", "timeout", "interrupted", "running"]


def study_record(
    name: str,
    definition: Definition,
    state: LedgerState,
    end: End,
    *,
    base_config: str,
    search_space: str,
    command_line: Sequence[str],
) -> StudyRecord:
    """The study as the ledger has it. Until every confirmation is done the best trial counts as the winner."""
    confirmations = _confirmations(definition, state)
    best = best_trials(definition, state)
    chosen = choose_winner(confirmations, definition.direction)
    number = chosen.number if chosen is not None else best[0].number if best else None
    return StudyRecord(
        name=name,
        method=definition.method,
        sampler=definition.proposer().sampler,
        metric=definition.metric,
        direction=definition.direction,
        n_trials=state.num_trials,
        seed=definition.seed,
        lag=definition.lag,
        epochs=definition.epochs,
        space=definition.space,
        size=Configurations(definition.space).size,
        trials=[_trial(definition, state, state.trials[number]) for number in sorted(state.trials)
                if number < state.limit and state.trials[number].params is not None],
        confirmations=confirmations,
        winner=number,
        elapsed_s=elapsed_s(state.starts.values()),
        end=end,
        base_config=base_config,
        search_space=search_space,
        command_line=list(command_line),
        machines=state.machines,
    )  # fmt: skip


def elapsed_s(starts: Sequence[tuple[float, float]] | Any) -> float:
    """The time that at least one start of the search was at work, in seconds."""
    total, covered_until = 0.0, float("-inf")
    for began, seen in sorted(starts):
        total += max(0.0, seen - max(began, covered_until))
        covered_until = max(covered_until, seen)
    return total


def _trial(definition: Definition, state: LedgerState, trial: LedgerTrial) -> TrialRecord:
    assert trial.params is not None
    if trial.outcome is None:
        lease = state.leases.get(f"trial/{trial.number}")
        running = lease is not None and lease.is_live
        return TrialRecord(trial.number, "running" if running else "waiting", trial.params, None,
                           definition.trial_seed, attempts=lease.attempt if lease else 0)  # fmt: skip
    outcome: Mapping[str, Any] = trial.outcome
    return TrialRecord(
        number=trial.number,
        params=trial.params,
        **{key: outcome[key] for key in ("state", "value", "seed", "attempts", "started_at", "finished_at",
                                         "duration_s", "measures", "run_dir", "message")},
    )  # fmt: skip


def _confirmations(definition: Definition, state: LedgerState) -> list[Confirmation]:
    """All of them, or none while one is missing: a choice among some would not be fair to the others."""
    tasks = confirmation_tasks(definition, state)
    if any(task.name not in state.confirmed for task in tasks):
        return []
    values: dict[int, list[float | None]] = {}
    for task in tasks:
        values.setdefault(task.number, []).append(state.confirmed[task.name]["value"])
    seeds = (definition.trial_seed, *confirmation_seeds(definition))
    confirmations = []
    for number, fresh in values.items():
        trial = state.trials[number]
        assert trial.params is not None and trial.outcome is not None
        confirmations.append(Confirmation(number, trial.params, seeds, (trial.outcome["value"], *fresh)))
    return confirmations
