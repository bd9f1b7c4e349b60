"""The schema as JSON Schema (for editors and for words about fields), and as a Markdown reference."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from common.config.field_types import LARGEST_COUNT
from common.config.sections import Config

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

Fragment = dict[str, Any]


@functools.lru_cache(maxsize=1)
def json_schema() -> Fragment:
    """The JSON Schema of a config file. Treat it as read-only: there is one."""
    schema = Config.model_json_schema()
    return {"$schema": _DIALECT, **schema, "title": "ML Trainer config"}


def schema_text() -> str:
    """``configs/schema.json``."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def fragment_at(path: Sequence[str | int]) -> Fragment | None:
    """The part of the schema about ``path``; None where nothing is said about it."""
    fragments = [json_schema()]
    for part in path:
        fragments = [inner for fragment in fragments for inner in _inside(fragment, part)]
    if not fragments:
        return None
    return fragments[0] if len(fragments) == 1 else {"anyOf": fragments}


def keys_at(path: Sequence[str | int]) -> list[str]:
    """The keys that the mapping at ``path`` may have."""
    fragment = fragment_at(path)
    return [key for branch in _branches(fragment) for key in branch.get("properties", ())] if fragment else []


def choices_at(path: Sequence[str | int]) -> list[str]:
    """The names that the field at ``path`` may have, where it is a choice."""
    fragment = fragment_at(path)
    return [name for branch in _branches(fragment) for name in branch.get("enum", ())] if fragment else []


def all_keys() -> Iterator[tuple[str, ...]]:
    """The path of every section and field, in the order of the schema."""
    yield from _keys_below((), json_schema())


def words(fragment: Fragment) -> str:
    """What may stand there, such as ``a whole number of at least 1, or null``."""
    branches = list(_branches(fragment))
    # The pattern beside an enum says only that upper case is fine too.
    with_enum = any("enum" in branch for branch in branches)
    said = [_branch_words(b) for b in branches if not (with_enum and "pattern" in b and "title" not in b)]
    return ", or ".join(dict.fromkeys(said))


def _branch_words(branch: Fragment) -> str:
    if "enum" in branch:
        names = ", ".join(f"`{name}`" for name in branch["enum"])
        return names if len(branch["enum"]) == 1 else f"one of {names}"
    kind = branch.get("type")
    if kind in {"integer", "number"}:
        return ("a whole number" if kind == "integer" else "a number") + _range(branch)
    if kind == "array":
        return _array_words(branch)
    if kind == "string":
        if "pattern" in branch:
            return {"import path": "an import path `package.module:callable`", "cuda:N": "`cuda:N`"}.get(
                branch.get("title", ""), "one line of text"
            )
        return "text"
    return {"boolean": "`true` or `false`", "null": "`null`", "object": "a mapping"}.get(kind, "any value")


def _array_words(branch: Fragment) -> str:
    if "prefixItems" in branch:
        items = branch["prefixItems"]
        return f"a list of {len(items)} entries, each {words(items[0])}"
    several = f" of at least {branch['minItems']} entries" if branch.get("minItems", 0) > 1 else ""
    filled = " that is not empty" if branch.get("minItems") == 1 else ""
    items = branch.get("items", {})
    entries = list(_branches(items))
    each = "a transform" if any(entry.get("type") == "object" for entry in entries) else words(items)
    return f"a list{several}{filled}, each {each}"


def _range(branch: Fragment) -> str:
    low, above = branch.get("minimum"), branch.get("exclusiveMinimum")
    high, below = branch.get("maximum"), branch.get("exclusiveMaximum")
    if high == LARGEST_COUNT:  # there so that nothing overflows; nobody needs to be told
        high = None
    if low is not None and high is not None:
        return f" from {_number(low)} to {_number(high)}"
    if above is not None and below is not None:
        return f" between {_number(above)} and {_number(below)}, both excluded"
    parts = []
    if low is not None:
        parts.append(f" of at least {_number(low)}")
    if above is not None:
        parts.append(f" above {_number(above)}")
    if high is not None:
        parts.append(f" of at most {_number(high)}")
    if below is not None:
        parts.append(f" below {_number(below)}")
    return " and".join(parts)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def _branches(fragment: Fragment) -> Iterator[Fragment]:
    if "$ref" in fragment:
        yield from _branches(json_schema()["$defs"][fragment["$ref"].rsplit("/", 1)[-1]])
    elif "anyOf" in fragment:
        for branch in fragment["anyOf"]:
            yield from _branches(branch)
    else:
        yield fragment


def _inside(fragment: Fragment, part: str | int) -> Iterator[Fragment]:
    for branch in _branches(fragment):
        if isinstance(part, str):
            if part in branch.get("properties", {}):
                yield branch["properties"][part]
        elif branch.get("type") == "array":
            fixed = branch.get("prefixItems", [])
            if part < len(fixed):
                yield fixed[part]
            elif "items" in branch:
                yield branch["items"]


def _keys_below(path: tuple[str, ...], fragment: Fragment) -> Iterator[tuple[str, ...]]:
    for branch in _branches(fragment):
        for key, inner in branch.get("properties", {}).items():
            yield (*path, key)
            yield from _keys_below((*path, key), inner)
