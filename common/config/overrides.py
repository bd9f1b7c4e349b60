"""Values from the command line: ``--set section.field=value`` and flags with a field of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.config.editor_schema import fragment_at
from common.config.problems import Problem
from common.config.schema_errors import UNKNOWN, SchemaError, is_about, unknown_key_hint
from common.config.yaml_document import KeyPath, read_yaml_text


@dataclass
class Overrides:
    """What the command line sets.

    Args:
        values: a mapping in the shape of a config, with only what is set.
        origins: for each path that is set, how the command line said so.
        problems: what is wrong with it.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def origin_of(self, error: SchemaError) -> str:
        """The override that ``error`` comes from."""
        about = (origin for path, origin in self.origins.items() if is_about(error, path))
        return next(about, ", ".join(self.origins.values()))

    def origin_of_path(self, path: KeyPath) -> str | None:
        """The override that set ``path``, or None."""
        return next((origin for set_path, origin in self.origins.items() if path[: len(set_path)] == set_path), None)


def read_overrides(overrides: Sequence[str], flags: Mapping[str, object]) -> Overrides:
    """Read ``key=value`` texts and flags; of two for the same key the later one counts, and flags come last."""
    changes = Overrides()
    for text in overrides:
        _read_text(text, changes)
    for key, value in flags.items():
        if value is not None:
            _put(tuple(key.split(".")), value, "command line", changes)
    return changes


def merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``top`` on it, mapping by mapping; neither is changed."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def _read_text(text: str, changes: Overrides) -> None:
    key, equals, value_text = text.partition("=")
    key = key.strip()
    origin = f"--set {key}"
    if not equals or not key:
        hint = "write `--set section.field=value`, such as `--set training.epochs=5`"
        changes.problems.append(Problem(f"--set {text}", "syntax", "no `key=value`", hint=hint))
        return
    document = read_yaml_text(value_text, origin)
    if document.problems:
        changes.problems += [
            Problem(origin, problem.code, problem.message, key=key, hint=problem.hint) for problem in document.problems
        ]
        return
    _put(tuple(key.split(".")), document.value, origin, changes)


def _put(path: KeyPath, value: object, origin: str, changes: Overrides) -> None:
    key = ".".join(map(str, path))
    if not _is_known(path):
        message = f"unknown key `{path[-1]}`" if len(path) > 1 else f"unknown key `{key}`"
        hint = unknown_key_hint(_first_unknown(path))
        changes.problems.append(Problem(origin, UNKNOWN, message, key=key, hint=hint))
        return
    target = changes.values
    for part in path[:-1]:
        inner = target.get(part)
        target[part] = dict(inner) if isinstance(inner, dict) else {}
        target = target[part]
    target[path[-1]] = value
    changes.origins.pop(path, None)
    changes.origins[path] = origin


def _is_known(path: KeyPath) -> bool:
    return fragment_at(path) is not None or path[:2] == ("model", "architecture_args")


def _first_unknown(path: KeyPath) -> KeyPath:
    """The shortest beginning of ``path`` that the schema does not know."""
    return next(path[:length] for length in range(1, len(path) + 1) if not _is_known(path[:length]))
