"""What a YAML syntax error means, in words for someone who does not know YAML's grammar."""

from __future__ import annotations

import re

import yaml

_UNUSUAL_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\uff1a]")

# (pattern in the parser's words, message, hint); the first that matches counts
_MEANINGS = (
    (
        "mapping values are not allowed",
        "a `:` where no mapping can start",
        "align this line with its neighbours, or quote the value if the colon is part of it",
    ),
    (
        "could not find expected ':'",
        "a line that is neither `key: value` nor a list entry",
        "write `key: value`, with a space after the colon",
    ),
    (
        "expected <block end>, but found|expected the node content, but found '-'|block sequence entries are not",
        "the indentation does not fit the lines above",
        "start entries of one mapping or list in the same column, and quote text with special characters",
    ),
    (
        r"expected ',' or '\]'|expected ',' or '\}'|found '<stream end>'",
        "a bracket that is not closed",
        "close it, or put a comma between the entries",
    ),
    (
        "expected '<document start>'",
        "something after the end of the document",
        "write the file as one mapping, `key: value` line by line",
    ),
    ("unexpected end of stream", "a quote that is not closed", "close it"),
    (
        "unknown escape character|expected escape sequence",
        "an escape that YAML does not know",
        "use single quotes, which take a backslash as it is",
    ),
    (
        "cannot start any token",
        "a character that cannot start a value",
        "put the value in quotes",
    ),
    ("unexpected document separator", "a document separator inside a quoted value", "close the quote"),
    ("directive|found incompatible YAML|version number", "a directive that is not understood", "remove the line"),
    ("while parsing a flow|flow", "a mistake between brackets", "check brackets and commas"),
    (
        "tag|anchor|alias",
        "a name after `!`, `&` or `*` that is not valid",
        "quote the value if that character is part of it",
    ),
    (
        "block scalar|indentation indicator|chomping",
        "a wrong header of a block of text",
        "write `key: |` and the text below, indented",
    ),
)


def explain(error: yaml.MarkedYAMLError, lines: list[str]) -> tuple[str, str | None, int, int]:
    """Message, hint, and the place (from 0) of a syntax error."""
    words = " ".join(filter(None, (error.problem, error.context)))
    mark = error.problem_mark or error.context_mark
    # Where a quote, bracket or key began says more than the end of the file, where the parser noticed.
    if error.context_mark and re.search("could not find expected ':'|end of stream|document separator|flow", words):
        mark = error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    in_the_text = _visible_cause(lines, line)
    if in_the_text:
        return in_the_text
    for pattern, message, hint in _MEANINGS:
        if re.search(pattern, words):
            return message, hint, line, column
    return f"wrong YAML ({words})", None, line, column


def _visible_cause(lines: list[str], line: int) -> tuple[str, str | None, int, int] | None:
    """A cause that the text itself shows, on the line where the parser stopped or on the one before."""
    text = lines[line] if line < len(lines) else ""
    tab = re.match(r" *\t", text)
    if tab:
        return "a tab in the indentation", "indent with spaces", line, tab.end() - 1
    for number in (line, line - 1):
        unusual = _UNUSUAL_SPACE.search(lines[number]) if 0 <= number < len(lines) else None
        if unusual:
            hint = f"replace the character U+{ord(unusual.group()):04X} by a plain space or colon"
            return "a space or colon that is not the plain one", hint, number, unusual.start()
    before = lines[line - 1] if 0 < line <= len(lines) else ""
    word = re.match(r"( *)[A-Za-z_][\w.-]* *$", before)
    if word and re.match(r" *", text).end() == word.end(1) and ":" in text:
        return "a key without its colon", f"write `{before.strip()}: value`", line - 1, word.end(1)
    return None
