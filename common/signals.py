"""Being asked to stop: at once where nothing is at stake, at the next safe point while training."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from common.exits import Exit, StoppedError

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_RETRY_S = 0.05


class StopSignals:
    """Turns SIGINT, SIGTERM and SIGUSR1 (batch schedulers send it before the time is up) into a clean stop.

    Outside ``deferred()`` a signal raises ``StoppedError`` where the program stands, or right after an import; inside
    it is only noted, and the code under it calls ``raise_if_requested`` wherever it can stop without losing anything. A
    second SIGINT ends the process at once: every file is written atomically, so even that loses only work, never data.

    Main thread only. The previous handlers come back when the ``with`` block ends.
    """

    def __init__(self) -> None:
        self._requested: signal.Signals | None = None
        self._deferred = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        for number in _HANDLED:
            self._previous[number] = signal.signal(number, self._handle)
        self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._retry)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
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

    def _handle(self, number: int, frame: FrameType | None) -> None:
        repeated = self._requested is not None
        self._requested = signal.Signals(number)
        if repeated and number == signal.SIGINT:
            os._exit(int(Exit.INTERRUPTED))
        if not repeated:
            self._retry(number, frame)

    def _retry(self, number: int, frame: FrameType | None) -> None:
        """Raise what was asked for, unless it has to wait.

        Native libraries swallow an exception that is raised while they are being loaded, and stay half-loaded. So
        during an import the signal waits for a moment at which none is under way.
        """
        if self._deferred or self._requested is None:
            return
        if _is_importing(frame):
            signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
            return
        raise self._error(self._requested)

    @staticmethod
    def _error(number: signal.Signals) -> StoppedError:
        code = Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED
        return StoppedError(f"stopped by {number.name}", exit=code, hint="run the same command again to go on")


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
