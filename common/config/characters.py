"""Characters that cannot be seen, or that change what is seen: no config needs them, and they can hide anything."""

from __future__ import annotations

import unicodedata

_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # control, format (bidi, zero width), surrogate, separators
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufffe\uffff")
_LAYOUT = frozenset("\t\n\r")


def hidden_character(text: str) -> int | None:
    """Index of the first character of ``text`` that cannot be seen or that reorders others, or None.

    Tabs and line ends are not hidden.
    """
    if text.isascii() and text.isprintable():
        return None
    return next((index for index, character in enumerate(text) if is_hidden(character)), None)


def is_hidden(character: str) -> bool:
    return character not in _LAYOUT and (unicodedata.category(character) in _CATEGORIES or character in _BLANKS)


def name_of(character: str) -> str:
    """``U+202E RIGHT-TO-LEFT OVERRIDE``."""
    return f"U+{ord(character):04X} {unicodedata.name(character, 'control character')}"


def printable(text: str) -> str:
    """``text`` with nothing in it that could move the cursor, hide or reorder what follows."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == " " else "\N{REPLACEMENT CHARACTER}" for c in text)
