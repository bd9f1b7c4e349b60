"""The values of one hyperparameter: how many there are, which they are, and drawing one at random."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from typing import Any

from common.search_results.records import SpaceEntry


def num_levels(entry: SpaceEntry) -> int | None:
    """How many values the entry can have, None where it is a continuous range."""
    if entry.choices is not None:
        return len(entry.choices)
    step = step_of(entry)
    return None if step is None else int((_exact(entry.high) - _exact(entry.low)) // _exact(step)) + 1


def level(entry: SpaceEntry, index: int) -> Any:
    """The value with that index, from 0, in the order of the file or of the range."""
    if entry.choices is not None:
        return entry.choices[index]
    if isinstance(entry.low, int):
        return entry.low + index * step_of(entry)
    return float(_exact(entry.low) + index * _exact(step_of(entry)))


def index_of(entry: SpaceEntry, value: Any) -> int:
    """The inverse of ``level``."""
    if entry.choices is not None:
        return entry.choices.index(value)
    return round((value - entry.low) / step_of(entry))


def step_of(entry: SpaceEntry) -> float | int | None:
    """The distance between two values of a range, None where it is continuous. A range of whole numbers has one."""
    return entry.step if entry.step is not None or isinstance(entry.low, float) else 1


def is_ordered(entry: SpaceEntry) -> bool:
    """Whether more and less mean something for its values: numbers, rather than names."""
    if entry.choices is None:
        return True
    return all(isinstance(choice, (int, float)) and not isinstance(choice, bool) for choice in entry.choices)


def sorted_levels(entry: SpaceEntry) -> list[Any]:
    """All values of an ordered entry that is no continuous range, the smallest first."""
    return sorted(level(entry, index) for index in range(num_levels(entry) or 0))


def is_even(entry: SpaceEntry) -> bool:
    """Whether all its values are equally likely when one is drawn: not for whole numbers even in their logarithm."""
    return num_levels(entry) is not None and not entry.log


def draw(entry: SpaceEntry, rng: random.Random) -> Any:
    """A random value of the entry."""
    if is_even(entry):
        return level(entry, rng.randrange(num_levels(entry) or 1))
    return at_fraction(entry, rng.random())


def at_fraction(entry: SpaceEntry, fraction: float) -> Any:
    """The value that lies that far, in [0, 1), from the lowest to the highest, in the logarithm where that is asked."""
    levels = num_levels(entry)
    if is_even(entry):
        return level(entry, int(fraction * (levels or 1)))
    low, high = entry.low, entry.high
    if isinstance(low, int):  # even in the logarithm: each number has the room from half a step below it to half above
        return min(high, max(low, round(_between_logs(low - 0.5, high + 0.5, fraction))))
    value = _between_logs(low, high, fraction) if entry.log else low + fraction * (high - low)
    return min(high, max(low, value))


def middle_of(entry: SpaceEntry, fraction: float) -> float:
    """The fraction in the middle of all those for which ``at_fraction`` gives the same value."""
    levels = num_levels(entry)
    return (int(fraction * levels) + 0.5) / levels if levels is not None and is_even(entry) else fraction


def _between_logs(low: float, high: float, fraction: float) -> float:
    return math.exp(math.log(low) + fraction * (math.log(high) - math.log(low)))


def _exact(number: float | int) -> Decimal:
    """The number as it is written, so that 0.1 + 2 x 0.1 is 0.3."""
    return Decimal(repr(number))
