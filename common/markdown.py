"""Markdown that reads well as plain text too."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table whose columns line up; numbers are expected to be formatted already. Pipes in cells are escaped."""
    cells = [[_cell(value) for value in row] for row in [header, *rows]]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]
    lines = [_line(row, widths) for row in cells]
    return "\n".join([lines[0], _line(["-" * width for width in widths], widths), *lines[1:]])


def bullet_list(items: Sequence[str], *, empty: str) -> str:
    """One line per item, or the sentence ``empty``."""
    return "\n".join(f"- {item}" for item in items) if items else empty


def code_block(text: str, language: str = "") -> str:
    """A fenced block; the fence is longer than any run of backticks inside."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def document(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """A title and its sections; a section without a heading stands right under the title."""
    parts = [f"# {title}"]
    for heading, body in sections:
        parts.append(f"## {heading}\n\n{body}" if heading else body)
    return "\n\n".join(parts) + "\n"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
