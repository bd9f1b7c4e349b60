"""Signals that wait while a process is started, until its own handlers are there."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

_HELD = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """A process inherits that signals wait, so that none ends it before it can handle them; none is lost here."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signals_released()


def signals_released() -> None:
    """Let those come that were held while this process was started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
