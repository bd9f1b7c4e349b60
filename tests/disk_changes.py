"""Between a program and the operating system: every change that it makes to a file can be met before it is made."""

from __future__ import annotations

import builtins
import functools
import io
import os
from collections.abc import Callable
from pathlib import Path


class DiskChanges:
    """Calls ``before(number, what, path)`` ahead of every change to a file under ``folder``, counted from 1.

    What is counted: creating, writing, flushing to the disk, renaming, linking, deleting, making folders. A write is
    done in two halves that count as one change each, so that between them the file stands half-written. Reading is
    not counted. ``before`` may raise, or end the process.
    """

    def __init__(self, folder: Path, before: Callable[[int, str, str], None]) -> None:
        self._folder = str(folder.resolve())
        self._before = before
        self._is_acting = False
        self.count = 0

    def watch(self) -> None:
        """From now on and to the end of this process."""
        for name in ("replace", "rename", "symlink"):
            self._wrap_call(name, position=1)
        for name in ("unlink", "remove", "mkdir", "rmdir", "ftruncate", "fsync", "fchmod", "utime"):
            self._wrap_call(name, position=0)
        for name in ("write", "pwrite"):
            self._wrap_write(name)
        self._wrap_os_open()
        self._wrap_open()

    def change(self, what: str, where: int | str | os.PathLike) -> None:
        """To be called ahead of a change to the open file or path ``where``."""
        path = os.readlink(f"/proc/self/fd/{where}") if isinstance(where, int) else os.path.abspath(where)
        if self._is_acting or not f"{path}/".startswith(f"{self._folder}/"):
            return
        self.count += 1
        self._is_acting = True  # what is done about a change is none itself
        try:
            self._before(self.count, what, path)
        finally:
            self._is_acting = False

    def _wrap_call(self, name: str, position: int) -> None:
        real = getattr(os, name)

        @functools.wraps(real)
        def call(*args, **kwargs):
            self.change(name, args[position])
            return real(*args, **kwargs)

        setattr(os, name, call)

    def _wrap_write(self, name: str) -> None:
        real = getattr(os, name)

        @functools.wraps(real)
        def write(handle, content, *offset):
            content = memoryview(content).cast("B")
            half = len(content) // 2
            if content:
                self.change(name, handle)
            done = real(handle, content[:half], *offset) if half else 0
            if half:
                self.change(f"{name} (second half)", handle)
            return done + real(handle, content[half:], *(position + half for position in offset))

        setattr(os, name, write)

    def _wrap_os_open(self) -> None:
        real = os.open

        def call(path, flags, *args, **kwargs):
            if flags & os.O_CREAT:
                self.change("open", path)
            return real(path, flags, *args, **kwargs)

        os.open = call

    def _wrap_open(self) -> None:
        """Files that are written through ``open``: the log, the event files."""
        real = io.open

        def call(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **kwargs):
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return real(file, mode, buffering, encoding, errors, newline, **kwargs)
            self.change("open", file)
            raw = _WatchedFile(self, os.fspath(file), mode.replace("b", "").replace("t", ""))
            if "b" in mode and buffering == 0:
                return raw
            buffered = io.BufferedWriter(raw)
            if "b" in mode:
                return buffered
            return io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)

        builtins.open = io.open = call  # type: ignore[assignment]


class _WatchedFile(io.FileIO):
    def __init__(self, changes: DiskChanges, path: str, mode: str) -> None:
        super().__init__(path, mode)
        self._changes = changes

    def write(self, content) -> int:
        content = memoryview(content).cast("B")
        half = len(content) // 2
        self._changes.change("write", self.fileno())
        done = super().write(content[:half]) if half else 0
        if half:
            self._changes.change("write (second half)", self.fileno())
        return done + super().write(content[half:])
