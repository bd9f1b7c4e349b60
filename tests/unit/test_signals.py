from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.exits import StoppedError
from common.signals import StopSignals

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)], ids=str
)
def test_outside_the_loop_a_signal_stops_at_once(number, code):
    with StopSignals(), pytest.raises(StoppedError) as stopped:
        os.kill(os.getpid(), number)
        for _ in range(1_000_000):  # the handler runs between two of these
            pass
    assert stopped.value.exit == code


def test_deferred_signals_wait_for_a_safe_point():
    reached = []
    with StopSignals() as stop, pytest.raises(StoppedError), stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append("after the signal")
        assert stop.requested
        stop.raise_if_requested()
        reached.append("never")
    assert reached == ["after the signal"]


def test_a_deferred_block_raises_at_its_end():
    with StopSignals() as stop, pytest.raises(StoppedError), stop.deferred():
        os.kill(os.getpid(), signal.SIGUSR1)


def test_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_sigint_ends_the_process_at_once():
    code = (
        "import os, signal; from common.signals import StopSignals\n"
        "with StopSignals() as stop, stop.deferred():\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('first', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('second', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "first\n")
