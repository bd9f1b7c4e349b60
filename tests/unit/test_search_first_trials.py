from __future__ import annotations

import random
from collections import Counter
from itertools import combinations

import pytest

from common.search.first_trials import spread_evenly
from common.search.levels import at_fraction, middle_of
from common.search_results.records import SpaceEntry

RATE = SpaceEntry("optimizer.learning_rate", choices=(1e-4, 1e-3, 1e-2))
BATCH = SpaceEntry("training.batch_size", choices=(16, 32, 64, 128))
DROPOUT = SpaceEntry("model.dropout", low=0.0, high=0.5, step=0.1)
DECAY = SpaceEntry("optimizer.weight_decay", low=1e-6, high=1e-2, log=True)
WIDTH = SpaceEntry("model.width", low=4, high=64, log=True)
MOMENTUM = SpaceEntry("optimizer.momentum", low=0.0, high=0.99)
ENTRIES = (RATE, BATCH, DROPOUT, DECAY, WIDTH, MOMENTUM)


@pytest.mark.parametrize("seed", ["1 first trials", "2 first trials"])
def test_every_value_comes_equally_often(seed):
    trials = spread_evenly(ENTRIES, 12, seed)
    counted = {entry.path: Counter(trial[entry.path] for trial in trials) for entry in (RATE, BATCH, DROPOUT)}
    assert [sorted(counts.values()) for counts in counted.values()] == [[4] * 3, [3] * 4, [2] * 6]
    assert all(list(trial) == [entry.path for entry in ENTRIES] for trial in trials)


def test_a_range_is_covered_from_end_to_end():
    momenta = sorted(trial[MOMENTUM.path] for trial in spread_evenly(ENTRIES, 9, "3 first trials"))
    assert [int(9 * momentum / 0.99) for momentum in momenta] == list(range(9))


def test_the_seed_decides():
    assert spread_evenly(ENTRIES, 6, "1") == spread_evenly(ENTRIES, 6, "1") != spread_evenly(ENTRIES, 6, "2")


def test_the_two_closest_lie_farther_apart_than_at_random():
    def closest(trials):
        places = [[entry.choices.index(trial[entry.path]) / len(entry.choices) for entry in (RATE, BATCH)]
                  for trial in trials]  # fmt: skip
        return min(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for a, b in combinations(places, 2))

    rng = random.Random(1)
    chance = [[{e.path: rng.choice(e.choices) for e in (RATE, BATCH)} for _ in range(4)] for _ in range(50)]
    spread = [spread_evenly((RATE, BATCH), 4, str(seed)) for seed in range(50)]
    assert min(map(closest, spread)) > sum(map(closest, chance)) / 50


@pytest.mark.parametrize("count", [1, 2, 250])
def test_any_number_of_them(count):
    assert len(spread_evenly(ENTRIES, count, "1")) == count


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.path)
def test_the_middle_of_a_value_is_that_value(entry):
    fractions = [number / 97 for number in range(97)]
    assert [at_fraction(entry, middle_of(entry, part)) for part in fractions] == [
        at_fraction(entry, part) for part in fractions
    ]
    assert len({middle_of(BATCH, part) for part in fractions}) == 4
