"""Names that people choose from: what is said when one is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from common.exits import UsageError


def unknown_name(kind: str, name: str, known: Iterable[str], *, field: str) -> UsageError:
    """The error for a ``kind`` of thing called ``name`` that is not among the ``known``, with the closest that is."""
    known = list(known)
    close = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(known)}"
    return UsageError(f"unknown {kind} `{name}`", field=field, hint=hint)
