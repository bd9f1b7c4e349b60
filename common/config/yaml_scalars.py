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
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)

# Compiled when first needed, which for a sound config is never.
_SWITCH = r"(?i:yes|no|on|off|y|n)"
_LEADING_ZERO = r"[-+]?0[0-9]+"
_GROUPED = r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?"
_BASE_60 = r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"
_DATE = r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?"
_DECIMAL_COMMA = r"[-+]?[0-9]+,[0-9]+"
_PER_CENT = r"[-+]?[0-9.]+ ?%"
_WORD_FOR_NULL = r"(?i:none|nil|nan)"

_MAX_DIGITS = 400
LARGEST_INTEGER = 2**63 - 1


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
    if re.fullmatch(_SWITCH, text):
        meant = "true" if text.lower() in {"yes", "on", "y"} else "false"
        return f"`{text}` is text in YAML 1.2; write `{meant}` if a truth value is meant"
    if re.fullmatch(_LEADING_ZERO, text):
        return f"with a leading zero, readers disagree (octal or decimal); write {_without_leading_zeros(text)}"
    if "_" in text and re.fullmatch(_GROUPED, text):
        return f"YAML 1.2 has no digit separators; write {text.replace('_', '')}"
    if re.fullmatch(_BASE_60, text):
        return "with colons it is text (some readers count in base 60); write a plain number"
    if re.fullmatch(_DATE, text):
        return "this is a date, read as text; write a plain number, or quote it where text is meant"
    if re.fullmatch(_DECIMAL_COMMA, text):
        return f"write {text.replace(',', '.')} with a decimal point, or without the comma if it groups digits"
    if re.fullmatch(_PER_CENT, text):
        return "write the number without the percent sign"
    if re.fullmatch(_WORD_FOR_NULL, text):
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
    if abs(value) > LARGEST_INTEGER:
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
