"""Files that appear whole or not at all, also when the machine dies in the middle."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
_LINK_ATTEMPTS = 100


def write_bytes(path: str | Path, content: bytes | memoryview, *, flush: bool = True) -> None:
    """Replace ``path`` by ``content`` in one step.

    The bytes go to a temporary file in the same folder, which is flushed to the disk and renamed; the folder is
    flushed last, so that the rename itself survives a power cut. A reader sees the old file or the new one.

    Args:
        flush: False for what can be made again: after a power cut it may be the old file, the new one or an empty one.
    Raises:
        OSError: the disk is full, or the folder is not writable. The old file is then untouched, and no temporary
            file is left.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX, dir=path.parent)
    try:
        try:
            os.fchmod(handle, 0o666 & ~_umask())
            _write_all(handle, content)
            if flush:
                os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if flush:
        flush_folder(path.parent)


def write_text(path: str | Path, text: str, *, flush: bool = True) -> None:
    """``write_bytes`` for text, as UTF-8 with ``\\n`` line ends."""
    write_bytes(path, text.encode("utf-8"), flush=flush)


def replace_link(link: str | Path, target: str | Path) -> bool:
    """Point the symbolic link ``link`` at ``target`` (relative to the link's folder) in one step.

    Returns:
        False where a real file or folder stands at ``link``: that is never replaced. True otherwise.
    """
    link = Path(link)
    if link.exists() and not link.is_symlink():
        return False
    link.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name, so that what a killed process left is replaced by the next one.
    temporary = link.with_name(f".{link.name}{TEMPORARY_SUFFIX}")
    for _ in range(_LINK_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        try:
            os.symlink(os.path.relpath(Path(target).absolute(), link.parent.resolve()), temporary)
            os.replace(temporary, link)
        except (FileExistsError, FileNotFoundError):  # another process is linking at this very moment
            continue
        return True
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(temporary))


def remove_leftovers(folder: str | Path) -> int:
    """Delete temporary files that a killed process left in ``folder``; returns how many there were.

    Only for a folder that no other process writes to.
    """
    leftovers = list(Path(folder).glob(f".*{TEMPORARY_SUFFIX}"))
    for leftover in leftovers:
        leftover.unlink()
    return len(leftovers)


def flush_folder(folder: str | Path) -> None:
    """Make renames and deletions in ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, content: bytes | memoryview) -> None:
    rest = memoryview(content).cast("B")
    while rest:
        rest = rest[os.write(handle, rest) :]


def _umask() -> int:
    # The only portable way to read the mask is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
