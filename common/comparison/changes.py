"""Which config fields differ between two runs, and which recommendation each change came from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.comparison.runs import Run
from common.comparison.training_command import config_file
from common.config import Config, config_differences, load_config, read_yaml
from common.config.dumping import NOT_IN_HASH
from common.exits import InputFileError, ToolError
from common.guides import apply_changes, load_all_guides

MAX_GUIDES_NAMED = 3
MAX_REPORT_BYTES = 4 * 2**20
_WAS = re.compile(r"#\s*(was\b.*)", re.IGNORECASE)
_HEADING = re.compile(r"#{1,6}\s+(.*)")


@dataclass(frozen=True)
class FieldChange:
    """One field that differs.

    Attributes:
        sources: where the change is said, or seems, to come from; the surest first; empty where nothing tells.
        influences_training: whether the field can change the numbers.
    """

    key: str
    old: Any
    new: Any
    sources: Sequence[str]
    influences_training: bool


def config_changes(baseline: Run, optimized: Run, diagnosis: Path | None) -> list[FieldChange] | None:
    """Every field that differs, in the order of the schema; None where a config cannot be read.

    Args:
        diagnosis: a diagnostic report that the changes may come from; it need not exist.
    """
    if baseline.config is None or optimized.config is None:
        return None
    comments = _comments(optimized)
    notes = (optimized.config.experiment.notes or "").splitlines()
    report = _report_lines(diagnosis)
    differences = config_differences(baseline.config, optimized.config)
    guides = _guides() if differences else []
    changes = []
    for key, old, new in differences:
        sources = [
            *([f"config: {comments[key]}"] if key in comments else []),
            *(f"notes: {line.strip()}" for line in notes if _names(line, key)),
            *_in_report(report, key, diagnosis),
            *_from_guides(guides, baseline.config, key, old, new),
        ]
        changes.append(FieldChange(key, old, new, sources, not _is_without_influence(key)))
    return changes


def shown_value(value: Any) -> str:
    """As YAML would have it on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_without_influence(key: str) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in NOT_IN_HASH)


def _comments(run: Run) -> Mapping[str, str]:
    """``# was ...`` comments by dotted key, from the file that the run was started with, if it is still the same."""
    path = config_file(run)
    if path is None or run.config is None:
        return {}
    try:
        document = read_yaml(path)
        config = load_config(path, mode=run.mode).config
    except (ToolError, ValueError):
        return {}
    stale = {key for key, *_ in config_differences(config, run.config)}
    found = {}
    for place in document.key_spans:
        key = ".".join(str(part) for part in place)
        comment = None if key in stale else _was(document.lines, document.key_span(place).line)
        if comment:
            found[key] = comment
    return found


def _was(lines: Sequence[str], line: int) -> str | None:
    """The comment on a line, or alone on the line above it."""
    match = _WAS.search(lines[line - 1])
    if match is None and line > 1 and lines[line - 2].lstrip().startswith("#"):
        match = _WAS.search(lines[line - 2])
    return match[1].strip() if match else None


def _report_lines(path: Path | None) -> list[str]:
    try:
        if path is None or path.stat().st_size > MAX_REPORT_BYTES:
            return []
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _in_report(lines: Sequence[str], key: str, path: Path | None) -> Iterator[str]:
    """The section of the diagnostic report that names the field first."""
    heading = ""
    for line in lines:
        title = _HEADING.match(line)
        if title:
            heading = title[1].strip()
        if _names(line, key):
            yield f"{path.name if path else ''}: {heading or line.strip()}"
            return


def _names(text: str, key: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.]*\w)", text) is not None


def _from_guides(guides: Sequence[Any], baseline: Config, key: str, old: Any, new: Any) -> list[str]:
    """Recommendations of the guides that would have made this change, or else one in the same direction."""
    same, alike = [], []
    for guide in guides:
        for recommendation in guide.recommendations:
            if key not in recommendation.config:
                continue
            for suggested in _suggested(baseline, recommendation, key):
                name = f"{guide.id}.md, {recommendation.id}"
                if suggested == new:
                    same.append(f"as in {name}")
                elif _same_direction(old, new, suggested):
                    alike.append(f"like {name} (which says {shown_value(suggested)})")
    return (same or alike)[:MAX_GUIDES_NAMED]


def _guides() -> Sequence[Any]:
    try:
        return list(load_all_guides().values())
    except ToolError:
        return []


def _suggested(config: Config, recommendation: Any, key: str) -> list[Any]:
    try:
        return [change.new for change in apply_changes(config, [recommendation])[1] if change.key == key]
    except InputFileError:  # it contradicts something else in this config, so it was not what happened
        return []


def _same_direction(old: Any, new: Any, suggested: Any) -> bool:
    values = (old, new, suggested)
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        return False
    return (new - old) * (suggested - old) > 0
