"""The words in which a recommendation says how a config is to change, and what they do to a value.

A change is one operation on one field, with bounds and conditions, so that it can be applied to any valid config:

``set: v``            the value is v
``multiply: f``       f times as large (each entry of a list of numbers)
``add: d``            larger by d
``at_least: v``       v, where it is null or smaller
``at_most: v``        v, where it is null or larger
``replace: {a: b}``   b, where it is a; otherwise as it was
``append: [...]``     these entries too, where none of the same name is in the list

With ``multiply`` and ``add``: ``min`` and ``max`` say how far the change may go (a value that is already beyond stays),
and ``start`` is the new value where the old one is null or 0. With any: ``when`` and ``unless`` name fields and the
value, or the list of values, for which the change holds or does not; ``otherwise`` is the change where it does not.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from common.config.editor_schema import Fragment, fragment_at
from common.config.field_types import Positive, Section

OPERATIONS = ("set", "multiply", "add", "at_least", "at_most", "replace", "append")
BOUNDED = ("multiply", "add")
NUMERIC = ("multiply", "add", "at_least", "at_most")

# More than a double holds exactly in a product such as 3e-4 * 0.1; beyond it, digits are rounding and no meaning.
_SIGNIFICANT_DIGITS = 12


def _number(value: object) -> object:
    # A float would do for neither: a field of whole numbers takes no 3.0.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PydanticCustomError("float_type", "not a number")
    return value


Number = Annotated[Any, AfterValidator(_number)]
Conditions = Annotated[dict[str, Any], Field(min_length=1)]


class Change(Section):
    """How one field of a config is to change. Exactly one operation is given; see the module's description."""

    set: Any = None
    multiply: Positive | None = None
    add: float | None = None
    at_least: Number | None = None
    at_most: Number | None = None
    replace: Annotated[dict[str, Any], Field(min_length=1)] | None = None
    append: Annotated[list[Any], Field(min_length=1)] | None = None
    min: Number | None = None
    max: Number | None = None
    start: Any = None
    when: Conditions | None = None
    unless: Conditions | None = None
    otherwise: Change | None = None

    @model_validator(mode="after")
    def _be_one_operation(self) -> Change:
        given = [name for name in OPERATIONS if name in self.model_fields_set]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise _refused(f"a change is exactly one of {', '.join(OPERATIONS)}; found {found}")
        for name in sorted(self.model_fields_set - {"set"}):
            if getattr(self, name) is None:
                raise _refused(f"`{name}` has no value", hint="give it one, or remove it", at=name)
        return self

    @model_validator(mode="after")
    def _have_bounds_that_mean_something(self) -> Change:
        for name in ("min", "max", "start"):
            if name in self.model_fields_set and not set(BOUNDED) & self.model_fields_set:
                raise _refused(f"`{name}` goes with multiply or add only", hint="remove it", at=name)
        if self.min is not None and self.max is not None and self.min > self.max:
            raise _refused("`min` is above `max`", hint="exchange the two", at="min")
        return self

    @model_validator(mode="after")
    def _have_conditions_that_can_be_checked(self) -> Change:
        for name in ("when", "unless"):
            for key, values in (getattr(self, name) or {}).items():
                if isinstance(values, dict) or values == []:
                    raise _refused(f"`{name}` needs a value, or a list of values, for `{key}`", at=name)
        if self.otherwise is not None and self.when is None and self.unless is None:
            raise _refused("`otherwise` needs a condition", hint="add `when` or `unless`", at="otherwise")
        return self

    @property
    def operation(self) -> str:
        """Which of ``OPERATIONS`` it is."""
        return next(name for name in OPERATIONS if name in self.model_fields_set)

    @property
    def operand(self) -> Any:
        """What stands behind the operation."""
        return getattr(self, self.operation)


@dataclass(frozen=True)
class NumberRange:
    """Which numbers a field may hold, both ends included."""

    low: float
    high: float
    is_whole: bool

    def clip(self, value: float) -> float:
        """The number nearest to ``value``, which may be infinite, that the field can hold."""
        value = min(max(value, self.low), self.high)
        rounded = round(value) if self.is_whole else float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
        return min(max(rounded, self.low), self.high)


def number_range(key: str) -> NumberRange | None:
    """The range of the numbers in the field ``key``, or in its list; None where it holds no numbers."""
    for branch in _branches(fragment_at(key.split(".")) or {}):
        items = branch.get("items") or next(iter(branch.get("prefixItems", ())), branch)
        if items.get("type") in {"integer", "number"}:
            return _range_of(items)
    return None


def is_list(key: str) -> bool:
    """Whether the field ``key`` may hold a list."""
    return any(branch.get("type") == "array" for branch in _branches(fragment_at(key.split(".")) or {}))


def value_at(mapping: Mapping[str, Any], key: str) -> Any:
    """What a config, as a mapping of every field, holds in the field ``key``."""
    value: Any = mapping
    for part in key.split("."):
        value = value[part]
    return value


def nested(key: str, value: Any) -> dict[str, Any]:
    """``{"a": {"b": value}}`` for ``a.b``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def changed_value(change: Change, key: str, mapping: Mapping[str, Any]) -> Any:
    """What the field ``key`` is to hold, which may be what it holds now.

    Args:
        change: checked against the schema, as those of a guide that was loaded are.
        mapping: the config as it is, every field.
    """
    if not _holds(change, mapping):
        return changed_value(change.otherwise, key, mapping) if change.otherwise else value_at(mapping, key)
    return _OPERATIONS[change.operation](change, key, value_at(mapping, key))


def _refused(message: str, *, hint: str | None = None, at: str | None = None) -> PydanticCustomError:
    return PydanticCustomError("change", "{message}", {"message": message, "hint": hint, "at": at})


def _range_of(fragment: Fragment) -> NumberRange:
    low = fragment.get("minimum", -sys.float_info.max)
    high = fragment.get("maximum", sys.float_info.max)
    if "exclusiveMinimum" in fragment:
        low = math.nextafter(fragment["exclusiveMinimum"], math.inf)
    if "exclusiveMaximum" in fragment:
        high = math.nextafter(fragment["exclusiveMaximum"], -math.inf)
    return NumberRange(low, high, fragment["type"] == "integer")


def _branches(fragment: Fragment) -> Iterator[Fragment]:
    if "anyOf" not in fragment:
        yield fragment
    for branch in fragment.get("anyOf", ()):
        yield from _branches(branch)


def _holds(change: Change, mapping: Mapping[str, Any]) -> bool:
    wanted = all(_is_one_of(value_at(mapping, key), values) for key, values in (change.when or {}).items())
    return wanted and not any(
        _is_one_of(value_at(mapping, key), values) for key, values in (change.unless or {}).items()
    )


def _is_one_of(value: Any, values: Any) -> bool:
    return any(_is_same(value, other) for other in (values if isinstance(values, list) else [values]))


def _is_same(a: Any, b: Any) -> bool:
    """Equal as the schema sees it: names in any case; true is not 1."""
    if isinstance(a, str) and isinstance(b, str):
        return a.lower() == b.lower()
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def _set(change: Change, key: str, old: Any) -> Any:
    return change.set


def _multiply(change: Change, key: str, old: Any) -> Any:
    return _moved(change, key, old, lambda value: value * change.operand)


def _add(change: Change, key: str, old: Any) -> Any:
    return _moved(change, key, old, lambda value: value + change.operand)


def _moved(change: Change, key: str, old: Any, move: Callable[[float], float]) -> Any:
    if change.start is not None and (old is None or old == 0):
        return change.start
    if old is None:
        return None
    allowed = number_range(key)
    assert allowed is not None, "only fields of numbers are changed by arithmetic"
    if isinstance(old, list):
        return [_bounded(change, value, allowed.clip(move(value))) for value in old]
    return _bounded(change, old, allowed.clip(move(old)))


def _bounded(change: Change, old: float, new: float) -> float:
    """A bound ends a move; it never turns one round, so what is beyond it already stays."""
    if new > old:
        return new if change.max is None else max(old, min(new, change.max))
    return new if change.min is None else min(old, max(new, change.min))


def _at_least(change: Change, key: str, old: Any) -> Any:
    return change.operand if old is None or old < change.operand else old


def _at_most(change: Change, key: str, old: Any) -> Any:
    return change.operand if old is None or old > change.operand else old


def _replace(change: Change, key: str, old: Any) -> Any:
    return next((new for given, new in change.operand.items() if _is_same(old, given)), old)


def _append(change: Change, key: str, old: Any) -> Any:
    names = {_name_of(entry) for entry in old}
    return [*old, *(entry for entry in change.operand if _name_of(entry) not in names)]


def _name_of(entry: Any) -> Any:
    """What a list entry is called: itself, or the only key of ``name: {argument: value}``."""
    return next(iter(entry), None) if isinstance(entry, dict) else entry


_OPERATIONS = {
    "set": _set,
    "multiply": _multiply,
    "add": _add,
    "at_least": _at_least,
    "at_most": _at_most,
    "replace": _replace,
    "append": _append,
}
