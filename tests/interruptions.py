"""Trainings that are disturbed on purpose: killed at a chosen change of the disk, refused a write, out of space.

``prepared_trainer()`` is a process that has everything imported and forks one trainer after another, so that a whole
run takes a third of a second. In the fork, ``DiskChanges`` numbers every call that changes a file under the run's
working directory, so that a test can say before which of them something happens.
"""

from __future__ import annotations

import atexit
import errno
import faulthandler
import functools
import gc
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

from tests.disk_changes import DiskChanges

ROOT = Path(__file__).resolve().parents[1]
KILLED = 9  # the exit code of a trainer that dies at a change
DEADLINE_S = 120  # a trainer that hangs is ended, and says where it hung


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
    """How a forked trainer ended: its exit code (9 where it died as planned), what it said, how often it wrote.

    Of several processes that train together it is the first; ``others`` are the exit codes of the rest.
    """

    exit_code: int
    said: str
    changes: int
    others: tuple[int, ...] = ()


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

    def train(self, folder: Path, *arguments: object, processes: int = 1, rank: int = 0, **plan: Any) -> Outcome:
        """``python training_orchestrator.py ARGUMENTS`` in ``folder``, disturbed as ``plan`` says.

        With ``processes`` as torchrun would start them, of which the one with that ``rank`` is disturbed.

        Plans, with what comes after ``kind``; without one nothing is disturbed:

        - ``"die", at=N``: the process ends before its Nth change;
        - ``"signal", at=N, signal=NAME``: it signals itself there;
        - ``"fail", at=N, errno=NAME, lasting=BOOL``: the change fails, with ``lasting`` every later one too;
        - ``"limit", size_bytes=SIZE``: the system refuses larger files;
        - ``"memory", more_bytes=SIZE``: the system gives the process so much more memory than it has;
        - ``"environment", variables=MAPPING``: it has these environment variables;
        - ``"record", into=FOLDER``: ``folder`` is copied into ``FOLDER/N`` before every change N, and ``changes.txt``
          lists them.
        """
        request = {"folder": str(folder), "arguments": [str(argument) for argument in arguments],
                   "processes": processes, "rank": rank,
                   "plan": {"kind": "none", **{key: str(value) if isinstance(value, Path) else value
                                               for key, value in plan.items()}}}  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Outcome(**{**answer, "others": tuple(answer["others"])})


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
        said = os.memfd_create("said")
        read_end, write_end = os.pipe()
        codes = _exit_codes(request, write_end, said)
        os.close(write_end)
        with os.fdopen(read_end) as counted, os.fdopen(said, encoding="utf-8", errors="replace") as text:
            text.seek(0)
            outcome = Outcome(codes[0], text.read(), int(counted.read() or 0), tuple(codes[1:]))
        print(json.dumps(outcome.__dict__), flush=True)


def _exit_codes(request: dict[str, Any], count_to: int, said: int) -> list[int]:
    """Fork the processes that train together, and wait for their ends."""
    from torch.distributed import TCPStore

    number = request["processes"]
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) if number > 1 else None
    pids = []
    for rank in range(number):
        if (pid := os.fork()) == 0:
            if store is not None:
                _join(rank, number, store.port)
            plan = request["plan"] if rank == request["rank"] else {"kind": "none"}
            _be_trainer({**request, "plan": plan}, count_to if rank == 0 else None, said)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def _join(rank: int, number: int, port: int) -> None:
    """The environment that torchrun gives a process, whose store it is to meet the others in."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0",
    }  # fmt: skip


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


def _be_trainer(request: dict[str, Any], count_to: int | None, said: int) -> NoReturn:
    import training_orchestrator

    faulthandler.dump_traceback_later(DEADLINE_S, exit=True, file=2)  # standard error is what the trainer says
    code = 99
    changes = DiskChanges(Path(request["folder"]), lambda *change: None)
    try:
        os.dup2(said, 1), os.dup2(said, 2)
        os.chdir(request["folder"])
        changes = DiskChanges(Path(request["folder"]), _act({"folder": request["folder"], **request["plan"]}))
        changes.watch()
        _limit(request["plan"])
        os.environ |= request["plan"].get("variables", {})
        code = training_orchestrator.main(request["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        if count_to is not None:
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
