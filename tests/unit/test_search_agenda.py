from __future__ import annotations

import pytest

from common.search.agenda import Task, agenda, best_trials, confirmation_seeds, confirmation_tasks, results_for
from common.search.leases import Lease
from common.search.ledger import LedgerState, LedgerTrial
from common.search.record import elapsed_s, study_record
from tests.search_definitions import definition

PARAMS = {"optimizer.learning_rate": 0.01, "training.batch_size": 32}
LOOKING_BACK = {"method": "bayesian", "lag": 1, "planned": 6}


def outcome(value, state="complete"):
    return {"state": state, "value": value, "seed": 42, "attempts": 1, "started_at": None, "finished_at": None,
            "duration_s": 1.0, "measures": {}, "run_dir": None, "message": None}  # fmt: skip


def trial(number, value=None, state=None):
    """A trial that has ended with the value or the state; without either one that is under way."""
    ended = value is not None or state is not None
    return LedgerTrial(number, PARAMS, outcome(value, state or "complete") if ended else None)


def state_of(*trials, num_trials=6, confirmed=(), **more):
    return LedgerState({entry.number: entry for entry in trials}, more.pop("leases", {}), num_trials,
                       confirmed=dict(confirmed), **more)  # fmt: skip


def ready(made, state):
    return [task.number for task in agenda(made, state).ready]


def test_trials_that_look_at_no_results_can_be_begun_at_any_time():
    assert ready(definition(), state_of(trial(0, 5.0), trial(1), trial(2))) == [1, 2, 3]


def test_a_trial_waits_until_all_before_it_are_proposed():
    empty = LedgerTrial(1, None, None)
    assert ready(definition(), state_of(trial(0), empty)) == [0, 1]
    assert agenda(definition(), state_of()).num_open == 6


@pytest.mark.parametrize("made", [definition(**LOOKING_BACK), definition(prune=True)], ids=["bayesian", "pruned"])
def test_a_trial_that_looks_back_waits_for_the_results_it_may_see(made):
    assert ready(made, state_of(trial(0), trial(1))) == [0, 1]
    assert ready(made, state_of(trial(0, 5.0), trial(1))) == [1, 2]
    assert ready(made, state_of(trial(0), trial(1, 5.0))) == [0], "trial 2 needs trial 0, whatever became of trial 1"


def test_a_trial_that_diverged_or_failed_has_ended():
    done = state_of(*(trial(n, None, "diverged") for n in range(3)), *(trial(n, None, "failed") for n in range(3, 6)))
    assert agenda(definition(), done).num_open == 0, "and there is nothing to confirm"


def test_the_best_are_confirmed_with_fresh_seeds_once_all_trials_have_ended():
    made = definition(confirm=2)
    values = [5.0, 9.0, 9.0, 1.0, 2.0]
    state = state_of(*(trial(n, value) for n, value in enumerate(values)), trial(5, None, "diverged"))
    seeds = confirmation_seeds(made)
    assert len({*seeds, made.trial_seed}) == 3
    expected = [Task(1, seeds[0]), Task(1, seeds[1]), Task(2, seeds[0]), Task(2, seeds[1])]
    assert agenda(made, state).ready == expected == confirmation_tasks(made, state)
    some = state_of(*state.trials.values(), confirmed={expected[0].name: outcome(9.0)})
    assert agenda(made, some).ready == expected[1:]
    assert agenda(definition(confirm=0), state).num_open == 0


def test_of_losses_the_smallest_is_the_best():
    state = state_of(trial(0, 0.5), trial(1, 0.2), trial(2, 0.9, "pruned"))
    best = best_trials(definition(metric="val_loss"), state)
    assert [entry.number for entry in best] == [1, 0], "a pruned trial is never the best"


def test_what_proposals_are_told_is_the_higher_the_better():
    state = state_of(trial(0, 0.5), trial(1, None, "diverged"), trial(2))
    assert results_for(definition(metric="val_loss"), state, 3) == {0: (PARAMS, -0.5), 1: (PARAMS, None),
                                                                   2: (PARAMS, None)}  # fmt: skip


def test_a_space_that_is_used_up_has_fewer_trials():
    state = state_of(trial(0, 5.0), trial(1, 6.0), exhausted_at=2)
    assert {task.seed is None for task in agenda(definition(), state).ready} == {False}


def record_of(made, state, end="finished"):
    return study_record("s", made, state, end, base_config="a.yaml", search_space="b.yaml", command_line=["x"])


def test_the_winner_is_chosen_by_fresh_seeds_once_all_are_there():
    made = definition(confirm=2, planned=2)
    state = state_of(trial(0, 99.0), trial(1, 98.0), num_trials=2)
    tasks = confirmation_tasks(made, state)
    scores = {task.name: outcome(90.0 if task.number == 0 else 95.0) for task in tasks}
    assert record_of(made, state).winner == 0 and record_of(made, state).confirmations == []
    partly = state_of(*state.trials.values(), num_trials=2, confirmed=dict(list(scores.items())[:3]))
    assert record_of(made, partly).winner == 0 and record_of(made, partly).confirmations == []
    whole = record_of(made, state_of(*state.trials.values(), num_trials=2, confirmed=scores))
    assert whole.winner == 1
    assert [(entry.number, entry.values) for entry in whole.confirmations] == [(0, (99.0, 90.0, 90.0)),
                                                                             (1, (98.0, 95.0, 95.0))]  # fmt: skip
    assert whole.confirmations[0].seeds == (42, *confirmation_seeds(made))


def test_a_record_tells_what_is_running_and_what_waits():
    leases = {"trial/1": Lease("me", 2, True), "trial/2": Lease("me", 1, False)}
    record = record_of(definition(), state_of(trial(0, 5.0), trial(1), trial(2), leases=leases), "interrupted")
    assert [entry.state for entry in record.trials] == ["complete", "running", "waiting"]
    assert [entry.attempts for entry in record.trials] == [1, 2, 1]
    assert record.winner == 0 and record.size == 8


def test_time_in_which_two_machines_worked_counts_once():
    assert elapsed_s([(0.0, 10.0), (5.0, 12.0), (20.0, 21.0), (6.0, 7.0)]) == 13.0
    assert elapsed_s([]) == 0.0
