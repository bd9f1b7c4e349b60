"""The folder of a search: whose it is, what is kept in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from common import atomic
from common.exits import EnvironmentLackError, InputFileError, UsageError
from common.search.agenda import Task, best_trials
from common.search.definition import Definition, differences
from common.search.ledger import LedgerState

MARKER = "study.json"
SCHEMA_VERSION = 1
# Of the other trials the numbers are kept, and not the weights.
KEPT_CHECKPOINTS = 3


def open_output(folder: Path) -> None:
    """Create the folder of a search, if needed.

    Raises:
        UsageError: a file stands there, or the folder holds something that is no search.
        EnvironmentLackError: it cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        content = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except (FileExistsError, NotADirectoryError):
        raise UsageError("is a file, not a folder", path=folder, field="--output") from None
    except OSError as error:
        raise EnvironmentLackError(f"cannot be created ({error.strerror})", path=folder, field="--output") from error
    if content and not holds_study(folder):
        raise UsageError("holds files that are not a search's", path=folder, field="--output",
                         hint="choose a new or empty folder")  # fmt: skip
    if not os.access(folder, os.W_OK | os.X_OK):
        raise EnvironmentLackError("is not writable", path=folder, field="--output",
                                   hint="give write permission, or choose another folder")  # fmt: skip


def holds_study(folder: Path) -> bool:
    """Whether a search has been here."""
    return (folder / MARKER).exists() or (folder / "study.db").exists()


def read_marker(folder: Path) -> tuple[str, Definition] | None:
    """The name and the definition of the study that the folder belongs to; None where none has begun.

    Raises:
        InputFileError: the file that says so is damaged.
    """
    path = folder / MARKER
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["study"], Definition.from_plain(content["definition"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputFileError(f"cannot be read ({error})", path=path,
                             hint="remove it: the study itself is in the storage") from error  # fmt: skip


def write_marker(folder: Path, name: str, storage: str, definition: Definition) -> None:
    """Say in the folder which study it belongs to."""
    content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "study": name, "storage": storage,
                               "definition": definition.as_plain()}  # fmt: skip
    atomic.write_text(folder / MARKER, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def require_same(then: Definition, now: Definition, where: Path | str) -> None:
    """Raises UsageError, saying in what they differ, where the study that is there is another than the one meant."""
    found = differences(then, now)
    if found:
        raise UsageError(
            f"holds another study, which differs in {', '.join(found)}",
            path=where,
            field="--output",
            hint="choose another --output, or repeat the command of that study to go on with it",
        )


def remove_checkpoints(folder: Path, definition: Definition, state: LedgerState) -> None:
    """Delete the checkpoints of trials that have ended, but for those of the best ones so far."""
    kept = {trial.number for trial in best_trials(definition, state)[:KEPT_CHECKPOINTS]}
    for trial in state.trials.values():
        if trial.outcome is not None and trial.number not in kept:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder / Task(trial.number).run_dir / "checkpoints", ignore_errors=True)
