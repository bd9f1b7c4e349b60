"""Being asked to stop: at once where nothing is at stake, at the next safe point while training."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from common.exits import Exit, StoppedError

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """Turns SIGINT, SIGTERM and SIGUSR1 (batch schedulers send it before the time is up) into a clean stop.

    Outside ``deferred()`` a signal raises ``StoppedError`` where the program stands; inside it is only noted, and
    the code under it calls ``raise_if_requested`` wherever it can stop without losing anything. A second SIGINT ends
    the process at once: every file is written atomically, so even that loses only work, never data.

    Main thread only. The previous handlers come back when the ``with`` block ends.
    """

    def __init__(self) -> None:
        self._requested: signal.Signals | None = None
        self._deferred = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        for number in _HANDLED:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def requested(self) -> bool:
        """Whether someone asked this process to stop."""
        return self._requested is not None

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note signals inside this block; one that came is raised when the block ends without an error."""
        before = self._deferred
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = before
        if not before:
            self.raise_if_requested()

    def raise_if_requested(self) -> None:
        """Raises StoppedError with the exit code that belongs to the signal, if one came."""
        if self._requested is not None:
            raise self._error(self._requested)

    @staticmethod
    def elsewhere() -> StoppedError:
        """The error for stopping because another process of the same training was asked to."""
        return StoppedError("stopped, as another process of this training was", exit=Exit.TERMINATED)

    def _handle(self, number: int, frame: object) -> None:
        repeated = self._requested is not None
        self._requested = signal.Signals(number)
        if repeated and number == signal.SIGINT:
            os._exit(int(Exit.INTERRUPTED))
        if not self._deferred and not repeated:
            raise self._error(self._requested)

    @staticmethod
    def _error(number: signal.Signals) -> StoppedError:
        code = Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED
        return StoppedError(f"stopped by {number.name}", exit=code, hint="run the same command again to go on")
