"""Names out of a file that nobody vouches for, made fit to print."""

from __future__ import annotations

_MAX_CHARACTERS = 200


def label(name: object) -> str:
    """A key or name on one line, cut at 200 characters; control characters, which a terminal would obey, escaped."""
    raw = name if isinstance(name, str) else str(name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw[:_MAX_CHARACTERS])
