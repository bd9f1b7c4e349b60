"""The search space: read from its file, checked entry by entry against the config's schema, then as a whole."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.config import Config, LoadedConfig
from common.config.conflicts import conflicts
from common.config.overrides import merged
from common.config.problems import WARNING, ConfigInvalidError, Problem, in_file_order
from common.config.schema_errors import UNKNOWN, shown, validate
from common.config.yaml_document import Document, dotted, read_yaml
from common.search.configurations import MAX_COMBINATIONS, Configurations, Params, in_order
from common.search.levels import at_fraction, num_levels
from common.search.space_entries import ROOT, EntryReader, nested
from common.search_results.records import SpaceEntry

# Configurations that are tried on the schema before anything is trained: all, or so many at random.
MAX_CHECKED = 2000
# Any config, for values to be checked in where there is no base.
_ANY_CONFIG: dict[str, dict[str, Any]] = {
    "model": {"architecture": "simple_mlp", "dropout": 0.0},
    "optimizer": {"type": "sgd", "learning_rate": 0.1, "weight_decay": 0.0},
    "training": {"epochs": 1, "batch_size": 1, "device": "cpu"},
    "early_stopping": {"enabled": False, "patience": 1, "metric": "val_loss"},
    "reproducibility": {"seed": 0, "deterministic": True},
}


@dataclass(frozen=True)
class SearchSpace:
    """A search space that is sound together with the base config it was read for.

    ``notices`` are sentences about what is allowed but doubtful.
    """

    entries: tuple[SpaceEntry, ...]
    source: Path
    notices: tuple[str, ...] = ()

    @cached_property
    def configurations(self) -> Configurations:
        return Configurations(self.entries)

    @property
    def size(self) -> int | None:
        """The number of configurations, None where a continuous range makes it infinite."""
        return self.configurations.size


def read_search_space(path: str | Path, base: LoadedConfig) -> SearchSpace:
    """Read a search space and check it: every value, and the configurations that it makes of the base config.

    Raises:
        ConfigInvalidError: it is not valid; the message lists every error with its place.
        InputFileError: the file cannot be read, or is not UTF-8.
    """
    document = read_yaml(path)
    reader = EntryReader(document, base.config.model_dump(mode="json", exclude_unset=True))
    entries, problems = _read_entries(document, reader)
    if not problems:
        problems = list(_combination_problems(document, reader, entries, base.config))
    errors = [problem for problem in problems if problem.severity != WARNING]
    if errors:
        raise ConfigInvalidError(in_file_order(errors), what="search space")
    return SearchSpace(tuple(entries), Path(path), tuple(problem.sentence() for problem in problems))


def is_search_space(path: str | Path) -> bool:
    """Whether a YAML file means to be a search space rather than a config."""
    value = read_yaml(path).value
    return isinstance(value, dict) and ROOT in value


def check_search_space(path: str | Path) -> list[Problem]:
    """Every error of a search space that can be told without a base config, in file order.

    Raises:
        InputFileError: the file cannot be read, or is not UTF-8.
    """
    document = read_yaml(path)
    return in_file_order(_read_entries(document, EntryReader(document, _ANY_CONFIG))[1])


def _read_entries(document: Document, reader: EntryReader) -> tuple[list[SpaceEntry], list[Problem]]:
    """The entries, and what is wrong with them one by one or with how they depend on each other."""
    raw = _raw_entries(document)
    entries = reader.read(raw) if raw is not None else []
    problems = [*document.problems, *(p for p in reader.problems if not _is_echo(p, document))]
    return entries, problems or list(_structure_problems(document, reader, entries))


def configured(base: Config, params: Mapping[str, Any]) -> Config | str:
    """The base config with these values by full path, or what is wrong with it."""
    result = validate(_with_params(base.model_dump(mode="json", exclude_unset=True), params))
    if isinstance(result, Config):
        return result
    return f"{dotted(result[0].path)}: {result[0].message}"


def _raw_entries(document: Document) -> Mapping[str, Any] | None:
    """What stands under ``search_space``; None after reporting that nothing usable does."""
    value = document.value
    if document.problems and not isinstance(value, dict):
        return None
    if not isinstance(value, dict) or ROOT not in value:
        found = "an empty file" if value is None else shown(value)
        document.problems.append(document.problem(
            "root", f"expected `{ROOT}:`, found {found}", document.value_span(()),
            hint=f"begin with `{ROOT}:`, and under it a list of values for each hyperparameter",
        ))  # fmt: skip
        return None
    for key in value:
        if key != ROOT:
            document.problems.append(document.problem(
                UNKNOWN, f"unknown key `{key}`", document.key_span((key,)), key=key,
                hint=f"everything stands under `{ROOT}:`",
            ))  # fmt: skip
    raw = value[ROOT]
    if isinstance(raw, dict) and raw:
        return raw
    empty = not raw and not isinstance(raw, (bool, int, float))
    message = "the search space is empty" if empty else f"expected a mapping, found {shown(raw)}"
    document.problems.append(document.problem(
        "empty-space" if empty else "type", message, document.value_span((ROOT,)), key=ROOT,
        hint="give a list of values for each hyperparameter, such as `learning_rate: [1e-4, 1e-3]`",
    ))  # fmt: skip
    return None


def _is_echo(problem: Problem, document: Document) -> bool:
    """Whether the reader of the file has already said what is wrong at this place."""
    return any((p.line, p.column) == (problem.line, problem.column) for p in document.problems)


def _structure_problems(document: Document, reader: EntryReader, entries: Sequence[SpaceEntry]) -> Iterator[Problem]:
    try:
        in_order(entries)
    except ValueError:
        circular = next(entry for entry in entries if entry.when)
        span = document.key_span((ROOT, reader.name_of(circular.path), "when"))
        yield document.problem("conflict", "the conditions depend on each other in a circle", span,
                               key=circular.path, hint="remove one of them")  # fmt: skip
        return
    deciding = {path for entry in entries for path in entry.when}
    sizes = [num_levels(entry) or 1 for entry in entries if entry.path in deciding]
    if _exceeds(sizes, MAX_COMBINATIONS):
        first = next(entry for entry in entries if entry.path in deciding)
        span = document.key_span((ROOT, reader.name_of(first.path)))
        yield document.problem("too-large", f"more than {MAX_COMBINATIONS:,} combinations of values that others depend "
                               "on", span, key=first.path, hint="give fewer values")  # fmt: skip


def _exceeds(sizes: Sequence[int], most: int) -> bool:
    return any(product > most for product in itertools.accumulate(sizes, lambda a, b: a * b))


def _combination_problems(
    document: Document, reader: EntryReader, entries: Sequence[SpaceEntry], base: Config
) -> Iterator[Problem]:
    """What is wrong, or doubtful, with whole configurations; each kind once, with the first one that shows it."""
    mapping = base.model_dump(mode="json", exclude_unset=True)
    known = {(key, message) for key, message, _ in conflicts(base)}
    findings: dict[tuple[str, str], tuple[str, str | None, Params]] = {}
    for params in _sample(entries):
        result = validate(_with_params(mapping, params))
        if not isinstance(result, Config):
            for error in result:
                findings.setdefault((dotted(error.path), error.message), ("error", error.hint, params))
            continue
        for key, message, hint in conflicts(result):
            if (key, message) not in known:
                findings.setdefault((key, message), (WARNING, hint, params))
    for (key, message), (severity, hint, params) in findings.items():
        path = key if key in params else next(iter(params))
        span = document.key_span((ROOT, reader.name_of(path)))
        values = ", ".join(f"{name}: {value}" for name, value in params.items())
        where = f" (with {values})" if len(params) > 1 else ""
        yield document.problem("conflict", f"{message}{where}", span, severity=severity, key=key,
                               hint=_condition_hint(hint, severity))  # fmt: skip


def _condition_hint(hint: str | None, severity: str) -> str:
    condition = "give the entry a condition (`when`) that rules this out"
    return condition if hint is None or severity == WARNING else f"{hint}, or {condition}"


def _sample(entries: Sequence[SpaceEntry]) -> Iterator[Params]:
    """All configurations, or where there are too many: the ends of every entry, then some at random."""
    space = Configurations(entries)
    if space.size is not None and space.size <= MAX_CHECKED:
        yield from space
        return
    for fraction in (0.0, 0.999_999):
        yield space.active({entry.path: at_fraction(entry, fraction) for entry in entries})
    rng = random.Random("search space")
    for _ in range(MAX_CHECKED // 4):
        yield space.draw(rng)


def _with_params(mapping: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    for path, value in params.items():
        mapping = merged(mapping, nested(tuple(path.split(".")), value))
    return dict(mapping)
