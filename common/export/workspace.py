"""Where files wait until they are verified: a hidden folder beside their destination, on the same disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from common import atomic
from common.exits import EnvironmentLackError, UsageError


@contextmanager
def workspace(outputs: Mapping[str, Path], checkpoint: Path) -> Iterator[Path]:
    """A folder for unfinished files, gone at the end whatever happens.

    Raises:
        UsageError: an output is a folder, or the checkpoint itself.
        EnvironmentLackError: the outputs' folder cannot be made or written to, or the disk is full.
    """
    parent = next(iter(outputs.values())).parent
    for output in outputs.values():
        if output.is_dir():
            raise UsageError("is a folder; name the file to write", path=output, field="--output")
        if output.exists() and output.resolve() == checkpoint.resolve():
            raise UsageError("is the checkpoint itself", path=output, field="--output", hint="choose another name")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".export-", dir=parent))
    except OSError as error:
        raise _lack(parent, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_unfinished(path: Path, content: bytes) -> None:
    """Write a file in the workspace and see it onto the disk; raises EnvironmentLackError where there is no room."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _lack(path.parent.parent, error) from error


def publish(finished: Mapping[Path, Path]) -> None:
    """Move each verified file to its destination in one step, replacing what was there.

    Raises:
        EnvironmentLackError: a destination cannot be replaced.
    """
    for path, destination in finished.items():
        try:
            os.replace(path, destination)
            atomic.flush_folder(destination.parent)
        except OSError as error:
            raise _lack(destination, error) from error


def write_report(path: Path, text: str) -> None:
    """``atomic.write_text``; raises EnvironmentLackError where it cannot be written."""
    try:
        atomic.write_text(path, text)
    except OSError as error:
        raise _lack(path, error) from error


def _lack(path: Path, error: OSError) -> EnvironmentLackError:
    return EnvironmentLackError(
        f"cannot be written ({error.strerror})",
        path=path,
        field="--output",
        hint="choose a folder that can be written to, on a disk with room",
    )
