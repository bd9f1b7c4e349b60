"""What one of several processes leaves in the run folder when it runs out of memory, for those started after it.

The file is ``{"samples": N, "epoch": N, "step": N}``. It stays until the training is over: once the halved micro-batch
is in a checkpoint it asks for nothing more, and if none was written by then it still holds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from common import atomic
from common.run_folder import RunFolder


@dataclass(frozen=True)
class MemoryNote:
    """``samples`` at once, over all processes, were too many in the optimizer step after ``step`` of ``epoch``."""

    samples: int
    epoch: int
    step: int


def write(folder: RunFolder, note: MemoryNote) -> None:
    """Raises OSError where the folder cannot be written to."""
    atomic.write_text(folder.memory_note, json.dumps(asdict(note)) + "\n")


def read(folder: RunFolder) -> MemoryNote | None:
    """The note, or None where there is none, or a file of that name that is not one."""
    try:
        values = json.loads(folder.memory_note.read_bytes())
        note = MemoryNote(**values)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    is_whole = all(type(value) is int and value >= 0 for value in asdict(note).values())
    return note if is_whole and note.samples >= 2 else None
