"""A search as it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.config import LoadedConfig
from common.search.planning import Plan


@dataclass(frozen=True)
class SearchRequest:
    """What to search and where to put it.

    ``base`` has the number of epochs in it; ``storage`` and ``study`` are None for the folder's own. ``jobs`` workers
    train at the same time. ``must_resume`` makes it an error where there is no study to go on with.
    """

    base: LoadedConfig
    plan: Plan
    output: Path
    jobs: int = 1
    storage: str | None = None
    study: str | None = None
    must_resume: bool = False
    keep_checkpoints: bool = False
    command_line: tuple[str, ...] = ()
