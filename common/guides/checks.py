"""Whether the config changes of a recommendation fit the config's schema: every field known, every value possible."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from common.config import Config
from common.config.editor_schema import fragment_at, keys_at
from common.config.overrides import merged
from common.config.schema_errors import unknown_key_hint, validate
from common.config.yaml_document import KeyPath
from common.guides.changes import BOUNDED, NUMERIC, Change, is_list, nested, number_range

# The least that a valid config says: a value is possible if it is possible here.
_PLAIN_CONFIG = {
    "model": {"architecture": "simple_mlp", "dropout": 0.0},
    "optimizer": {"type": "adam", "learning_rate": 1e-3, "weight_decay": 0.0},
    "training": {"epochs": 1, "batch_size": 1, "device": "auto"},
    "early_stopping": {"enabled": False, "patience": 1, "metric": "val_loss"},
    "reproducibility": {"seed": 0, "deterministic": True},
}


class Fault(NamedTuple):
    """What is wrong with a change: where, counted from the change; a clause; what to do."""

    path: KeyPath
    message: str
    hint: str | None
    at_key: bool = False


def faults(key: str, change: Change) -> Iterator[Fault]:
    """Everything in ``change`` that the field ``key`` could not take."""
    if fault := _field_fault(key, ()):
        yield fault
        return
    yield from _condition_faults(change)
    yield from _operation_faults(key, change)
    if change.otherwise is not None:
        for path, *rest in faults(key, change.otherwise):
            yield Fault(("otherwise", *path), *rest)


def _field_fault(key: str, path: KeyPath) -> Fault | None:
    parts = key.split(".")
    if fragment_at(parts) is None:
        return Fault(path, f"no field of a config is called `{key}`", unknown_key_hint(_first_unknown(parts)), True)
    if keys_at(parts):
        return Fault(
            path,
            f"`{key}` is a section, not a field",
            f"name one of its fields, such as `{key}.{keys_at(parts)[0]}`",
            True,
        )
    return None


def _first_unknown(parts: list[str]) -> KeyPath:
    return next(tuple(parts[:end]) for end in range(1, len(parts) + 1) if fragment_at(parts[:end]) is None)


def _condition_faults(change: Change) -> Iterator[Fault]:
    for name in ("when", "unless"):
        for key, values in (getattr(change, name) or {}).items():
            if fault := _field_fault(key, (name, key)):
                yield fault
                continue
            for index, value in enumerate(values if isinstance(values, list) else [values]):
                place = (name, key, index) if isinstance(values, list) else (name, key)
                yield from _value_faults(key, value, place, contradictions=False)


def _operation_faults(key: str, change: Change) -> Iterator[Fault]:
    operation, operand = change.operation, change.operand
    numbers, listed = number_range(key) is not None, is_list(key)
    if operation in NUMERIC and (not numbers or (listed and operation not in BOUNDED)):
        yield Fault((operation,), f"`{key}` is no field of a number", "use `set` or `replace`", True)
        return
    if operation == "append" and not listed:
        yield Fault((operation,), f"`{key}` is no list", "use `set`", True)
        return
    if operation == "replace":
        for old, new in operand.items():
            yield from _value_faults(key, old, (operation, old), contradictions=False)
            yield from _value_faults(key, new, (operation, old))
    elif operation not in BOUNDED:
        yield from _value_faults(key, operand, (operation,))
    for name in ("min", "max"):
        bound = getattr(change, name)
        if bound is not None:
            yield from _value_faults(key, [bound] if listed else bound, (name,))
    if change.start is not None:
        yield from _value_faults(key, change.start, ("start",))


def _value_faults(key: str, value: Any, place: KeyPath, *, contradictions: bool = True) -> Iterator[Fault]:
    result = validate(merged(_PLAIN_CONFIG, nested(key, value)))
    path = tuple(key.split("."))
    for error in [] if isinstance(result, Config) else result:
        if error.path[: len(path)] == path and (contradictions or error.code != "conflict"):
            yield Fault((*place, *error.path[len(path) :]), f"`{key}`: {error.message}", error.hint)
