"""Several workers side by side, each a process: started, listened to, replaced when they die, and stopped."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from common.console import Console
from common.exits import RunFailedError
from common.search.assignment import Assignment
from common.search.held_signals import signals_held
from common.search.stopping import SearchStop
from common.search.worker_process import error_from, work

_TICK_S = 0.5
# Workers that may die one after another without having brought a single task to its end.
_MAX_DEATHS_IN_VAIN = 8
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass
class _Member:
    number: int
    process: BaseProcess
    connection: Connection
    has_said_goodbye: bool = False


class WorkerPool:
    """The workers of one search on this machine. The processes are started anew, never forked: torch is loaded here.

    Args:
        size: how many.
        gpus: names for ``CUDA_VISIBLE_DEVICES``, given out in turn; with fewer than two all workers see what is there.
        news: called when the ledger has changed.
        death: called when a worker has died, before another takes its place.
    """

    def __init__(
        self,
        assignment: Assignment,
        size: int,
        gpus: list[str],
        console: Console,
        *,
        news: Callable[[], None],
        death: Callable[[], None],
    ) -> None:
        self._assignment = assignment
        self._size = size
        self._gpus = gpus
        self._console = console
        self._news = news
        self._death = death
        self._members: list[_Member] = []
        self._deaths_in_vain = 0

    def run(self, stop: SearchStop) -> None:
        """Return when no worker has anything left to do.

        Raises:
            StoppedError: asked to stop, or the time is up; the workers have saved and ended.
            ToolError: a worker met with what no other could do without either.
        """
        try:
            with stop.deferred():
                for number in range(self._size):
                    self._members.append(self._start(number, stop))
                while self._members:
                    stop.raise_if_requested()
                    self._listen(stop)
        finally:
            self._end_all()

    def _start(self, number: int, stop: SearchStop) -> _Member:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=work, args=(self._assignment, stop.deadline_s, theirs), name=f"search worker {number}"
        )
        with signals_held(), self._own_gpu(number):
            process.start()
        theirs.close()
        return _Member(number, process, ours)

    @contextlib.contextmanager
    def _own_gpu(self, number: int) -> Iterator[None]:
        """Let the process that is started see one GPU only, where there are several."""
        if len(self._gpus) < 2:
            yield
            return
        before = os.environ.get(_VISIBLE)
        os.environ[_VISIBLE] = self._gpus[number % len(self._gpus)]
        try:
            yield
        finally:
            del os.environ[_VISIBLE]
            if before is not None:
                os.environ[_VISIBLE] = before

    def _listen(self, stop: SearchStop) -> None:
        by_connection = {member.connection: member for member in self._members}
        for connection in wait(list(by_connection), timeout=_TICK_S):
            member = by_connection[connection]
            try:
                kind, content = member.connection.recv()
            except (EOFError, OSError):
                self._bury(member, stop)
                continue
            self._hear(member, kind, content)

    def _hear(self, member: _Member, kind: str, content: Any) -> None:
        if kind == "news":
            self._deaths_in_vain = 0
            self._news()
        elif kind == "warning":
            self._console.warning(content)
        elif kind == "error":
            raise error_from(content)
        elif kind == "bug":
            raise RuntimeError(f"in {member.process.name}:\n{content}")
        else:
            member.has_said_goodbye = True

    def _bury(self, member: _Member, stop: SearchStop) -> None:
        """A worker has ended; where it did so without a word, put another in its place."""
        member.process.join()
        member.connection.close()
        self._members.remove(member)
        if member.has_said_goodbye:
            return
        self._deaths_in_vain += 1
        code = member.process.exitcode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        if self._deaths_in_vain > _MAX_DEATHS_IN_VAIN:
            raise RunFailedError(
                f"the workers keep dying, the last one {how}",
                hint="if memory is short, take fewer --jobs; the same command then goes on",
            )
        self._console.warning(f"{member.process.name} died ({how}); its trial is taken again")
        self._death()
        self._members.append(self._start(member.number, stop))

    def _end_all(self) -> None:
        """Ask the workers that are left to save and end, and wait for it."""
        for member in self._members:
            member.process.terminate()
        for member in self._members:
            while member.process.is_alive():
                # What it still has to say must not fill the pipe that it waits on.
                if member.connection.poll(_TICK_S):
                    with contextlib.suppress(EOFError, OSError):
                        member.connection.recv()
                        continue
                    member.process.join()
            member.connection.close()
        self._members.clear()


def visible_gpus() -> list[str]:
    """The GPUs of this process, as ``CUDA_VISIBLE_DEVICES`` calls them."""
    import torch

    named = os.environ.get(_VISIBLE)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]
