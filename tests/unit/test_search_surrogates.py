from __future__ import annotations

import itertools

import numpy as np
import pytest

from common.search.configurations import Configurations, key_of
from common.search.surrogates import MAX_CANDIDATES, ask_gaussian_process, normal_scores
from common.search_results.records import SpaceEntry

RATE = SpaceEntry("optimizer.learning_rate", choices=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2))
BATCH = SpaceEntry("training.batch_size", choices=(16, 32, 64, 128))
ACTIVATION = SpaceEntry("model.activation", choices=("relu", "gelu"))
MOMENTUM = SpaceEntry("optimizer.momentum", low=0.0, high=0.99)
SPACE = Configurations((RATE, BATCH))


def levels_of(params) -> tuple[int, int]:
    return RATE.choices.index(params[RATE.path]), BATCH.choices.index(params[BATCH.path])


def seen_where(keep):
    """The configurations for which ``keep`` holds, a score that rises with both levels beside each."""
    return [(params, float(sum(levels_of(params)))) for params in SPACE if keep(*levels_of(params))]


def test_the_best_is_looked_for_where_the_scores_rise():
    low = seen_where(lambda rate, batch: rate + batch < 6)
    assert levels_of(ask_gaussian_process(SPACE, low, [], 1)) == (4, 3)


def test_nothing_that_was_tried_or_is_under_way_is_proposed():
    seen = seen_where(lambda rate, batch: (rate, batch) not in ((0, 0), (2, 1), (4, 3)))
    pending = [params for params in SPACE if levels_of(params) == (4, 3)]
    assert levels_of(ask_gaussian_process(SPACE, seen, pending, 1)) == (2, 1)
    everything = seen_where(lambda rate, batch: True)
    assert ask_gaussian_process(SPACE, everything, [], 1) is None


def test_what_is_under_way_leaves_less_to_be_learnt_nearby():
    """Without a difference between the scores it is what is known least that is proposed."""
    seen = [(params, 1.0) for params in SPACE if levels_of(params) in ((1, 1), (2, 2))]
    first = ask_gaussian_process(SPACE, seen, [], 1)
    second = ask_gaussian_process(SPACE, seen, [first], 1)
    apart = [abs(a - b) for a, b in zip(levels_of(first), levels_of(second), strict=True)]
    assert sum(apart) > 2


def test_names_are_not_taken_for_numbers():
    space = Configurations((RATE, ACTIVATION))
    seen = [(params, float(params[ACTIVATION.path] == "gelu")) for params in space if params[RATE.path] != 1e-3]
    assert ask_gaussian_process(space, seen, [], 1) == {RATE.path: 1e-3, ACTIVATION.path: "gelu"}


def test_a_continuous_space_is_searched_too():
    space = Configurations((RATE, MOMENTUM))
    seen = [({RATE.path: rate, MOMENTUM.path: momentum}, -abs(momentum - 0.6))
            for rate, momentum in itertools.product((1e-4, 1e-2), (0.1, 0.3, 0.5, 0.7, 0.9))]  # fmt: skip
    assert 0.45 < ask_gaussian_process(space, seen, [], 1)[MOMENTUM.path] < 0.75


def test_a_space_too_large_to_look_at_each_configuration():
    entries = [SpaceEntry(f"x{number}", low=0, high=39) for number in range(3)]
    space = Configurations(entries)
    assert space.size > MAX_CANDIDATES
    rng = np.random.default_rng(1)
    points = rng.integers(0, 40, (15, 3)).tolist()
    seen = [({f"x{number}": value for number, value in enumerate(point)}, float(sum(point))) for point in points]
    found = ask_gaussian_process(space, seen, [], 1)
    assert sum(found.values()) > max(score for _, score in seen) - 10
    assert key_of(found) == key_of(ask_gaussian_process(space, seen, [], 1))


def test_ranks_as_a_normal_distribution_would_have_them():
    scores = normal_scores([3.0, -1000.0, 3.0, 7.0])
    assert scores[0] == scores[2] and scores[1] < scores[0] < scores[3]
    assert normal_scores([1.0, 2.0, 3.0])[1] == pytest.approx(0.0)
    assert normal_scores([5.0, 5.0]) == pytest.approx([0.0, 0.0])
