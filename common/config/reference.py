"""``configs/README.md``: every field in a table, written from the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from common.config.augmentation_schema import TRANSFORMS
from common.config.editor_schema import fragment_at, words
from common.config.field_types import Section
from common.config.modes import PRESETS
from common.config.sections import Config

_INTRODUCTION = """\
# Configuration

One YAML file says what is trained, on what, how, and what is kept. This page is written from the schema
(`python config_validator.py --print-reference > configs/README.md`), so it is complete and in step with the validator.

| File | For |
| --- | --- |
| `training_config.yaml` | a first run on the bundled digits, in any mode |
| `baseline_template.yaml` | phase 2: conservative, no regularisation |
| `optimization_template.yaml` | phase 4: with what the diagnosis recommended |
| `final_template.yaml` | phase 5: the best config, trained to the end and tested |
| `examples/` | other data, other networks |
| `schema.json` | the schema for editors: completion and checks while typing |

Check a file before you train: `python config_validator.py --config configs/training_config.yaml`.

## What counts

Built-in default < mode < file < `--set section.field=value` and the command's own flags. Required fields stand in the
file; where they depart from what the mode means, a line says so.
"""

_RULES = """\
## How YAML is read

As YAML 1.2: `1e-3` and `1E5` are numbers; `yes`, `no`, `on` and `off` are text; `010`, `1_000` and `1:30` are no
numbers. A key that stands twice, an unknown key, a tag, a character that cannot be seen, `.nan` and `.inf` are errors.
Anchors, aliases and merge keys (`<<: *base`) work. Names of architectures, optimizers and metrics may be written in
upper or lower case.
"""


def reference_text() -> str:
    """The whole page, Markdown."""
    parts = [_INTRODUCTION, _modes_table(), _RULES, "## Fields\n\nA `*` marks what every file must say.\n"]
    for name, field in Config.model_fields.items():
        parts.append("\n".join(_section_lines(name, field.annotation, field.description or "")) + "\n")
    parts.append(_transforms_table())
    return "\n".join(parts)


def _modes_table() -> str:
    rows = ["| Mode | epochs | patience | test at the end |", "| --- | --- | --- | --- |"]
    for mode, preset in PRESETS.items():
        low, high = preset.patience[0], preset.patience[-1]
        patience = f"{low}" if low == high else f"{low} to {high}"
        rows.append(f"| `{mode}` | {preset.epochs} | {patience} | {'yes' if preset.test_evaluation else 'no'} |")
    return "\n".join(rows) + "\n"


def _section_lines(name: str, kind: Any, description: str) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    yield description
    yield ""
    yield "| Field | May be | Default | Meaning |"
    yield "| --- | --- | --- | --- |"
    yield from _rows((name,), kind)


def _rows(path: tuple[str, ...], section: type[Section]) -> Iterator[str]:
    for key, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from _rows((*path, key), inner)
            continue
        name = ".".join((*path, key)[1:]) + ("*" if field.is_required() else "")
        default = "" if field.is_required() else f"`{_as_json(field.get_default(call_default_factory=True))}`"
        allowed = words(fragment_at((*path, key)) or {})
        yield f"| `{name}` | {allowed} | {default} | {field.description} |"


def _as_json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _transforms_table() -> str:
    lines = [
        "### Transforms",
        "",
        "Each entry of `data_augmentation.transforms` is a name (`- cutout`), with the defaults below, or a name with "
        "arguments (`- cutout: {size: 4}`).",
        "",
        "| Transform | Arguments and defaults | What it does |",
        "| --- | --- | --- |",
    ]
    for name, kind in TRANSFORMS.items():
        fields = {key: field for key, field in kind.model_fields.items() if key != "name"}
        arguments = ", ".join(f"`{key}: {f.default}` ({_clause(f.description)})" for key, f in fields.items())
        lines.append(f"| `{name}` | {arguments} | {kind.__doc__} |")
    return "\n".join(lines) + "\n"


def _clause(text: str | None) -> str:
    text = (text or "").rstrip(".")
    return text[:1].lower() + text[1:]
