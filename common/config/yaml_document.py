"""Reading YAML files that may be hostile: every mistake becomes a ``Problem`` with its place, never a traceback.

The reader is meant for configs, search spaces and the front matter of guides. It accepts YAML 1.2's core schema with
anchors, aliases and merge keys, and refuses what silently changes meaning: duplicate keys, tags, hidden characters,
numbers beyond 64 bits, keys that are not text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from common.config.characters import hidden_character, is_hidden, name_of, printable
from common.config.problems import ConfigInvalidError, Problem, in_file_order
from common.config.yaml_nodes import Kind, Node, TreeError, parse_tree
from common.config.yaml_scalars import ScalarError, resolve
from common.config.yaml_syntax import explain
from common.exits import InputFileError

MAX_BYTES = 1024 * 1024
MAX_HIDDEN_SHOWN = 20

KeyPath = tuple[str | int, ...]

_LINE_END = re.compile("\r\n|\r|\n")


class Unreadable:
    """Stands in a document's value where a problem was already reported."""

    def __repr__(self) -> str:
        return "<unreadable>"


UNREADABLE = Unreadable()


@dataclass(frozen=True)
class Span:
    """A place in a file: line and columns from 1, in characters; ``end_column`` is one past the last."""

    line: int
    column: int
    end_column: int


@dataclass
class Document:
    """A YAML file that was read.

    Args:
        source: the path as the user gave it, or a name for text from elsewhere.
        lines: the text, without line ends.
        value: plain Python: dict (keys are text), list, str, int, float, bool, None; ``UNREADABLE`` where a problem is.
        problems: everything that is wrong with it as YAML; where there is any, ``value`` may be incomplete.
        written_empty: paths whose value was left out (``key:``).
        quoted: paths of scalars in quotes.
        unreadable: paths of values with a problem.
    """

    source: str
    lines: list[str]
    first_line: int = 1
    value: Any = None
    problems: list[Problem] = field(default_factory=list)
    written_empty: set[KeyPath] = field(default_factory=set)
    quoted: set[KeyPath] = field(default_factory=set)
    unreadable: set[KeyPath] = field(default_factory=set)
    key_spans: dict[KeyPath, Span] = field(default_factory=dict)
    value_spans: dict[KeyPath, Span] = field(default_factory=dict)

    def key_span(self, path: KeyPath) -> Span:
        """Where the key of ``path`` stands; for a list entry, where the entry does; else the nearest parent's."""
        while path:
            span = self.key_spans.get(path) or self.value_spans.get(path)
            if span:
                return span
            path = path[:-1]
        return self.value_spans.get((), Span(self.first_line, 1, 2))

    def value_span(self, path: KeyPath) -> Span:
        """Where the value of ``path`` stands; where it was left out, the key."""
        if path in self.value_spans and path not in self.written_empty:
            return self.value_spans[path]
        return self.key_span(path)

    def problem(self, code: str, message: str, span: Span, **more: Any) -> Problem:
        """A problem at ``span`` of this file, with its line as the excerpt."""
        index = span.line - self.first_line
        excerpt = self.lines[index] if 0 <= index < len(self.lines) else ""
        return Problem(
            path=self.source, code=code, message=message, line=span.line, column=span.column,
            end_column=span.end_column, excerpt=excerpt, **more,
        )  # fmt: skip


def load_yaml(path: str | Path, *, what: str = "YAML file") -> Document:
    """Read a YAML file that must be sound.

    Raises:
        ConfigInvalidError: it is not; the message is the whole report (``what`` names the kind of file).
        InputFileError: it cannot be read, or is not UTF-8.
    """
    return _sound(read_yaml(path), what)


def load_yaml_text(text: str, source: str, *, first_line: int = 1, what: str = "YAML") -> Document:
    """``load_yaml`` for text that begins on line ``first_line`` of ``source``."""
    return _sound(read_yaml_text(text, source, first_line=first_line), what)


def read_yaml(path: str | Path) -> Document:
    """Read a YAML file; what is wrong with it is in ``problems``.

    Raises:
        InputFileError: it cannot be read, or is not UTF-8.
    """
    content = read_limited(path)
    source = printable(str(path))
    if len(content) > MAX_BYTES:
        document = Document(source, [])
        document.problems.append(document.problem("too-large", f"larger than {MAX_BYTES // 1024} KiB", Span(1, 1, 2)))
        return document
    return read_yaml_text(_decoded(content, path), source)


def read_yaml_text(text: str, source: str, *, first_line: int = 1) -> Document:
    """``read_yaml`` for text that begins on line ``first_line`` of ``source``."""
    text = text.removeprefix("\N{BYTE ORDER MARK}")
    document = Document(source, _LINE_END.split(text), first_line)
    document.problems.extend(_hidden_characters(document))
    if not document.problems:
        _Reading(document).run(text)
    document.problems = in_file_order(document.problems)
    return document


def read_limited(path: str | Path) -> bytes:
    """The content of a file, at most one byte more than ``MAX_BYTES``."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputFileError("no such file", path=path, hint="check the path") from None
    except IsADirectoryError:
        raise InputFileError("a folder, not a file", path=path, hint="name the YAML file inside it") from None
    except PermissionError:
        raise InputFileError("no permission to read it", path=path, hint="check its access rights") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputFileError(f"cannot be read ({reason})", path=printable(str(path))) from error


def _sound(document: Document, what: str) -> Document:
    if document.problems:
        raise ConfigInvalidError(document.problems, what=what)
    return document


def _decoded(content: bytes, path: str | Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        kind = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        raise InputFileError(f"{kind} text (line {line})", path=path, hint="save it as UTF-8") from None


def _hidden_characters(document: Document) -> Iterator[Problem]:
    shown = 0
    for number, line in enumerate(document.lines, document.first_line):
        if line.isascii() and (line.isprintable() or line.replace("\t", "").isprintable()):
            continue
        for index, character in enumerate(line):
            if is_hidden(character) and shown < MAX_HIDDEN_SHOWN:
                shown += 1
                yield document.problem(
                    "hidden-character", f"a character that cannot be seen: {name_of(character)}",
                    Span(number, index + 1, index + 2), hint="remove it",
                )  # fmt: skip


class _Reading:
    """Turns a tree of nodes into the value of a document, with the place of each part."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._reported: set[tuple[str, int, int]] = set()
        self._merged: dict[int, dict[str, tuple[Node, Node]]] = {}

    def run(self, text: str) -> None:
        try:
            root = parse_tree(text)
        except TreeError as error:
            span = self._point(error.line, error.column)
            self._document.problems.append(self._document.problem(error.code, str(error), span, hint=error.hint))
        except yaml.MarkedYAMLError as error:
            message, hint, line, column = explain(error, self._document.lines)
            span = self._point(line, column)
            self._document.problems.append(self._document.problem("syntax", message, span, hint=hint))
        else:
            if root is not None:
                self._document.value = self._value(root, ())

    def _value(self, node: Node, path: KeyPath) -> Any:
        document = self._document
        document.value_spans[path] = self._span(node)
        if node.tag is not None and node.tag != "!":
            return self._refuse(
                node, path, "tag", f"a tag, `{_short_tag(node.tag)}`, which is not accepted",
                "remove the tag; put the value in quotes if text is meant",
            )  # fmt: skip
        if node.kind is Kind.MAPPING:
            return self._mapping(node, path)
        if node.kind is Kind.SEQUENCE:
            return [self._value(child, (*path, index)) for index, child in enumerate(node.children)]
        return self._scalar(node, path)

    def _scalar(self, node: Node, path: KeyPath) -> Any:
        index = hidden_character(node.text)
        if index is not None:
            name = name_of(node.text[index])
            return self._refuse(
                node, path, "hidden-character", f"an escape for a character that cannot be seen: {name}", "remove it"
            )
        if not node.plain:
            self._document.quoted.add(path)
            return node.text
        if node.text == "" and (node.line, node.column) == (node.end_line, node.end_column):
            self._document.written_empty.add(path)
        try:
            return resolve(node.text)
        except ScalarError as error:
            return self._refuse(node, path, "number", str(error), error.hint)

    def _mapping(self, node: Node, path: KeyPath) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, (key_node, value_node) in self._pairs(node, path).items():
            self._document.key_spans[(*path, key)] = self._span(key_node)
            value[key] = self._value(value_node, (*path, key))
        return value

    def _pairs(self, node: Node, path: KeyPath) -> dict[str, tuple[Node, Node]]:
        """The entries of a mapping, with those that merge keys bring behind its own."""
        if id(node) in self._merged:
            return self._merged[id(node)]
        own: dict[str, tuple[Node, Node]] = {}
        bases: list[Node] = []
        for key_node, value_node in node.pairs:
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in own:
                first = self._span(own[key][0]).line
                self._report(
                    key_node, path, "duplicate-key", f"the key `{key}` is already there on line {first}",
                    "remove one of the two",
                )  # fmt: skip
                continue
            own[key] = (key_node, value_node)
            if key == "<<" and key_node.plain:
                bases = self._bases(value_node, path)
                own[key] = (key_node, value_node)
        if bases or ("<<" in own and own["<<"][0].plain):
            del own["<<"]
        for base in bases:
            for key, pair in self._pairs(base, path).items():
                own.setdefault(key, pair)
        self._merged[id(node)] = own
        return own

    def _bases(self, node: Node, path: KeyPath) -> list[Node]:
        bases = node.children if node.kind is Kind.SEQUENCE else [node]
        if all(base.kind is Kind.MAPPING for base in bases):
            return bases
        self._report(node, path, "merge", "`<<` merges a mapping, or a list of them", "write `<<: *anchor`")
        return []

    def _key(self, node: Node, path: KeyPath) -> str | None:
        """The text of a key, or None after reporting why it is none."""
        hint = "put it in quotes if it is meant as text"
        if node.tag is not None and node.tag != "!":
            self._report(node, path, "tag", f"a tag, `{_short_tag(node.tag)}`, which is not accepted", "remove the tag")
        elif node.kind is not Kind.SCALAR:
            self._report(node, path, "key", f"a key must be text, found {node.kind.value}", None)
        elif hidden_character(node.text) is not None or any(c in node.text for c in "\t\r\n"):
            self._report(node, path, "hidden-character", "a key with an escape that cannot be seen", "remove it")
        elif not node.plain:
            return node.text
        else:
            try:
                value = resolve(node.text)
            except ScalarError:
                value = None
            if isinstance(value, str):
                return value
            shown = f"`{node.text}`" if node.text else "nothing"
            self._report(node, path, "key", f"a key must be text, found {shown}", hint)
        return None

    def _refuse(self, node: Node, path: KeyPath, code: str, message: str, hint: str | None) -> Unreadable:
        self._document.unreadable.add(path)
        self._report(node, path, code, message, hint)
        return UNREADABLE

    def _report(self, node: Node, path: KeyPath, code: str, message: str, hint: str | None) -> None:
        # A node that aliases refer to is read several times.
        if (code, node.line, node.column) in self._reported:
            return
        self._reported.add((code, node.line, node.column))
        problem = self._document.problem(code, message, self._span(node), hint=hint, key=dotted(path))
        self._document.problems.append(problem)

    def _span(self, node: Node) -> Span:
        line = self._point(node.line, node.column)
        length = len(self._document.lines[node.line]) if node.line < len(self._document.lines) else 0
        end = node.end_column if node.end_line == node.line else length
        if node.kind is not Kind.SCALAR and node.end_line != node.line:
            end = node.column + 1
        return Span(line.line, line.column, max(line.column + 1, end + 1))

    def _point(self, line: int, column: int) -> Span:
        return Span(line + self._document.first_line, column + 1, column + 2)


def dotted(path: KeyPath) -> str:
    """``("data", "transforms", 0)`` as ``data.transforms[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _short_tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")[:80]
