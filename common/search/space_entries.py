"""Reading the entries of a search space, each checked against the config's schema, with the place of every mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from common.config.dumping import config_to_mapping
from common.config.overrides import merged
from common.config.problems import Problem, did_you_mean
from common.config.schema_errors import MISSING, UNKNOWN, SchemaError, is_about, shown, validate
from common.config.sections import Config
from common.config.yaml_document import Document, KeyPath
from common.search.levels import level, num_levels
from common.search.space_names import Refusal, path_of
from common.search.space_ranges import RangeError, check_range
from common.search_results.records import SpaceEntry

ROOT = "search_space"
_ENTRY_KEYS = ("values", "low", "high", "step", "log", "when")
_FORMS = "a list of values, or a range `{low: ..., high: ...}`"
# More can be written only by a program, and nobody could look at what came of them.
MAX_CHOICES = 1000


@dataclass
class EntryReader:
    """Turns the mapping under ``search_space`` into entries; what is wrong is gathered in ``problems``.

    ``base`` is the base config as a mapping, with what it says and no more.
    """

    document: Document
    base: Mapping[str, Any]
    problems: list[Problem] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)

    def read(self, raw: Mapping[str, Any]) -> list[SpaceEntry]:
        """Every entry that is sound."""
        named = [(name, path) for name in raw if (path := self._path(name)) is not None]
        entries = [entry for name, path in named if (entry := self._entry(name, path, raw[name])) is not None]
        by_path = {entry.path: entry for entry in entries}
        return [replace(entry, when=self._when(entry, raw, by_path)) for entry in entries]

    def name_of(self, path: str) -> str:
        """How the file calls a path."""
        return self._names.get(path, path)

    def value_problem(self, code: str, message: str, at: KeyPath, key: str, **more: Any) -> None:
        span = self.document.value_span((ROOT, *at))
        self.problems.append(self.document.problem(code, message, span, key=key, **more))

    def _key_problem(self, code: str, message: str, at: KeyPath, key: str, **more: Any) -> None:
        span = self.document.key_span((ROOT, *at))
        self.problems.append(self.document.problem(code, message, span, key=key, **more))

    def _path(self, name: str) -> str | None:
        path = path_of(name)
        if isinstance(path, Refusal):
            self._key_problem(path.code, path.message, (name,), name, hint=path.hint)
            return None
        if path in self._names:
            message = f"the same hyperparameter as `{self._names[path]}`"
            self._key_problem("duplicate-key", message, (name,), path, hint="remove one of the two")
            return None
        self._names[path] = name
        return path

    def _entry(self, name: str, path: str, raw: Any) -> SpaceEntry | None:
        if isinstance(raw, list):
            return self._choices((name,), path, raw)
        if not isinstance(raw, dict):
            hint = None if raw is None else f"write a list: `[{raw}]`"
            self.value_problem("type", f"expected {_FORMS}, found {shown(raw)}", (name,), path, hint=hint)
            return None
        if not self._keys_known(name, path, raw):
            return None
        if "values" not in raw:
            return self._range(name, path, raw)
        extra = next((key for key in ("low", "high", "step", "log") if key in raw), None)
        if extra is not None:
            message = f"`{extra}` does not go together with `values`"
            self._key_problem("conflict", message, (name, extra), path, hint="remove one of the two")
            return None
        if not isinstance(raw["values"], list):
            found = shown(raw["values"])
            self.value_problem("type", f"expected a list of values, found {found}", (name, "values"), path)
            return None
        return self._choices((name, "values"), path, raw["values"])

    def _keys_known(self, name: str, path: str, raw: Mapping[str, Any]) -> bool:
        unknown = [key for key in raw if key not in _ENTRY_KEYS]
        for key in unknown:
            close = did_you_mean(key, _ENTRY_KEYS)
            hint = f"did you mean `{close}`?" if close else f"known here: {', '.join(f'`{k}`' for k in _ENTRY_KEYS)}"
            self._key_problem(UNKNOWN, f"unknown key `{key}`", (name, key), path, hint=hint)
        return not unknown

    def _choices(self, at: KeyPath, path: str, raw: list[Any]) -> SpaceEntry | None:
        if not raw:
            self.value_problem("value", "the list has no values", at, path, hint="give at least one")
            return None
        if len(raw) > MAX_CHOICES:
            self.value_problem("value", f"more than {MAX_CHOICES} values", at, path, hint="give a range")
            return None
        values: list[Any] = []
        for index, value in enumerate(raw):
            checked = self.checked(path, value, (*at, index))
            if checked is None:
                continue
            if checked[0] in values and _same_kind(checked[0], values):
                self.value_problem("duplicate-value", f"{shown(value)} stands twice", (*at, index), path,
                                   hint="remove one of the two")  # fmt: skip
            values.append(checked[0])
        return SpaceEntry(path, choices=tuple(values)) if len(values) == len(raw) else None

    def _range(self, name: str, path: str, raw: Mapping[str, Any]) -> SpaceEntry | None:
        for key in ("low", "high"):
            if key not in raw:
                self._key_problem(MISSING, f"`{key}` is missing", (name,), path, expected="a number", found="nothing",
                                  hint=f"expected {_FORMS}")  # fmt: skip
                return None
        try:
            entry = check_range(path, raw)
        except RangeError as error:
            self.value_problem(error.code, error.message, (name, error.key), path, hint=error.hint)
            return None
        sound = [self.checked(path, getattr(entry, key), (name, key)) is not None for key in ("low", "high")]
        return entry if all(sound) else None

    def checked(self, path: str, value: Any, at: KeyPath) -> tuple[Any] | None:
        """The value as the config holds it, in a tuple; None after reporting what is wrong with it."""
        place = tuple(path.split("."))
        result = validate(merged(self.base, nested(place, value)))
        if isinstance(result, Config):
            return (value_at(config_to_mapping(result), place),)
        wrong = [error for error in result if is_about(error, place) and error.code != "conflict"]
        if not wrong:  # only together with another value, which the search may change too
            return (value,)
        self._schema_problem(wrong[0], path, at)
        return None

    def _schema_problem(self, error: SchemaError, path: str, at: KeyPath) -> None:
        inside = error.path[len(path.split(".")) :]
        self.value_problem(error.code, error.message, (*at, *inside), path, expected=error.expected,
                           found=error.found, hint=error.hint)  # fmt: skip

    def _when(self, entry: SpaceEntry, raw: Mapping[str, Any], by_path: Mapping[str, SpaceEntry]) -> dict[str, tuple]:
        name = self.name_of(entry.path)
        conditions = raw[name].get("when") if isinstance(raw[name], dict) else None
        if conditions is None:
            return {}
        if not isinstance(conditions, dict) or not conditions:
            message = f"expected a mapping such as `{{optimizer.type: sgd}}`, found {shown(conditions)}"
            self.value_problem("type", message, (name, "when"), entry.path)
            return {}
        pairs = (self._condition(entry, name, other, values, by_path) for other, values in conditions.items())
        return dict(pair for pair in pairs if pair is not None)

    def _condition(
        self, entry: SpaceEntry, name: str, other: str, raw: Any, by_path: Mapping[str, SpaceEntry]
    ) -> tuple[str, tuple[Any, ...]] | None:
        at = (name, "when", other)
        path = path_of(other)
        if isinstance(path, Refusal):
            self._key_problem(path.code, path.message, at, entry.path, hint=path.hint)
            return None
        if path == entry.path or path not in by_path:
            if path not in self._names or path == entry.path:
                names = ", ".join(f"`{self.name_of(known)}`" for known in by_path if known != entry.path)
                self._key_problem("value", f"`{other}` is no other entry of this search space", at, entry.path,
                                  hint=f"name one of {names}, or remove the condition")  # fmt: skip
            return None  # an entry with a mistake of its own has been reported
        if num_levels(by_path[path]) is None:
            self._key_problem("value", f"`{other}` is a continuous range", at, entry.path, hint="give it a list")
            return None
        return path, tuple(self._allowed(entry, by_path[path], raw, at))

    def _allowed(self, entry: SpaceEntry, parent: SpaceEntry, raw: Any, at: KeyPath) -> Iterator[Any]:
        known = [level(parent, index) for index in range(num_levels(parent) or 0)]
        several = isinstance(raw, list) and raw not in known
        for index, value in enumerate(raw if several else [raw]):
            place = (*at, index) if several else at
            checked = self.checked(parent.path, value, place)
            if checked is None:
                continue
            if checked[0] in known:
                yield checked[0]
                continue
            close = did_you_mean(str(value), [str(choice) for choice in known])
            listed = ", ".join(f"`{choice}`" for choice in known[:10])
            message = f"{shown(value)} is none of the values of `{self.name_of(parent.path)}`"
            hint = f"did you mean `{close}`?" if close else f"write one of {listed}"
            self.value_problem("value", message, place, entry.path, hint=hint)


def nested(path: KeyPath, value: Any) -> dict[str, Any]:
    """``("a", "b"), 1`` as ``{"a": {"b": 1}}``."""
    for part in reversed(path):
        value = {part: value}
    return value


def value_at(mapping: Any, path: KeyPath) -> Any:
    """What a nested mapping has at ``path``."""
    for part in path:
        mapping = mapping[part]
    return mapping


def _same_kind(value: Any, others: list[Any]) -> bool:
    """Python says that 1, 1.0 and True are one and the same."""
    return any(other == value and isinstance(other, bool) is isinstance(value, bool) for other in others)
