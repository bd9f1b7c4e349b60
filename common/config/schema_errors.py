"""The schema's verdict on a mapping, in words: what was expected, what was found, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from common.config.characters import printable
from common.config.editor_schema import all_keys, choices_at, fragment_at, keys_at, words
from common.config.problems import did_you_mean
from common.config.sections import Config
from common.config.yaml_document import KeyPath, dotted
from common.config.yaml_scalars import quoted_value_hint, trap_hint

MISSING = "missing-field"
MISSING_SECTION = "missing-section"
UNKNOWN = "unknown-key"

_MAX_SHOWN = 60
_OWN_MESSAGES = frozenset({"conflict", "transform_form", "value"})


@dataclass(frozen=True)
class SchemaError:
    """One thing that the schema refuses.

    Args:
        path: where; for a missing key, where it would be.
        at_key: whether the key is meant rather than its value.
    """

    path: KeyPath
    code: str
    message: str
    at_key: bool = False
    expected: str | None = None
    found: str | None = None
    hint: str | None = None


def validate(value: dict[str, Any]) -> Config | list[SchemaError]:
    """The config that ``value`` describes, or what is wrong with it; a fault is reported once, where it is."""
    try:
        return Config.model_validate(value)
    except ValidationError as refused:
        details = refused.errors(include_url=False)
    errors = [_translated(detail, value) for detail in details]
    return list(_without_echoes(errors))


def unknown_key_hint(path: KeyPath) -> str:
    """What an unknown key was probably meant to be."""
    *parent, key = path
    known = keys_at(parent)
    close = did_you_mean(str(key), known)
    if close:
        return f"did you mean `{close}`?"
    elsewhere = [other for other in all_keys() if other[-1] == str(key).lower() and list(other[:-1]) != parent]
    if elsewhere:
        return f"did you mean `{'.'.join(elsewhere[0])}`?"
    if not known:
        return "remove it"
    return f"known here: {', '.join(f'`{name}`' for name in known)}"


def shown(value: object) -> str:
    """A value in words and as it would be written."""
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, str):
        text = printable(value.replace("\n", " "))
        return f"the text `{text[:_MAX_SHOWN]}{'...' if len(text) > _MAX_SHOWN else ''}`"
    return f"{value!r}"


def _translated(detail: Any, document: dict[str, Any]) -> SchemaError:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in {"missing", "extra_forbidden"}:
        path = (*_document_path(detail["loc"][:-1], document), detail["loc"][-1])
        return _about_key(kind, path)
    path = _document_path(detail["loc"], document)
    if kind in _OWN_MESSAGES:
        at = tuple(context["at"].split(".")) if "at" in context else ()
        return SchemaError((*path, *at), "conflict" if kind == "conflict" else "value", detail["msg"],
                           hint=context.get("hint"))  # fmt: skip
    return _about_value(kind, path, _value_at(path, document), context)


def _about_key(kind: str, path: KeyPath) -> SchemaError:
    if kind == "extra_forbidden":
        return SchemaError(path, UNKNOWN, f"unknown key `{path[-1]}`", at_key=True, hint=unknown_key_hint(path))
    fragment = fragment_at(path) or {}
    if len(path) == 1:
        needed = ", ".join(f"`{key}`" for key in keys_at(path) if _is_required((*path, key)))
        return SchemaError(
            path, MISSING_SECTION, f"the required section `{path[0]}` is missing", at_key=True,
            expected="a mapping", found="nothing", hint=f"add `{path[0]}:` with {needed}",
        )  # fmt: skip
    expected = words(fragment)
    return SchemaError(
        path, MISSING, "this required field is missing", at_key=True, expected=expected, found="nothing",
        hint=f"add `{path[-1]}:` with {expected}",
    )  # fmt: skip


def _about_value(kind: str, path: KeyPath, value: Any, context: dict[str, Any]) -> SchemaError:
    expected = "a fixed whole number from 0 to 4294967295" if kind == "seed" else words(fragment_at(path) or {})
    if kind == "choice" and context.get("at_key") and isinstance(value, dict):
        value = next(iter(value), None)
    found = shown(value)
    code = "seed" if kind == "seed" else "type" if _is_type_error(kind) else "value"
    return SchemaError(
        path, code, f"expected {expected}, found {found}", expected=expected, found=found,
        hint=context.get("hint") or _value_hint(kind, path, value, context),
    )  # fmt: skip


def _is_type_error(kind: str) -> bool:
    return kind.endswith("_type") or kind in {"int_from_float", "is_instance_of"}


def _value_hint(kind: str, path: KeyPath, value: Any, context: dict[str, Any]) -> str | None:
    if kind == "tuple_type" and isinstance(value, (str, int, float)):
        return f"write a list: `[{value}]`"
    if kind in {"model_type", "dict_type"}:
        return None
    choices = context.get("choices") or choices_at(path)
    if isinstance(value, str):
        trap = trap_hint(value) or (None if choices else quoted_value_hint(value))
        close = did_you_mean(value, choices)
        return f"did you mean `{close}`?" if close else trap
    if value is None and "none" in choices:
        return "write the word `none`"
    if isinstance(value, float) and value.is_integer() and kind == "int_type":
        return f"write {int(value)}"
    if isinstance(value, (int, float)) and kind == "string_type":
        return "put it in quotes"
    return None


def _document_path(location: tuple[str | int, ...], document: Any) -> KeyPath:
    """The path in the file of pydantic's location, which also names branches of unions."""
    path: list[str | int] = []
    for part in location:
        inside_mapping = isinstance(document, dict) and part in document
        inside_list = isinstance(document, (list, tuple)) and isinstance(part, int) and part < len(document)
        if inside_mapping or inside_list:
            path.append(part)
            document = document[part]
    return tuple(path)


def _value_at(path: KeyPath, document: Any) -> Any:
    """What the file says there; pydantic tells what a choice has made of it."""
    for part in path:
        document = document[part]
    return document


def _without_echoes(errors: list[SchemaError]) -> Iterator[SchemaError]:
    """Leave out what only follows from another error.

    A union reports each of its branches: the deepest place and the first word on it count. A key that is missing
    because it is misspelt is one mistake.
    """
    meant = {(*error.path[:-1], _meant(error)) for error in errors if error.code == UNKNOWN}
    seen: set[KeyPath] = set()
    for error in errors:
        if error.path in seen:
            continue
        if error.code in {MISSING, MISSING_SECTION}:
            if error.path in meant:
                continue
        elif error.code != UNKNOWN and any(_is_below(other, error.path) for other in errors):
            continue
        seen.add(error.path)
        yield error


def _meant(error: SchemaError) -> str | None:
    return did_you_mean(str(error.path[-1]), keys_at(error.path[:-1]))


def _is_below(error: SchemaError, path: KeyPath) -> bool:
    inside = len(error.path) > len(path) and error.path[: len(path)] == path
    return inside and error.code not in {MISSING, UNKNOWN}


def _is_required(path: KeyPath) -> bool:
    section: Any = Config
    for part in path[:-1]:
        section = section.model_fields[part].annotation
    return section.model_fields[path[-1]].is_required()


def describe(error: SchemaError) -> str:
    """The error as one clause, for values that stand in no file."""
    return f"{dotted(error.path)}: {error.message}"


def is_about(error: SchemaError, path: KeyPath) -> bool:
    """Whether the error is at ``path``, above it or below it."""
    shorter = min(len(error.path), len(path))
    return error.path[:shorter] == path[:shorter]
