"""Whether a range of a search space can be: numbers, the right way round, with steps that fit."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from common.config.editor_schema import fragment_at, words
from common.config.schema_errors import shown
from common.search_results.records import SpaceEntry

# A range of so many steps is continuous for all purposes.
MAX_LEVELS = 1_000_000


class RangeError(ValueError):
    """What is wrong with a range: the key that is to blame (empty for the whole), the kind, a clause, what to do."""

    def __init__(self, key: str, code: str, message: str, hint: str | None = None) -> None:
        self.key = key
        self.code = code
        self.message = message
        self.hint = hint
        super().__init__(message)


def check_range(path: str, raw: Mapping[str, Any]) -> SpaceEntry:
    """The entry that a mapping with ``low``, ``high`` and perhaps ``step`` and ``log`` describes.

    Raises:
        RangeError: there is no such range, or not for this field.
    """
    is_whole = _is_whole(path, raw)
    log = raw.get("log", False)
    if not isinstance(log, bool):
        raise RangeError("log", "type", f"expected `true` or `false`, found {shown(log)}")
    low, high = (_number(key, raw[key], is_whole) for key in ("low", "high"))
    if not low < high:
        raise RangeError("low", "impossible-range", f"low {low} is not below high {high}",
                         "swap the two" if low > high else "give a list of values")  # fmt: skip
    if log and low <= 0:
        raise RangeError("low", "impossible-range", f"a range in the logarithm begins above 0, not at {low}",
                         "raise low, or remove `log`")  # fmt: skip
    step = None if raw.get("step") is None else _number("step", raw["step"], is_whole)
    if step is not None:
        if log:
            raise RangeError("step", "conflict", "`step` and `log` do not go together",
                             "remove one of the two, or list the values")  # fmt: skip
        _check_step(low, high, step)
    return SpaceEntry(path, low=low, high=high, step=step, log=log)


def _is_whole(path: str, raw: Mapping[str, Any]) -> bool:
    """Whether the range is one of whole numbers."""
    fragment = fragment_at(path.split("."))
    if fragment is None:  # an argument of somebody's own architecture: what is written counts
        return all(isinstance(raw.get(key, 1), int) for key in ("low", "high", "step"))
    text = words(fragment)
    kinds = text.split(", or ")
    if any(kind.startswith("a number") for kind in kinds):
        return False
    if any(kind.startswith("a whole number") for kind in kinds):
        return True
    raise RangeError("", "type", f"a range is for numbers, and this is {text}", "list the values")


def _number(key: str, value: Any, is_whole: bool) -> float | int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RangeError(key, "type", f"expected a number, found {shown(value)}")
    if not is_whole:
        return float(value)
    if not isinstance(value, int):
        raise RangeError(key, "type", f"expected a whole number, found {shown(value)}")
    return value


def _check_step(low: float | int, high: float | int, step: float | int) -> None:
    if step <= 0:
        raise RangeError("step", "impossible-range", f"a step is above 0, not {step}")
    first, last, exact_step = (Decimal(repr(number)) for number in (low, high, step))
    steps = (last - first) // exact_step
    if steps >= MAX_LEVELS:
        raise RangeError("step", "impossible-range", f"more than {MAX_LEVELS:,} steps", "make the step larger")
    reached = first + steps * exact_step
    if reached != last:
        hint = f"set high to {reached if steps else first + exact_step}, or choose another step"
        raise RangeError("high", "impossible-range", f"{high} is not reached from {low} in steps of {step}", hint)
