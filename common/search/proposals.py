"""What is tried next: a function of the study's seed, the trial's number and the results it may see, and of no more.

So the same trials come about with one worker or with many, in whatever order they end, and after any interruption.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from common.search.configurations import Configurations, Params, key_of
from common.search.first_trials import spread_evenly
from common.search.levels import index_of, num_levels
from common.search.surrogates import MAX_CANDIDATES, ask_gaussian_process, ask_tpe
from common.search_results.records import SpaceEntry

Results = Mapping[int, tuple[Mapping[str, Any], float | None]]

METHODS = ("random_search", "grid_search", "bayesian")

# Results that a model of them needs to begin with; what is tried until then depends on none.
STARTUP_RESULTS = 4
STARTUP_RESULTS_CONDITIONAL = 6
# Random draws before a space without numbering counts as used up.
_MAX_DRAWS = 1000


class Proposer:
    """Proposes the values of each trial.

    Args:
        entries: of the search space.
        method: one of ``METHODS``.
        n_trials: the budget when the study began. A space that is no larger is tried completely; extending the study
            later changes nothing about the trials that were planned.
        seed: of the study.
        lag: trial n sees the results of the trials below n - lag. With more of it more workers find work at the same
            time, and each proposal knows less.
    """

    def __init__(self, entries: Sequence[SpaceEntry], method: str, n_trials: int, seed: int, lag: int) -> None:
        if method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, not {method!r}")
        self._space = Configurations(entries)
        self._method = method
        self._seed = seed
        self._lag = lag
        self._spread = _Spread(self._space, seed)
        size = self._space.size
        self._is_exhaustive = method == "bayesian" and size is not None and size <= n_trials
        self._is_conditional = any(entry.when for entry in entries)

    @property
    def sampler(self) -> str:
        """What proposes, in words."""
        if self._method == "grid_search":
            return "seeded shuffle of the grid"
        if self._method == "random_search":
            return "random without repetition"
        if self._is_exhaustive:
            return "exhaustive, since the space is no larger than the budget"
        return "tree-structured Parzen estimator" if self._is_conditional else "Gaussian process"

    @property
    def looks_back(self) -> bool:
        """Whether proposals depend on results, so that they wait for them."""
        return self._method == "bayesian" and not self._is_exhaustive

    def propose(self, number: int, results: Results) -> Params | None:
        """The values of the trial with that number, by full path; None where every configuration was proposed before.

        Args:
            number: from 0.
            results: by trial number the values that were tried and their score, the higher the better, None where the
                training diverged. Of the trials from ``number - lag`` on, scores are not looked at; what they try is
                taken from here, or where it is missing proposed again.
        """
        visible = {n: result for n, result in sorted(results.items()) if n < number - self._lag}
        scored = [value for _, value in visible.values() if value is not None]
        if not self.looks_back:
            return self._spread.nth(number)
        earlier = self._earlier(number, results)
        taken = {key_of(params) for params in earlier}
        if len(visible) < self._startup_results or not scored:
            return self._without_results(number, taken)
        wanted = self._ask(number, visible, [params for n, params in enumerate(earlier) if n not in visible])
        return wanted if wanted is None or key_of(wanted) not in taken else self._replacement(number, wanted, taken)

    @property
    def _startup_results(self) -> int:
        return STARTUP_RESULTS_CONDITIONAL if self._is_conditional else STARTUP_RESULTS

    @cached_property
    def _first(self) -> list[Params]:
        """What is tried before enough results can be seen; with conditions nothing that was thought out."""
        count = STARTUP_RESULTS + self._lag
        return [] if self._is_conditional else spread_evenly(self._space.entries, count, f"{self._seed} first trials")

    def _without_results(self, number: int, taken: set[str]) -> Params | None:
        if number < len(self._first) and key_of(self._first[number]) not in taken:
            return dict(self._first[number])
        return self._spread.first_outside(taken)

    def _earlier(self, number: int, results: Results) -> list[Params]:
        """What all trials before this one try."""
        known = dict(results)
        for n in range(number):
            if n not in known:
                known[n] = (self.propose(n, known) or {}, None)
        return [dict(known[n][0]) for n in range(number)]

    def _ask(self, number: int, visible: Results, pending: Sequence[Params]) -> Params | None:
        """What a model of the visible results holds to be most promising, considering what is under way."""
        worst = min(value for _, value in visible.values() if value is not None)
        seen = [(dict(params), worst if value is None else value) for params, value in visible.values()]
        seed = random.Random(f"{self._seed} model {number}").getrandbits(32)
        ask = ask_tpe if self._is_conditional else ask_gaussian_process
        return ask(self._space, seen, pending, seed)

    def _replacement(self, number: int, wanted: Params, taken: set[str]) -> Params | None:
        """The untried configuration that is nearest to one that was tried; of several, one at random."""
        if self._space.size is None or self._space.size > MAX_CANDIDATES:
            return self._spread.first_outside(taken)
        free = [params for params in self._space if key_of(params) not in taken]
        if not free:
            return None
        random.Random(f"{self._seed} replacement {number}").shuffle(free)
        return min(free, key=lambda params: self._distance(params, wanted))

    def _distance(self, a: Params, b: Params) -> float:
        return sum(self._part_distance(entry, a, b) for entry in self._space.entries)

    @staticmethod
    def _part_distance(entry: SpaceEntry, a: Params, b: Params) -> float:
        if (entry.path in a) is not (entry.path in b):
            return 1.0
        if entry.path not in a or a[entry.path] == b[entry.path]:
            return 0.0
        levels = num_levels(entry) or 1
        return abs(index_of(entry, a[entry.path]) - index_of(entry, b[entry.path])) / max(1, levels - 1)


class _Spread:
    """Configurations at random without repetition, the same ones in the same order every time.

    Where the space can be numbered it is a shuffle of all of it (Fisher-Yates, of which only the places in use are
    kept); elsewhere they are drawn one by one, and those that came before are passed over.
    """

    def __init__(self, space: Configurations, seed: int) -> None:
        self._space = space
        self._rng = random.Random(f"{seed} spread")
        self._found: list[Params] = []
        self._keys: set[str] = set()
        self._moved: dict[int, int] = {}

    def nth(self, number: int) -> Params | None:
        """The configuration with that place in the order, from 0; None behind the last."""
        while len(self._found) <= number:
            params = self._next()
            if params is None:
                return None
            self._found.append(params)
            self._keys.add(key_of(params))
        return self._found[number]

    def first_outside(self, taken: set[str]) -> Params | None:
        """The first configuration that is not among ``taken``."""
        for number in range(len(taken) + 1):
            params = self.nth(number)
            if params is None or key_of(params) not in taken:
                return params
        return None

    def _next(self) -> Params | None:
        size = self._space.size
        if size is not None and self._space.is_even:
            return self._shuffled(len(self._found), size)
        for _ in range(_MAX_DRAWS):
            params = self._space.draw(self._rng)
            if key_of(params) not in self._keys:
                return params
        if size is None or size > MAX_CANDIDATES:
            return None
        return next((params for params in self._space if key_of(params) not in self._keys), None)

    def _shuffled(self, place: int, size: int) -> Params | None:
        if place >= size:
            return None
        other = self._rng.randrange(place, size)
        chosen = self._moved.get(other, other)
        self._moved[other] = self._moved.pop(place, place)
        return self._space[chosen]
