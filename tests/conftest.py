"""Shared by all tests: the project's root is importable, and nothing is written into it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Two test processes with two threads each would fight over two cores; and results repeat at a fixed thread count.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Tests that need an NVIDIA GPU are none of a machine without its driver.
collect_ignore = [] if Path("/dev/nvidiactl").exists() else ["gpu"]


@pytest.fixture
def as_anyone():
    """What to put before a command so that permissions hold for it; root has to give up its right to pass them by."""
    if os.geteuid() != 0:
        return []
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if shutil.which("setpriv") is None or subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        pytest.skip("root passes by all permissions here, and cannot give that up")
    return command


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL server of the test's own; without PostgreSQL the test is skipped, and says so."""
    from tests import postgresql_server

    if (reason := postgresql_server.missing()) is not None:
        pytest.skip(reason)
    server = postgresql_server.PostgresqlServer()
    yield server
    server.close()
