"""A run's folder on disk: who may write to it, whether it is resumed or moved aside, and the links that lead to it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from common import atomic
from common.exits import EnvironmentLackError, UsageError

# A lock whose owner, on another machine, has not renewed it for this long is taken to be left by a dead process.
# Twice the interval at which running processes renew it would do; clocks of two machines may differ by a minute.
STALE_LOCK_S = 180.0


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, by name. Any tool can build one from a path; only the training claims it."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def log(self) -> Path:
        return self.path / "training.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def learning_curves(self) -> Path:
        return self.path / "learning_curves.png"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def test_results(self) -> Path:
        return self.path / "test_results.md"

    @property
    def confusion_matrix(self) -> Path:
        return self.path / "confusion_matrix.png"

    @property
    def sample_history(self) -> Path:
        return self.path / "sample_history.npz"

    @property
    def trace(self) -> Path:
        return self.path / "step_trace.bin"

    @property
    def memory_note(self) -> Path:
        return self.path / ".out_of_memory.json"

    @property
    def lock(self) -> Path:
        return self.path / ".run.lock"

    def results(self, mode: str) -> Path:
        return self.path / f"{mode}_results.md"

    def predictions(self, split: str) -> Path:
        return self.path / f"predictions_{split}.npz"

    def holds_run(self) -> bool:
        """Whether a training has been here, however short. A lone config.yaml may be anybody's."""
        return self.lock.exists() or self.environment.exists()

    def remove_leftovers(self) -> None:
        """Delete the temporary files of a process that was killed here. Only for who holds the lock."""
        for folder in (self.path, self.checkpoints):
            if folder.is_dir():
                atomic.remove_leftovers(folder)


class RunLock:
    """One process at a time in a run folder.

    The operating system's file lock decides on one machine, and ends with its process. Where a shared file system
    does not carry it to other machines, the owner's name and the age of the file's time stamp do.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.lock
        self._handle: int | None = None

    def acquire(self) -> RunLock:
        """Raises UsageError where another live process holds the folder, naming it."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._refusal(_read_owner(handle)) from None
            owner = _read_owner(handle)
            if owner.get("host", socket.gethostname()) != socket.gethostname():
                age_s = time.time() - os.fstat(handle).st_mtime
                if age_s < STALE_LOCK_S:
                    raise self._refusal(owner)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        self._write({"host": socket.gethostname(), "pid": os.getpid()})
        return self

    def renew(self) -> None:
        """Tell other machines that this process is alive. Called at least once a minute while training."""
        if self._handle is not None:
            os.utime(self._handle)

    def release(self) -> None:
        """Give the folder free. The empty file stays, and marks the folder as a run's."""
        if self._handle is not None:
            # Closing is what frees it; a name that a failing disk keeps must not hide why the run ended.
            with contextlib.suppress(OSError):
                self._write({})
            os.close(self._handle)
            self._handle = None

    def _write(self, owner: dict) -> None:
        assert self._handle is not None
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps(owner).encode() if owner else b"", 0)

    def _refusal(self, owner: dict) -> UsageError:
        who = f"process {owner.get('pid', '?')} on {owner.get('host', 'this machine')}"
        return UsageError(
            f"another run is writing to this folder ({who})",
            path=self._path.parent,
            hint="wait for it, stop it, or choose another --output-dir",
        )


def open_folder(path: str | Path) -> RunFolder:
    """Create the folder if needed.

    Raises:
        UsageError: a file stands there, or the folder holds something that is no run.
        EnvironmentLackError: it cannot be created or written to.
    """
    folder = RunFolder(Path(path))
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError("is a file, not a folder", path=path, field="--output-dir") from None
    except OSError as error:
        raise EnvironmentLackError(f"cannot be created ({error.strerror})", path=path, field="--output-dir") from error
    if not folder.holds_run() and any(folder.path.iterdir()):
        raise UsageError(
            "holds files that are not a run's",
            path=path,
            field="--output-dir",
            hint="choose a new or empty folder",
        )
    if not os.access(folder.path, os.W_OK | os.X_OK):
        raise EnvironmentLackError("is not writable", path=path, field="--output-dir")
    return folder


def move_aside(folder: RunFolder) -> Path:
    """Rename a run's folder to the first free ``NAME.1``, ``NAME.2``, ... and return the new path.

    Where the folder is a link, the link is renamed, and what it leads to stays where it is.
    """
    path = folder.path.absolute()
    number = 1
    while (target := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    path.rename(target)
    atomic.flush_folder(path.parent)
    return target


def publish_links(folder: RunFolder, mode: str) -> list[str]:
    """Point the documented paths of the working directory at this run.

    ``logs/training.log``, ``logs/metrics.json``, ``checkpoints/MODE`` and ``MODE_results.md`` become relative links.

    Returns:
        One sentence for every path that could not be linked, since a real file or folder stands there.
    """
    links = {
        Path("logs/training.log"): folder.log,
        Path("logs/metrics.json"): folder.metrics,
        Path("checkpoints") / mode: folder.checkpoints,
        Path(f"{mode}_results.md"): folder.results(mode),
    }
    notices = []
    for link, target in links.items():
        if link.absolute() == target.absolute():
            continue
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            if atomic.replace_link(link, target):
                continue
        notices.append(f"{link}: a real file or folder stands there and was left alone; this run's is {target}")
    return notices


def _read_owner(handle: int) -> dict:
    try:
        owner = json.loads(os.pread(handle, 4096, 0) or b"{}")
    except ValueError:  # torn by a crash: nobody to name
        return {}
    return owner if isinstance(owner, dict) else {}
