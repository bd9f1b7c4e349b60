"""Exit codes of all tools, and the errors that lead to them."""

from __future__ import annotations

import enum
from pathlib import Path


class Exit(enum.IntEnum):
    """What a tool tells the shell."""

    DONE = 0
    NO = 1  # the check ran, and its answer is no
    USAGE = 2
    BAD_INPUT = 3
    ENVIRONMENT = 4  # no GPU, package missing, disk full, folder not writable
    RUN_FAILED = 5
    BUG = 70
    INTERRUPTED = 130
    TERMINATED = 143


class ToolError(Exception):
    """An error meant for the user: one plain sentence, where it happened, and what to do.

    Args:
        message: what is wrong, a sentence without its full stop.
        path: the file or folder concerned.
        field: the dotted config field or command-line flag concerned.
        hint: what the user can do about it.
    """

    exit = Exit.BUG

    def __init__(
        self, message: str, *, path: str | Path | None = None, field: str | None = None, hint: str | None = None
    ) -> None:
        self.message = message
        self.path = path
        self.field = field
        self.hint = hint
        super().__init__(message)

    def __str__(self) -> str:
        where = ": ".join(str(part) for part in (self.path, self.field) if part)
        sentence = f"{where}: {self.message}" if where else self.message
        return f"{sentence}; {self.hint}" if self.hint else sentence

    def as_json(self) -> dict[str, object]:
        """The same for programs: ``--json`` prints it as ``{"error": ...}``."""
        return {
            "message": self.message,
            "path": None if self.path is None else str(self.path),
            "field": self.field,
            "hint": self.hint,
            "exit_code": int(self.exit),
        }


class CheckFailedError(ToolError):
    """A check that the user asked for came out negative."""

    exit = Exit.NO


class UsageError(ToolError):
    """The command line makes no sense."""

    exit = Exit.USAGE


class InputFileError(ToolError):
    """A file that was given is missing, unreadable or malformed."""

    exit = Exit.BAD_INPUT


class EnvironmentLackError(ToolError):
    """The machine lacks something: a GPU, a package, disk space, a permission."""

    exit = Exit.ENVIRONMENT


class RunFailedError(ToolError):
    """Training could not be brought to its end."""

    exit = Exit.RUN_FAILED


class StoppedError(ToolError):
    """Stopped by a signal after saving what there was to save."""

    def __init__(self, message: str, *, exit: Exit, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit = exit
