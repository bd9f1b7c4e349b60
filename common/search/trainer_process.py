"""A process that trains for a search with one worker, and is begun before anything is known of it.

torch takes longer to load than everything else that a search does before its first trial. So it is loaded beside that,
on another processor, and the process that keeps the ledger does not need it at all.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from common.exits import EnvironmentLackError, Exit, StoppedError, ToolError
from common.loading import loading
from common.search.held_signals import signals_held, signals_released
from common.search.outcome import Job, Outcome, Surroundings
from common.search.stopping import SearchStop
from common.signals import StopSignals

if TYPE_CHECKING:
    from common.config import LoadedConfig
    from common.search.assignment import Assignment

_TICK_S = 0.2
_LOOK_EVERY_S = 1.0


class TrainerProcess:
    """Implements ``outcome.Trainer`` by a process of its own. For one thread, which owns it until ``close``.

    A process that has died is replaced when it is needed next.
    """

    def __init__(self) -> None:
        self._assignment: Assignment | None = None
        self._start()

    def ask_survey(self, base: LoadedConfig) -> None:
        """Ask for what ``survey`` returns."""
        self._send("survey", base)

    def survey(self, stop: StopSignals) -> Surroundings:
        """See ``training.survey``. Raises what that does, StoppedError, and EnvironmentLackError where it died."""
        return self._answer_to(stop)

    def begin(self, assignment: Assignment) -> None:
        """Say what the study is that trainings from now on belong to."""
        self._assignment = assignment
        self._send("begin", assignment)

    def run(self, job: Job, stop: StopSignals, *, meanwhile: Callable[[], None] | None = None) -> Outcome:
        """See ``outcome.Trainer``; ``begin`` comes first. Raises EnvironmentLackError too where the process died."""
        if not self._process.is_alive():
            self._restart()
        self._send("run", job)
        try:
            if meanwhile is not None:
                meanwhile()
        except BaseException:
            self.close()  # or its answer would be taken for that to the next request
            raise
        return self._answer_to(stop)

    def close(self) -> None:
        """End the process; nothing that it trains then is lost that was saved."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _start(self) -> None:
        # Anew, not as a copy of this process: where one is restarted there are threads and open databases here.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="search trainer")
        with signals_held():
            self._process.start()
        theirs.close()

    def _restart(self) -> None:
        self.close()
        self._start()
        if self._assignment is not None:
            self._send("begin", self._assignment)

    def _answer_to(self, stop: StopSignals) -> Any:
        was_told = False
        while not self._connection.poll(_TICK_S):
            if stop.requested and not was_told:
                self._process.terminate()  # it saves, and says so
                was_told = True
        try:
            kind, content = self._connection.recv()
        except (EOFError, OSError):
            stop.raise_if_requested()
            raise self._death() from None
        if kind == "done":
            return content
        if kind == "stopped":
            self._process.join()
            stop.raise_if_requested()
            raise StoppedError("the training was stopped", exit=Exit.TERMINATED, hint="run the same command again")
        raise content

    def _send(self, request: str, *arguments: Any) -> None:
        with contextlib.suppress(OSError):  # it has died, which is noticed by who waits for an answer
            self._connection.send((request, arguments))

    def _death(self) -> EnvironmentLackError:
        self._process.join()
        code = self._process.exitcode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return EnvironmentLackError(f"the process that trains died ({how})",
                                    hint="if memory is short, make room; the same command then goes on")  # fmt: skip


def _serve(connection: Connection) -> None:
    """The whole life of the process."""
    with contextlib.suppress(StoppedError, EOFError, OSError), SearchStop() as stop, stop.deferred():
        signals_released()
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent", daemon=True).start()
        with loading():
            from common.search.training import TrainingDesk
        desk = TrainingDesk(stop)
        while True:
            while not connection.poll(_TICK_S):
                stop.raise_if_requested()
            request, arguments = connection.recv()
            if request == "begin":
                desk.begin(*arguments)
            else:
                connection.send(_answer(getattr(desk, request), arguments))
            desk.prepare()


def _answer(action: Callable[..., Any], arguments: Sequence[Any]) -> tuple[str, Any]:
    try:
        return "done", action(*arguments)
    except StoppedError:
        return "stopped", None
    except (ToolError, OSError) as error:
        return "failed", error
    except Exception:
        return "failed", RuntimeError(traceback.format_exc())  # of a class that the other process may not know


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
