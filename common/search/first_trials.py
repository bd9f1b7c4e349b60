"""The trials that a model begins with: spread over the search space evenly, where chance would leave gaps."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from common.search.configurations import Params
from common.search.levels import at_fraction, middle_of
from common.search_results.records import SpaceEntry

_NUM_DRAWS = 200
# Distances to look at in all draws together.
_MAX_DISTANCES = 20_000


def spread_evenly(entries: Sequence[SpaceEntry], count: int, seed: str) -> list[Params]:
    """Configurations of which each hyperparameter has its values equally often, as far as that is possible.

    Of many random ones that are like this it is those of which the two closest lie farthest apart. In a space with few
    configurations two can be the same. Source: maximin Latin hypercubes, Morris and Mitchell 1995,
    doi:10.1016/0378-3758(94)00035-T.

    Args:
        entries: without conditions.
        count: how many, >= 1.
        seed: the same one gives the same configurations.
    """
    rng = random.Random(seed)
    num_pairs = max(1, count * (count - 1) // 2)
    draws = [_latin_hypercube(len(entries), count, rng) for _ in range(_num_draws(num_pairs))]
    best = max(draws, key=lambda points: _closest(entries, points))
    return [{entry.path: at_fraction(entry, part) for entry, part in zip(entries, point, strict=True)}
            for point in best]  # fmt: skip


def _num_draws(num_pairs: int) -> int:
    return max(1, min(_NUM_DRAWS, _MAX_DISTANCES // num_pairs))


def _latin_hypercube(num_entries: int, count: int, rng: random.Random) -> list[tuple[float, ...]]:
    """Points in [0, 1) of which, in each dimension, every ``count``-th part has one."""
    columns = [[(place + rng.random()) / count for place in rng.sample(range(count), count)]
               for _ in range(num_entries)]  # fmt: skip
    return list(zip(*columns, strict=True))


def _closest(entries: Sequence[SpaceEntry], points: Sequence[Sequence[float]]) -> float:
    """The square of the smallest distance between two of them."""
    middles = [[middle_of(entry, part) for entry, part in zip(entries, point, strict=True)] for point in points]
    distances = (sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for a, b in itertools.combinations(middles, 2))
    return min(distances, default=0.0)
