"""Plain YAML scalars, read by the core schema of YAML 1.2.2 (section 10.3.2), without its traps.

What YAML 1.1 and 1.2 read differently (``010``, ``yes``, ``1_000``, ``1:30``, dates) stays text here, so that a text
field holds what was written and a number field refuses it; ``trap_hint`` then says why.
"""

from __future__ import annotations

import math
import re

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
_PREFIXED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)

_SWITCH = re.compile(r"yes|no|on|off|y|n", re.IGNORECASE)
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+", re.ASCII)
_GROUPED = re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?", re.ASCII)
_BASE_60 = re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+", re.ASCII)
_PER_CENT = re.compile(r"[-+]?[0-9.]+ ?%", re.ASCII)
_WORD_FOR_NULL = re.compile(r"none|nil|nan", re.IGNORECASE)

_MAX_DIGITS = 400
_LARGEST_INTEGER = 2**63 - 1


class ScalarError(ValueError):
    """A number that no field could use; the message is a clause, ``hint`` the remedy."""

    def __init__(self, message: str, hint: str) -> None:
        self.hint = hint
        super().__init__(message)


def resolve(text: str) -> bool | int | float | str | None:
    """The value of an unquoted scalar.

    Raises:
        ScalarError: it is a number, but not finite, or too large or too small for 64 bits.
    """
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ScalarError("not a finite number", "write a finite number, or quote it if text is meant")
    if _LEADING_ZERO.fullmatch(text):
        return text
    if _INTEGER.fullmatch(text) or _PREFIXED.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return _float(text)
    return text


def is_text_when_plain(text: str) -> bool:
    """Whether ``text`` without quotes means itself to readers of YAML 1.1 and 1.2 alike."""
    try:
        return resolve(text) == text and trap_hint(text) is None
    except ScalarError:
        return False


def trap_hint(text: str) -> str | None:
    """What to write instead, where ``text`` looks like a number, truth value or null but is none."""
    if _SWITCH.fullmatch(text):
        meant = "true" if text.lower() in {"yes", "on", "y"} else "false"
        return f"`{text}` is text in YAML 1.2; write `{meant}` if a truth value is meant"
    if _LEADING_ZERO.fullmatch(text):
        return f"with a leading zero, readers disagree (octal or decimal); write {_without_leading_zeros(text)}"
    if _GROUPED.fullmatch(text):
        return f"YAML 1.2 has no digit separators; write {text.replace('_', '')}"
    if _BASE_60.fullmatch(text):
        return "with colons it is text (some readers count in base 60); write a plain number"
    if _DATE.fullmatch(text):
        return "this is a date, read as text; write a plain number, or quote it where text is meant"
    if _DECIMAL_COMMA.fullmatch(text):
        return f"write {text.replace(',', '.')} with a decimal point, or without the comma if it groups digits"
    if _PER_CENT.fullmatch(text):
        return "write the number without the percent sign"
    if _WORD_FOR_NULL.fullmatch(text):
        return "write `null` if no value is meant"
    return None


def quoted_value_hint(text: str) -> str | None:
    """For text in quotes: whether without them it would be a number or a truth value."""
    try:
        value = resolve(text)
    except ScalarError:
        return None
    return None if value is None or isinstance(value, str) else f"remove the quotes: in quotes, {text} is text"


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _out_of_range("too large")
    value = int(text, 0)
    if abs(value) > _LARGEST_INTEGER:
        raise _out_of_range("too large")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _out_of_range("too large")
    mantissa = re.split("[eE]", text)[0]
    if value == 0 and any(digit in mantissa for digit in "123456789"):
        raise _out_of_range("too small")
    return value


def _out_of_range(what: str) -> ScalarError:
    return ScalarError(f"a number {what} for 64 bits", "check its digits and exponent, or quote it if text is meant")


def _without_leading_zeros(text: str) -> str:
    sign = text[0] if text[0] in "+-" else ""
    return sign + (text.lstrip("+-").lstrip("0") or "0")
