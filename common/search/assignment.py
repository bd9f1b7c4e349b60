"""What a worker is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.config import LoadedConfig
from common.search.definition import Definition


@dataclass(frozen=True)
class Assignment:
    """What a worker works on, ready to be sent to another process, where it is read before torch is loaded."""

    base: LoadedConfig
    definition: Definition
    storage_url: str
    study: str
    folder: Path
    command_line: list[str]
