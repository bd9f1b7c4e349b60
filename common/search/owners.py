"""Who a worker is, and whether it can be known to be dead."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import uuid
from pathlib import Path

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def new_owner() -> str:
    """A name for this process as a worker: text that no other worker has, anywhere."""
    pid = os.getpid()
    return json.dumps([_place(), pid, psutil.Process(pid).create_time(), uuid.uuid4().hex[:8]])


def pid_of(owner: str) -> int:
    """The process that bears the name."""
    return json.loads(owner)[1]


def is_known_dead(owner: str) -> bool:
    """Whether the worker is a process of this very machine, as far as it can be seen, that has ended."""
    try:
        place, pid, created, _ = json.loads(owner)
    except (ValueError, TypeError):
        return False
    if place != _place():
        return False
    try:
        process = psutil.Process(pid)
        return process.create_time() != created or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _place() -> str:
    """Machine, start of its system, and the processes that can be seen from here: containers see their own only."""
    boot, namespace = "", ""
    with contextlib.suppress(OSError):
        boot = _BOOT_ID.read_text().strip()
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {boot} {namespace}"
