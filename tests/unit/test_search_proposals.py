from __future__ import annotations

import math
import random

import pytest

from common.search.configurations import key_of
from common.search.proposals import STARTUP_RESULTS, Proposer
from common.search_results.records import SpaceEntry

RATE = SpaceEntry("optimizer.learning_rate", choices=(1e-4, 1e-3, 1e-2, 3e-4, 3e-3))
DROPOUT = SpaceEntry("model.dropout", low=0.0, high=0.5, step=0.1)
BATCH = SpaceEntry("training.batch_size", choices=(16, 32, 64))
ACTIVATION = SpaceEntry("model.activation", choices=("relu", "gelu"))
RULE = SpaceEntry("optimizer.type", choices=("adam", "sgd"))
MOMENTUM = SpaceEntry("optimizer.momentum", choices=(0.5, 0.9), when={"optimizer.type": ("sgd",)})
DECAY = SpaceEntry("optimizer.weight_decay", low=1e-6, high=1e-2, log=True)
FINITE = (RATE, DROPOUT, BATCH, ACTIVATION)  # 180 configurations
CONDITIONAL = (RATE, RULE, MOMENTUM, DROPOUT)
CONTINUOUS = (RATE, DECAY)
SPACES = {"finite": FINITE, "conditional": CONDITIONAL, "continuous": CONTINUOUS}


def score(params) -> float:
    """Best at a rate of 1e-3, dropout 0.2 and, with sgd, a momentum of 0.9."""
    value = -abs(math.log10(params["optimizer.learning_rate"]) + 3) - 2 * abs(params.get("model.dropout", 0.2) - 0.2)
    return value + {0.9: 0.5}.get(params.get("optimizer.momentum"), 0.0)


def study(entries, method, num_trials, *, seed=1, lag=2, budget=None, value=score):
    """All trials of a study, one after another."""
    proposer = Proposer(entries, method, budget or num_trials, seed, lag)
    results = {}
    for number in range(num_trials):
        params = proposer.propose(number, results)
        if params is None:
            break
        results[number] = (params, value(params))
    return results


@pytest.mark.parametrize("method", ["random_search", "grid_search", "bayesian"])
@pytest.mark.parametrize("entries", SPACES.values(), ids=SPACES)
def test_no_configuration_is_proposed_twice_and_the_seed_decides(method, entries):
    first = study(entries, method, 11)
    assert len({key_of(params) for params, _ in first.values()}) == 11
    assert study(entries, method, 11) == first
    assert study(entries, method, 9, seed=2) != dict(list(first.items())[:9])


@pytest.mark.parametrize("entries", SPACES.values(), ids=SPACES)
def test_a_proposal_sees_only_the_results_it_may_see(entries):
    results = study(entries, "bayesian", 13, lag=3)
    number, visible = 12, 12 - 3
    expected = results[number][0]
    others = {n: (params, value if n < visible else 1000.0 * n) for n, (params, value) in results.items()}
    assert Proposer(entries, "bayesian", 13, 1, 3).propose(number, others) == expected
    unfinished = {n: (params, value if n < visible else None) for n, (params, value) in results.items()}
    assert Proposer(entries, "bayesian", 13, 1, 3).propose(number, unfinished) == expected
    shuffled = list(results.items())
    random.Random(3).shuffle(shuffled)
    assert Proposer(entries, "bayesian", 13, 1, 3).propose(number, dict(shuffled)) == expected


def test_what_is_under_way_is_proposed_again_where_it_is_not_known():
    results = study(FINITE, "bayesian", 12, lag=2)
    visible = {n: result for n, result in results.items() if n < 11 - 2}
    assert Proposer(FINITE, "bayesian", 12, 1, 2).propose(11, visible) == results[11][0]


def test_a_visible_result_makes_a_difference():
    results = study(FINITE, "bayesian", 12)
    opposite = {n: (params, -value) for n, (params, value) in results.items()}
    assert Proposer(FINITE, "bayesian", 12, 1, 2).propose(11, opposite) != results[11][0]


@pytest.mark.parametrize("method", ["random_search", "grid_search"])
def test_a_finite_space_is_exhausted_completely(method):
    results = study((RATE, BATCH), method, 20)
    assert len(results) == 15 and len({key_of(params) for params, _ in results.values()}) == 15


def test_a_space_no_larger_than_the_budget_is_tried_completely():
    proposer = Proposer((RATE, BATCH), "bayesian", 15, 1, 2)
    assert not proposer.looks_back and "exhaustive" in proposer.sampler
    assert len(study((RATE, BATCH), "bayesian", 20, budget=15)) == 15
    assert Proposer((RATE, BATCH), "bayesian", 14, 1, 2).looks_back


@pytest.mark.parametrize("entries", [(RATE, BATCH), (RULE, MOMENTUM, BATCH)], ids=["gaussian process", "tpe"])
def test_a_model_too_comes_to_the_end_of_a_space_without_a_repetition(entries):
    size = 15 if entries[0] is RATE else 9
    results = study(entries, "bayesian", size + 3, budget=size - 1, value=lambda params: 0.0)
    assert len(results) == size == len({key_of(params) for params, _ in results.values()})


def test_extending_a_study_changes_no_trial():
    assert list(study(FINITE, "random_search", 40).items())[:10] == list(study(FINITE, "random_search", 10).items())
    longer = study(FINITE, "bayesian", 14, budget=9)
    assert list(longer.items())[:9] == list(study(FINITE, "bayesian", 9).items())


def test_random_search_gives_every_configuration_the_same_chance():
    counts = {}
    for seed in range(600):
        params = Proposer((BATCH, ACTIVATION), "random_search", 6, seed, 0).propose(2, {})
        counts[key_of(params)] = counts.get(key_of(params), 0) + 1
    assert len(counts) == 6 and min(counts.values()) > 60


def test_conditions_hold_in_every_proposal():
    for method in ("random_search", "bayesian"):
        for params, _ in study(CONDITIONAL, method, 16).values():
            assert ("optimizer.momentum" in params) is (params["optimizer.type"] == "sgd")


@pytest.mark.parametrize(("entries", "seeds"), [(FINITE, 2), (CONDITIONAL, 6)], ids=["gaussian process", "tpe"])
def test_a_model_finds_more_than_chance(entries, seeds):
    def reached(method):
        return sum(max(value for _, value in study(entries, method, 16, seed=seed).values()) for seed in range(seeds))

    assert reached("bayesian") > reached("random_search")


def test_a_diverged_trial_counts_as_the_worst():
    results = study(FINITE, "bayesian", 12)
    low = min(value for n, (_, value) in results.items() if n < 9)
    number = next(n for n, (_, value) in results.items() if value == low)
    diverged = {n: (params, None if n == number else value) for n, (params, value) in results.items()}
    second = min(value for n, (_, value) in results.items() if n < 9 and n != number)
    as_second = {n: (params, second if n == number else value) for n, (params, value) in results.items()}
    ask = Proposer(FINITE, "bayesian", 12, 1, 2).propose
    assert ask(11, diverged) == ask(11, as_second)


def test_a_study_in_which_all_diverged_goes_on_at_random():
    results = study(FINITE, "bayesian", 14, value=lambda params: None)
    assert len(results) == 14 > STARTUP_RESULTS + 2


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be one of"):
        Proposer(FINITE, "annealing", 5, 1, 1)


def test_the_first_trials_are_spread_evenly_and_depend_on_no_result():
    for value in (score, lambda params: 0.0, lambda params: None):
        first = [params for params, _ in study(FINITE, "bayesian", STARTUP_RESULTS + 2, value=value).values()]
        assert len({params["model.dropout"] for params in first}) == 6
        assert first == [params for params, _ in list(study(FINITE, "bayesian", 12).values())[:6]]
