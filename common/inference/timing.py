"""Calling a model many times and taking the time of each call (``schedule`` does it at given times).

Nothing is ever left out of the times. Around a call stand only two readings of the clock; every two milliseconds,
outside the time taken, the kernel's count of preemptions is read.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import resource
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WARM_UP_WINDOW_S = 0.05
WARM_UP_WINDOW_CALLS = 5
WARM_UP_LIMIT_S = 2.0
WARM_UP_TOLERANCE = 0.05
# A run is made longer than asked for where percentiles need more calls, up to this many times.
LENGTHENING = 10
# Asking the kernel for its count takes some microseconds, which a call of 0.2 ms would notice.
PREEMPTIONS_EVERY_NS = 2_000_000
FOREVER_NS = 2**62

Call = Callable[[npt.NDArray[np.float32]], object]


@dataclass(frozen=True, eq=False)
class Timings:
    """Calls in the order they were made; all arrays have one entry per call.

    Attributes:
        started_ns: when the call began, since the first one began, int64.
        latency_ns: how long its caller waited, int64. On a schedule that counts from the scheduled arrival.
        model_ns: how long the call itself took, int64; the same as ``latency_ns`` where calls are back to back.
        preemptions: how often the kernel took the processor away from a thread of this process during the call, int64.
            Of calls shorter than two milliseconds the kernel's count is read once for several, and what it rose by is
            put down to the slowest of them, one each.
        wall_s, cpu_s: of the whole series; ``cpu_s`` is processor time of all threads.
        num_unserved: requests at the end of the arrays that had arrived and not been served when time was up. Their
            ``latency_ns`` is how long they had waited by then, less than it would have become.
        batch_size: samples per call.
    """

    started_ns: npt.NDArray[np.int64]
    latency_ns: npt.NDArray[np.int64]
    model_ns: npt.NDArray[np.int64]
    preemptions: npt.NDArray[np.int64]
    wall_s: float
    cpu_s: float
    batch_size: int
    num_unserved: int = 0

    @property
    def num_calls(self) -> int:
        return len(self.latency_ns)

    @property
    def latency_ms(self) -> npt.NDArray[np.float64]:
        return self.latency_ns / 1e6

    @property
    def num_served(self) -> int:
        return self.num_calls - self.num_unserved


@dataclass(frozen=True)
class WarmUp:
    """Calls before the measurement; ``settled`` where their time had stopped changing by the end."""

    num_calls: int
    duration_s: float
    settled: bool


def preemptions_so_far() -> int:
    """How often the kernel has taken the processor away from a thread of this process that wanted to go on."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Keep Python's cyclic collector out of the times, as timeit does: it would time the memory of the harness.

    Objects without cycles die as ever.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class SeriesClock:
    """Wall and processor time of a series of calls, which is made within ``running`` blocks that add up."""

    def __init__(self) -> None:
        self.wall_s = 0.0
        self.cpu_s = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of the block."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        yield
        self.wall_s += time.perf_counter() - wall_s
        self.cpu_s += time.process_time() - cpu_s


class Recorder:
    """Times one call after another; adds two clock readings to what the caller of the model would see."""

    def __init__(self, call: Call, batch_size: int) -> None:
        self.clock = SeriesClock()
        self._call = call
        self._batch_size = batch_size
        self._started, self._ended = array("q"), array("q")
        # Of each stretch of calls with preemptions: its first call, the one after its last, and how many there were.
        self._preempted: list[tuple[int, int, int]] = []

    @property
    def num_calls(self) -> int:
        return len(self._started)

    def run(self, batches: Iterator, *, until_ns: int, min_calls: int, limit_ns: int = FOREVER_NS) -> None:
        """Call the model back to back until ``until_ns`` and ``min_calls`` are reached, or ``limit_ns`` is.

        At least one call is made. The times are those of ``time.perf_counter_ns``.
        """
        call, now = self._call, time.perf_counter_ns
        started, ended = self._started.append, self._ended.append
        first, known = self.num_calls, preemptions_so_far()
        min_total = first + min_calls
        read_again_ns = now() + PREEMPTIONS_EVERY_NS
        for count, inputs in enumerate(batches, first + 1):
            start = now()
            call(inputs)
            end = now()
            started(start)
            ended(end)
            is_last = end >= limit_ns or (end >= until_ns and count >= min_total)
            if end >= read_again_ns or is_last:
                before, known = known, preemptions_so_far()
                if known != before:
                    self._preempted.append((first, count, known - before))
                first, read_again_ns = count, end + PREEMPTIONS_EVERY_NS
            if is_last:
                return

    def timings(self) -> Timings:
        """What was recorded so far."""
        started, ended = np.array(self._started, dtype=np.int64), np.array(self._ended, dtype=np.int64)
        latency_ns = ended - started
        return Timings(
            started - started[0], latency_ns, latency_ns, self._preemptions_of_calls(latency_ns),
            self.clock.wall_s, self.clock.cpu_s, self._batch_size,
        )  # fmt: skip

    def _preemptions_of_calls(self, latency_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        counts = np.zeros(len(latency_ns), dtype=np.int64)
        for first, end, total in self._preempted:
            slowest_first = first + np.argsort(-latency_ns[first:end], kind="stable")
            counts[slowest_first[:total]] += 1
            counts[slowest_first[0]] += max(0, total - (end - first))
        return counts


def warm_up(call: Call, batches: Sequence, *, limit_s: float = WARM_UP_LIMIT_S) -> WarmUp:
    """Call the model until the median time of two windows in a row is that of the one before, or time is up."""
    source, medians, num_calls = itertools.cycle(batches), [], 0
    begin_s = time.perf_counter()
    while time.perf_counter() - begin_s < limit_s:
        recorder = Recorder(call, 1)
        until_ns = time.perf_counter_ns() + int(WARM_UP_WINDOW_S * 1e9)
        recorder.run(source, until_ns=until_ns, min_calls=WARM_UP_WINDOW_CALLS, limit_ns=until_ns + int(limit_s * 1e9))
        latency_ns = recorder.timings().latency_ns
        num_calls += len(latency_ns)
        medians.append(float(np.median(latency_ns)))
        if _settled(medians):
            break
    return WarmUp(num_calls, time.perf_counter() - begin_s, _settled(medians))


def closed_loop(call: Call, batches: Sequence, *, duration_s: float, min_calls: int) -> Timings:
    """Calls back to back over ``batches`` again and again, for ``duration_s`` or longer.

    It is lengthened, to at most ten times ``duration_s``, until there are ``min_calls`` calls.
    """
    recorder = Recorder(call, len(batches[0]))
    with without_collection(), recorder.clock.running():
        now_ns, duration_ns = time.perf_counter_ns(), int(duration_s * 1e9)
        recorder.run(
            itertools.cycle(batches),
            until_ns=now_ns + duration_ns,
            min_calls=min_calls,
            limit_ns=now_ns + LENGTHENING * duration_ns,
        )
    return recorder.timings()


def _settled(medians: Sequence[float]) -> bool:
    last = medians[-3:]
    return len(last) == 3 and max(last) <= (1.0 + WARM_UP_TOLERANCE) * min(last)
