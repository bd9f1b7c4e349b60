"""The sign of life of a worker while it trains: a thread that renews its lease."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType

from common.search.leases import LEASE_S, RENEW_EVERY_S, Leases

_LOOK_EVERY_S = 1.0


class Heartbeat:
    """Renews the lease of a task while the ``with`` block runs.

    ``lose`` is called, from the thread, with the reason when the task is somebody else's or can no longer be said to be
    this worker's. With ``parent`` the process signals itself SIGTERM when that process has ended: a worker does not
    outlive its search.
    """

    def __init__(
        self, leases: Leases, task: str, owner: str, lose: Callable[[str], None], *, parent: int | None = None
    ) -> None:
        self._leases = leases
        self._task = task
        self._owner = owner
        self._lose = lose
        self._parent = parent
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._end.wait(_LOOK_EVERY_S):
            if self._parent is not None and os.getppid() != self._parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            now = time.monotonic()
            if now - renewed < RENEW_EVERY_S:
                continue
            is_ours = self._renew()
            if is_ours:
                renewed = now
            elif is_ours is False:
                self._lose("another worker has taken it over")
                return
            elif now - renewed > LEASE_S - 2 * RENEW_EVERY_S:
                self._lose("the storage cannot be reached")
                return

    def _renew(self) -> bool | None:
        """Whether the task is still ours; None where the storage does not answer, which may pass."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return self._leases.renew(self._task, self._owner)
        except SQLAlchemyError:
            return None
