"""Where the processes of one training meet, also when torchrun has started them again.

From one attempt to the next (``--max-restarts``) torchrun keeps its store, and with it the addresses that processes had
in an earlier life. So the processes first agree on a name for this attempt, and share everything else under that name.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

import torch.distributed as dist

_RETRY_S = 0.05
_ANSWER_WITHIN = timedelta(seconds=1)


def meet(timeout: timedelta) -> tuple[dist.Store, int, int]:
    """The store of this attempt, this process's rank and the number of processes, from the environment.

    Raises:
        RuntimeError, ValueError: the environment is not that of one process of several, or the others do not come.
    """
    store, rank, size = next(dist.rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    name = _lead(store, size) if rank == 0 else _follow(store, rank, timeout)
    return dist.PrefixStore(name, store), rank, size


def _lead(store: dist.Store, size: int) -> str:
    """Publish a new name, and give every other process back the token that it left under it."""
    name = uuid.uuid4().hex
    store.set("attempt", name)
    for rank in range(1, size):
        store.set(f"{name}/answer/{rank}", store.get(f"{name}/token/{rank}"))
    return name


def _follow(store: dist.Store, rank: int, timeout: timedelta) -> str:
    """The published name under which this process's own token came back; an old one has the answer to an old token."""
    token = uuid.uuid4().hex
    end = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < end:
        name = store.get("attempt").decode()
        store.set(f"{name}/token/{rank}", token)
        if _answer(store, f"{name}/answer/{rank}") == token:
            return name
        time.sleep(_RETRY_S)
    raise RuntimeError("the first process of this training does not answer")


def _answer(store: dist.Store, key: str) -> str | None:
    try:
        store.wait([key], _ANSWER_WITHIN)
    except RuntimeError:  # not yet
        return None
    return store.get(key).decode()
