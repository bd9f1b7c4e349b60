"""Loss and gradient norm of every optimizer step, to the bit, in a file that is written in place.

Sixteen bytes per step: two little-endian float64 numbers at offset ``16 * step``. Where a run goes on from an older
checkpoint it writes the same steps again at the same place, so no interruption leaves a trace in the trace.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

_RECORD = struct.Struct("<dd")


class StepTrace:
    """Collects steps in memory and writes them when told to. One writer, the holder of the run's lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first_step = 0
        self._pending = bytearray()

    def add(self, step: int, loss_sum: float, grad_norm: float) -> None:
        """Note optimizer step ``step``, counted from 0. Steps come one after another; a jump starts a new stretch."""
        if step != self._first_step + len(self._pending) // _RECORD.size:
            self.flush()
            self._first_step = step
        self._pending += _RECORD.pack(loss_sum, grad_norm)

    def flush(self) -> None:
        """Write what was noted. Raises OSError where the disk refuses."""
        if not self._pending:
            return
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(handle, self._pending, self._first_step * _RECORD.size)
        finally:
            os.close(handle)
        self._first_step += len(self._pending) // _RECORD.size
        self._pending.clear()


def read_trace(path: Path, num_steps: int) -> np.ndarray:
    """Steps 0 to ``num_steps`` as float64 (num_steps, 2): loss sum and gradient norm; NaN where none was written."""
    trace = np.full((num_steps, 2), np.nan)
    if path.is_file():
        written = np.frombuffer(path.read_bytes()[: num_steps * _RECORD.size], dtype="<f8")
        trace[: len(written) // 2] = written[: len(written) // 2 * 2].reshape(-1, 2)
    return trace
