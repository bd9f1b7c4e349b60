"""Trainings that are disturbed on purpose: killed at a chosen change of the disk, refused a write, out of space.

``prepared_trainer()`` is a process that has everything imported and forks one trainer after another, so that a whole
run takes a third of a second. In the fork, ``DiskChanges`` stands between the trainer and the operating system: it
numbers every call that changes a file under the run's working directory and lets a test act before any of them.
"""

from __future__ import annotations

import atexit
import builtins
import errno
import functools
import gc
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
KILLED = 9  # the exit code of a trainer that dies at a call


# Between the trainer and the operating system


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


def _act(plan: dict[str, Any]) -> Callable[[int, str, str], None]:
    """What a fork does before a change, as the test asked for it."""
    if plan["kind"] == "die":
        return lambda number, what, path: os._exit(KILLED) if number == plan["at"] else None
    if plan["kind"] == "signal":
        asked = getattr(signal, plan["signal"])
        return lambda number, what, path: os.kill(os.getpid(), asked) if number == plan["at"] else None
    if plan["kind"] == "fail":
        return functools.partial(_fail, plan)
    if plan["kind"] == "record":
        return functools.partial(_record, Path(plan["folder"]), Path(plan["into"]))
    return lambda number, what, path: None


def _fail(plan: dict[str, Any], number: int, what: str, path: str) -> None:
    """As a disk does that is full or broken from a change on, or at this one only. What takes no space still works."""
    code = getattr(errno, plan["errno"])
    takes_no_space = what in ("unlink", "remove", "rmdir", "ftruncate", "fsync", "fchmod", "utime", "replace", "rename")
    due = number >= plan["at"] if plan["lasting"] else number == plan["at"]
    if due and not (code == errno.ENOSPC and takes_no_space):
        raise OSError(code, os.strerror(code), path)


def _record(folder: Path, into: Path, number: int, what: str, path: str) -> None:
    """Copy what a process that dies here leaves behind."""
    shutil.copytree(folder, into / f"{number:04d}", symlinks=True)
    with (into / "changes.txt").open("a", encoding="utf-8") as file:
        file.write(f"{number}\t{what}\t{os.path.relpath(path, folder)}\n")


# The process that forks trainers


@dataclass(frozen=True)
class Outcome:
    """How a forked trainer ended: its exit code (9 where it died as planned), what it said, how often it wrote."""

    exit_code: int
    said: str
    changes: int


class PreparedTrainer:
    """A process with everything imported that forks a trainer on request; one at a time."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.interruptions"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def train(self, folder: Path, *arguments: object, **plan: Any) -> Outcome:
        """``python training_orchestrator.py ARGUMENTS`` in ``folder``, disturbed as ``plan`` says.

        Plans, with what comes after ``kind``; without one nothing is disturbed:

        - ``"die", at=N``: the process ends before its Nth change;
        - ``"signal", at=N, signal=NAME``: it signals itself there;
        - ``"fail", at=N, errno=NAME, lasting=BOOL``: the change fails, with ``lasting`` every later one too;
        - ``"limit", size_bytes=SIZE``: the system refuses larger files;
        - ``"memory", more_bytes=SIZE``: the system gives the process so much more memory than it has;
        - ``"record", into=FOLDER``: ``folder`` is copied into ``FOLDER/N`` before every change N, and ``changes.txt``
          lists them.
        """
        request = {"folder": str(folder), "arguments": [str(argument) for argument in arguments],
                   "plan": {"kind": "none", **{key: str(value) if isinstance(value, Path) else value
                                               for key, value in plan.items()}}}  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


@functools.cache
def prepared_trainer() -> PreparedTrainer:
    """One per test process, started when it is first needed."""
    trainer = PreparedTrainer()
    atexit.register(trainer.close)
    return trainer


def _serve() -> None:
    """Fork a trainer for every request on standard input; answer how it ended on standard output."""
    _import_everything()
    for line in sys.stdin:
        request = json.loads(line)
        read_end, write_end = os.pipe()
        said = os.memfd_create("said")
        if (pid := os.fork()) == 0:
            _be_trainer(request, write_end, said)
        os.close(write_end)
        _, status = os.waitpid(pid, 0)
        with os.fdopen(read_end) as counted, os.fdopen(said, encoding="utf-8", errors="replace") as text:
            text.seek(0)
            outcome = Outcome(os.waitstatus_to_exitcode(status), text.read(), int(counted.read() or 0))
        print(json.dumps(outcome.__dict__), flush=True)


def _import_everything() -> None:
    """All that a run imports on its way, and what it computes once; but no training, whose threads do not fork."""
    import tempfile

    import sklearn.datasets
    import torch
    import torch._inductor

    import training_orchestrator  # noqa: F401
    from common import plots
    from common.engine import dry_run, run  # noqa: F401

    torch.set_num_threads(1)
    sklearn.datasets.load_wine(), sklearn.datasets.load_digits()
    epochs = [{"num": number, "train_loss": 1.0, "val_loss": 1.0, "train_acc": 50.0, "val_acc": 50.0, "lr": 0.1}
              for number in (1, 2)]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        plots.plot_learning_curves(epochs, 1, Path(folder) / "warm.png", "warm")
    gc.collect()
    gc.freeze()  # so that a fork's garbage collection does not copy what all forks share


def _be_trainer(request: dict[str, Any], count_to: int, said: int) -> NoReturn:
    import training_orchestrator

    code = 99
    changes = DiskChanges(Path(request["folder"]), lambda *change: None)
    try:
        os.dup2(said, 1), os.dup2(said, 2)
        os.chdir(request["folder"])
        changes = DiskChanges(Path(request["folder"]), _act({"folder": request["folder"], **request["plan"]}))
        changes.watch()
        _limit(request["plan"])
        code = training_orchestrator.main(request["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os.write(count_to, str(changes.count).encode())
        os._exit(code)


def _limit(plan: dict[str, Any]) -> None:
    if plan["kind"] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (plan["size_bytes"],) * 2)
    elif plan["kind"] == "memory":
        used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used_bytes + plan["more_bytes"],) * 2)


# What tests ask


def recorded(into: Path) -> Iterator[tuple[Path, str]]:
    """The folders that ``kind="record"`` copied, in order, each with what was about to happen."""
    for line in (into / "changes.txt").read_text(encoding="utf-8").splitlines():
        number, what, path = line.split("\t")
        yield into / f"{int(number):04d}", f"{what} {path}"


def content_of(folder: Path, ignored: Sequence[str] = ()) -> dict[str, str | bytes]:
    """Every file under ``folder`` with its bytes, every link with where it leads, every folder."""
    content: dict[str, str | bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.name in ignored:
            continue
        name = str(path.relative_to(folder))
        content[name] = os.readlink(path) if path.is_symlink() else "" if path.is_dir() else path.read_bytes()
    return content


if __name__ == "__main__":
    _serve()
