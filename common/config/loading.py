"""From a file, a mode and overrides to a config, or to everything that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config.conflicts import conflicts
from common.config.modes import Mode, departures, preset_values
from common.config.overrides import Overrides, merged, read_overrides
from common.config.problems import ERROR, WARNING, ConfigInvalidError, Problem, count, in_file_order
from common.config.schema_errors import MISSING, MISSING_SECTION, SchemaError, describe, shown, validate
from common.config.sections import Config
from common.config.yaml_document import Document, KeyPath, dotted, read_yaml
from common.exits import InputFileError

_UNREAD_KEY = frozenset({"key", "tag", "hidden-character", "merge"})


@dataclass(frozen=True)
class LoadedConfig:
    """A valid config.

    Args:
        config: every field resolved.
        notices: sentences for the user: departures from the mode, contradictions, values that were left out.
        source: the file.
    """

    config: Config
    notices: list[str]
    source: Path


def load_config(
    path: str | Path,
    *,
    mode: Mode | str | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
) -> LoadedConfig:
    """Read a config; an explicit value always wins.

    Built-in default < ``mode`` < file < ``overrides`` < ``flags``.

    Args:
        path: the YAML file.
        mode: a ``Mode`` or its name, or None.
        overrides: ``section.field=value`` each, where the value is YAML.
        flags: values by dotted key, as the command line parsed them; None means that the flag was not given.
    Raises:
        ConfigInvalidError: the file, an override or a flag is not valid; the message lists every error.
        InputFileError: the file cannot be read, or is not UTF-8.
    """
    config, problems = _examine(path, mode, overrides, flags)
    if config is None:
        raise ConfigInvalidError(problems)
    return LoadedConfig(config, [problem.sentence() for problem in problems], Path(path))


def check_config(
    path: str | Path,
    *,
    mode: Mode | str | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
) -> list[Problem]:
    """Every error and warning of a config, in file order; arguments as for ``load_config``.

    Raises:
        InputFileError: the file cannot be read, or is not UTF-8.
    """
    return _examine(path, mode, overrides, flags)[1]


def config_from_mapping(mapping: Mapping[str, Any], source: str | Path) -> Config:
    """The config stored inside another file, such as a checkpoint.

    Raises:
        InputFileError: it is not valid; the message names ``source`` and the first error.
    """
    if not isinstance(mapping, Mapping):
        raise InputFileError("the config in it is no mapping", path=source)
    result = validate(dict(mapping))
    if isinstance(result, Config):
        return result
    more = f" (and {count(len(result) - 1, 'more error')})" if len(result) > 1 else ""
    raise InputFileError(f"the config in it is not valid: {describe(result[0])}{more}", path=source)


@dataclass
class _Sections:
    """The file's mapping, ready for the schema, and what was said on the way."""

    value: dict[str, Any]
    warnings: list[Problem] = field(default_factory=list)


def _examine(
    path: str | Path, mode: Mode | str | None, overrides: Sequence[str], flags: Mapping[str, object] | None
) -> tuple[Config | None, list[Problem]]:
    mode = Mode(mode) if mode is not None else None
    document = read_yaml(path)
    changes = read_overrides(overrides, flags or {})
    if not isinstance(document.value, dict):
        return None, [*(document.problems or [_wrong_root(document)]), *changes.problems]
    sections = _without_empty_sections(document)
    value = merged(preset_values(mode), sections.value) if mode else sections.value
    config = validate(value)
    problems = list(document.problems)
    if not isinstance(config, Config):
        problems += [p for error in config if (p := _in_file(error, document))]
    if not problems and changes.values:
        config = validate(merged(value, changes.values))
        if not isinstance(config, Config):
            changes.problems += [_in_override(error, changes) for error in config]
    if problems or changes.problems or not isinstance(config, Config):
        return None, [*in_file_order(problems), *changes.problems]
    warnings = [*sections.warnings, *_doubts(config, mode, document, changes)]
    return config, in_file_order(warnings)


def _wrong_root(document: Document) -> Problem:
    if document.value is None:
        message, found = "the file is empty", "nothing"
    else:
        found = shown(document.value)
        message = f"expected a mapping of sections, found {found}"
    return document.problem(
        "root", message, document.value_span(()), expected="a mapping of sections", found=found,
        hint="begin with a section, such as `model:`; see configs/baseline_template.yaml",
    )  # fmt: skip


def _without_empty_sections(document: Document) -> _Sections:
    """Sections that may be left out may also be left empty (all their lines in comments); that is worth a warning."""
    sections = _Sections(document.value)
    for path in sorted(document.written_empty, key=lambda p: document.key_span(p).line):
        span = document.key_span(path)
        if _is_optional_section(path):
            sections.value = merged(sections.value, _nested(path, {}))
            message = "the section is empty, so its defaults apply"
            hint = "remove it, or give it fields"
        else:
            message, hint = "no value is given, so it is read as `null`", "write `null` if that is meant"
        sections.warnings.append(
            document.problem("empty-value", message, span, severity=WARNING, key=dotted(path), hint=hint)
        )
    return sections


def _is_optional_section(path: KeyPath) -> bool:
    section: Any = Config
    for part in path:
        field_info = section.model_fields.get(part) if isinstance(section, type) else None
        if field_info is None:
            return False
        section = field_info.annotation
    return hasattr(section, "model_fields") and not field_info.is_required()


def _nested(path: KeyPath, value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value


def _in_file(error: SchemaError, document: Document) -> Problem | None:
    """The error at its place in the file, or None where the reader has already said what is wrong there."""
    if any(error.path[: len(path)] == path for path in document.unreadable):
        return None
    missing = error.code in {MISSING, MISSING_SECTION}
    if missing and any(p.code in _UNREAD_KEY and p.key == dotted(error.path[:-1]) for p in document.problems):
        return None  # the missing key may be the one that could not be read
    if missing:
        span = document.key_span(error.path[:-1])
    else:
        span = document.key_span(error.path) if error.at_key else document.value_span(error.path)
    found, message = error.found, error.message
    if error.path in document.written_empty and found == "`null`":
        found, message = "no value", message.removesuffix("`null`") + "no value"
    return document.problem(
        error.code, message, span, key=dotted(error.path), expected=error.expected, found=found, hint=error.hint
    )


def _in_override(error: SchemaError, changes: Overrides) -> Problem:
    return Problem(
        path=changes.origin_of(error), code=error.code, message=error.message, severity=ERROR,
        key=dotted(error.path), expected=error.expected, found=error.found, hint=error.hint,
    )  # fmt: skip


def _doubts(config: Config, mode: Mode | None, document: Document, changes: Overrides) -> list[Problem]:
    found = [(key, message, hint, "conflict") for key, message, hint in conflicts(config)]
    if mode:
        found += [(key, message, None, "mode") for key, message in departures(config, mode)]
    return [_doubt(document, changes, *doubt) for doubt in found]


def _doubt(document: Document, changes: Overrides, key: str, message: str, hint: str | None, code: str) -> Problem:
    path = _path_of(key)
    origin = changes.origin_of_path(path)
    if origin:
        return Problem(origin, code, message, severity=WARNING, key=key, hint=hint)
    span = document.value_span(path)
    return document.problem(code, message, span, severity=WARNING, key=key, hint=hint)


def _path_of(key: str) -> KeyPath:
    parts: list[str | int] = []
    for part in key.split("."):
        name, _, index = part.partition("[")
        parts += [name, int(index[:-1])] if index else [name]
    return tuple(parts)
