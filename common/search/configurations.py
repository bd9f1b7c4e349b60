"""The configurations of a search space: counted, numbered, and drawn at random."""

from __future__ import annotations

import bisect
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.search.levels import draw, is_even, level, num_levels
from common.search_results.records import SpaceEntry

Params = dict[str, Any]

# Combinations of values on which others depend. More are no search that anybody can overlook.
MAX_COMBINATIONS = 10_000


def is_active(entry: SpaceEntry, params: Mapping[str, Any]) -> bool:
    """Whether the entry is part of the configuration that has these other values."""
    return all(path in params and params[path] in allowed for path, allowed in entry.when.items())


def in_order(entries: Sequence[SpaceEntry]) -> list[SpaceEntry]:
    """The entries such that each comes after all that it depends on, otherwise in their own order.

    Raises:
        ValueError: they depend on each other in a circle, or on a path that is no entry.
    """
    ordered: list[SpaceEntry] = []
    left = list(entries)
    while left:
        placed = {entry.path for entry in ordered}
        free = next((entry for entry in left if placed.issuperset(entry.when)), None)
        if free is None:
            raise ValueError(f"{left[0].path} depends on itself or on a path that is no entry")
        ordered.append(free)
        left.remove(free)
    return ordered


def key_of(params: Mapping[str, Any]) -> str:
    """A text that two configurations share only if they are the same."""
    return json.dumps(params, sort_keys=True)


class Configurations:
    """All configurations of a space.

    ``size`` is their number, None where a continuous range makes it infinite. ``is_even`` says whether a number drawn
    at random from ``range(size)`` is as good as ``draw``. The dictionaries have the order of the entries.
    """

    def __init__(self, entries: Sequence[SpaceEntry]) -> None:
        self.entries = tuple(entries)
        self.in_order = in_order(entries)
        deciding = {path for entry in entries for path in entry.when}
        self._deciding = [entry for entry in self.in_order if entry.path in deciding]
        self._others = [entry for entry in entries if entry.path not in deciding]
        self._blocks = [(params, self._others_beside(params)) for params in self._decisions({}, self._deciding)]
        self.is_even = all(is_even(entry) for entry in entries)
        sizes = [_product(others) for _, others in self._blocks]
        self.size = None if None in sizes else sum(sizes)
        self._ends = list(itertools.accumulate(size or 0 for size in sizes))

    def __getitem__(self, number: int) -> Params:
        """The configuration with that number, from 0 to ``size - 1``."""
        block = bisect.bisect_right(self._ends, number)
        decided, others = self._blocks[block]
        rest = number - (self._ends[block - 1] if block else 0)
        params = dict(decided)
        for entry in reversed(others):
            rest, index = divmod(rest, num_levels(entry) or 1)
            params[entry.path] = level(entry, index)
        return self._sorted(params)

    def __iter__(self) -> Iterator[Params]:
        for number in range(self.size or 0):
            yield self[number]

    def draw(self, rng: random.Random) -> Params:
        """A random configuration: each value drawn on its own, where the others ask for it."""
        params: Params = {}
        for entry in self.in_order:
            if is_active(entry, params):
                params[entry.path] = draw(entry, rng)
        return self._sorted(params)

    def active(self, values: Mapping[str, Any]) -> Params:
        """The configuration with these values, without those that the others switch off."""
        params: Params = {}
        for entry in self.in_order:
            if is_active(entry, params):
                params[entry.path] = values[entry.path]
        return self._sorted(params)

    def _decisions(self, params: Params, left: Sequence[SpaceEntry]) -> Iterator[Params]:
        if not left:
            yield params
            return
        entry, *rest = left
        if not is_active(entry, params):
            yield from self._decisions(params, rest)
            return
        for index in range(num_levels(entry) or 0):
            yield from self._decisions({**params, entry.path: level(entry, index)}, rest)

    def _others_beside(self, params: Params) -> list[SpaceEntry]:
        return [entry for entry in self._others if is_active(entry, params)]

    def _sorted(self, params: Params) -> Params:
        return {entry.path: params[entry.path] for entry in self.entries if entry.path in params}


def _product(entries: Sequence[SpaceEntry]) -> int | None:
    levels = [num_levels(entry) for entry in entries]
    return None if None in levels else math.prod(levels)
