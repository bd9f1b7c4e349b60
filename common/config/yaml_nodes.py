"""YAML text as a tree of nodes with their places, built without recursion and within fixed bounds.

PyYAML's parser gives events one by one; its composer and constructor, which recurse, execute tags and expand aliases
without bound, are not used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import yaml

MAX_DEPTH = 40  # the deepest place of the config's schema is 6
MAX_NODES = 20_000  # after aliases are expanded


class Kind(Enum):
    SCALAR = "a value"
    SEQUENCE = "a list"
    MAPPING = "a mapping"


@dataclass
class Node:
    """A scalar, a sequence (``children``) or a mapping (``pairs``); lines and columns count from 0.

    ``size`` and ``height`` include what aliases inside stand for.
    """

    kind: Kind
    line: int
    column: int
    end_line: int
    end_column: int
    text: str = ""
    plain: bool = False
    tag: str | None = None
    children: list[Node] = field(default_factory=list)
    pairs: list[tuple[Node, Node]] = field(default_factory=list)
    size: int = 1
    height: int = 1


class TreeError(ValueError):
    """The text is no single sound document; ``code`` names the kind, and the place counts from 0."""

    def __init__(self, code: str, message: str, line: int, column: int, hint: str | None = None) -> None:
        self.code = code
        self.line = line
        self.column = column
        self.hint = hint
        super().__init__(message)


def parse_tree(text: str) -> Node | None:
    """The root node of ``text``, which holds printable characters only, or None for an empty document.

    Raises:
        TreeError: a bound is passed, an alias is circular or unknown, or there is a second document.
        yaml.MarkedYAMLError: the syntax is wrong.
    """
    loader = yaml.SafeLoader(text)
    builder = _Builder()
    try:
        while loader.check_event():
            builder.take(loader.get_event())
    except (ValueError, OverflowError, LookupError) as error:
        if isinstance(error, TreeError):
            raise
        # PyYAML converts escapes and version numbers without checking their range.
        mark = loader.get_mark()
        raise TreeError("syntax", "an escape or a number that no character or version has", mark.line, mark.column) \
            from error  # fmt: skip
    finally:
        loader.dispose()
    return builder.root


class _Builder:
    """Takes events in order; ``root`` is complete after the last one."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._documents = 0
        self._open: list[Node] = []
        self._keys: list[Node | None] = []  # for each open node, the mapping key that waits for its value
        self._anchors: dict[str, Node] = {}
        self._expanded = 0

    def take(self, event: yaml.Event) -> None:
        mark = event.start_mark
        if isinstance(event, yaml.DocumentStartEvent):
            self._start_document(mark)
        elif isinstance(event, yaml.AliasEvent):
            self._attach(self._target(event))
        elif isinstance(event, yaml.ScalarEvent):
            node = self._new_node(Kind.SCALAR, event)
            node.text, node.plain = event.value, event.style is None and event.tag is None
            self._attach(node)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._begin(self._new_node(Kind.SEQUENCE, event))
        elif isinstance(event, yaml.MappingStartEvent):
            self._begin(self._new_node(Kind.MAPPING, event))
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            self._finish(event)

    def _start_document(self, mark: yaml.Mark) -> None:
        self._documents += 1
        if self._documents > 1:
            hint = "keep one, and remove the line `---` that starts the next"
            raise TreeError("several-documents", "a second document in one file", mark.line, mark.column, hint)

    def _new_node(self, kind: Kind, event: yaml.Event) -> Node:
        start, end = event.start_mark, event.end_mark
        self._expanded += 1
        self._check_size(start)
        node = Node(kind, start.line, start.column, end.line, end.column, tag=event.tag)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _begin(self, node: Node) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise TreeError("too-deep", f"nested more than {MAX_DEPTH} levels deep", node.line, node.column)
        self._open.append(node)
        self._keys.append(None)

    def _finish(self, event: yaml.Event) -> None:
        node = self._open.pop()
        self._keys.pop()
        node.end_line, node.end_column = event.end_mark.line, event.end_mark.column
        self._attach(node)

    def _target(self, event: yaml.AliasEvent) -> Node:
        mark = event.start_mark
        target = self._anchors.get(event.anchor)
        if target is None:
            raise TreeError(
                "unknown-alias", f"no anchor `&{event.anchor}` before this alias", mark.line, mark.column,
                "quote the value if `*` is part of it",
            )  # fmt: skip
        if any(target is node for node in self._open):
            raise TreeError("alias-cycle", f"`*{event.anchor}` stands inside what it refers to", mark.line, mark.column)
        if len(self._open) + target.height > MAX_DEPTH:
            raise TreeError("too-deep", f"aliases nest more than {MAX_DEPTH} levels deep", mark.line, mark.column)
        self._expanded += target.size
        self._check_size(mark)
        return target

    def _check_size(self, mark: yaml.Mark) -> None:
        if self._expanded > MAX_NODES:
            raise TreeError("too-large", f"more than {MAX_NODES:,} values, aliases expanded", mark.line, mark.column)

    def _attach(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if parent.kind is Kind.SEQUENCE:
            parent.children.append(node)
        elif self._keys[-1] is None:
            self._keys[-1] = node
        else:
            parent.pairs.append((self._keys[-1], node))
            self._keys[-1] = None
