"""Reasons for a training of the search to stop besides a signal: the time is up, or the trial is somebody else's."""

from __future__ import annotations

import time

from common.exits import Exit, StoppedError
from common.signals import StopSignals


class TimeUpError(StoppedError):
    """The time that the search was given is over; what was trained is saved."""

    def __init__(self) -> None:
        super().__init__("the time is up", exit=Exit.DONE)


class LeaseLostError(StoppedError):
    """Another worker has taken the trial over, or it may do so at any moment."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"gave the trial up: {reason}", exit=Exit.ENVIRONMENT)


class SearchStop(StopSignals):
    """``StopSignals`` with a deadline, and for which other threads can ask.

    Args:
        deadline_s: of ``time.time()``, None for no deadline.
    """

    def __init__(self, deadline_s: float | None = None) -> None:
        super().__init__()
        self.deadline_s = deadline_s
        self._lost: str | None = None

    @property
    def requested(self) -> bool:
        return self._lost is not None or self.is_time_up or super().requested

    @property
    def is_time_up(self) -> bool:
        return self.deadline_s is not None and time.time() >= self.deadline_s

    def raise_if_requested(self) -> None:
        super().raise_if_requested()
        if self._lost is not None:
            raise LeaseLostError(self._lost)
        if self.is_time_up:
            raise TimeUpError

    def lose(self, reason: str) -> None:
        """Ask for a stop of the trial under way. From any thread."""
        self._lost = reason

    def begin(self) -> None:
        """Forget what was asked of the trial before."""
        self._lost = None
