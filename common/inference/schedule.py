"""Requests that arrive when they arrive, whether or not the model has answered those before.

A caller who waits for each answer before he asks again never sees a queue: his slow calls keep the next ones from
being made ("coordinated omission"). Here the times of arrival stand beforehand, and latency counts from them.
"""

from __future__ import annotations

import itertools
import time
from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from common.inference.timing import Call, SeriesClock, Timings, preemptions_so_far, without_collection

# Sleeping ends late by about a tenth of a millisecond, so the last stretch to an arrival is spent watching the clock.
SPIN_NS = 300_000


def poisson_schedule(rate_per_s: float, count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Arrival times in ns from 0 of ``count`` requests that come independently of each other at ``rate_per_s``.

    Source: MLPerf Inference Rules, "Server" scenario (Poisson arrivals).
    """
    gaps_s = np.random.default_rng(seed).exponential(1.0 / rate_per_s, size=count)
    return np.rint(np.cumsum(gaps_s) * 1e9).astype(np.int64)


def open_loop(call: Call, batches: Sequence, *, schedule_ns: npt.NDArray[np.int64], limit_s: float) -> Timings:
    """One server, first come first served: each request waits for those before it, and its time counts from arrival.

    Args:
        schedule_ns: arrival of each request from the start, ascending.
        limit_s: when a server that does not keep up stops. Requests that have arrived and not been served by then are
            counted with the time they have waited so far.
    """
    source, now, clock = itertools.cycle(batches), time.perf_counter_ns, SeriesClock()
    started, ended, preemptions = array("q"), array("q"), array("q")
    with without_collection(), clock.running():
        origin_ns = now()
        limit_ns = origin_ns + int(limit_s * 1e9)
        before = preemptions_so_far()
        for arrival_ns in (schedule_ns + origin_ns).tolist():
            if max(now(), arrival_ns) >= limit_ns:
                break
            if _wait_until(arrival_ns):  # what was preempted while idle delayed nobody
                before = preemptions_so_far()
            inputs = next(source)
            started.append(now())
            call(inputs)
            ended.append(now())
            after = preemptions_so_far()
            preemptions.append(after - before)
            before = after
        end_ns = now() - origin_ns
    served = [np.array(values, dtype=np.int64) for values in (started, ended, preemptions)]
    return _timings(
        schedule_ns, served[0] - origin_ns, served[1] - origin_ns, served[2], end_ns, clock, len(batches[0])
    )


def _timings(
    schedule_ns: npt.NDArray[np.int64],
    started_ns: npt.NDArray[np.int64],
    ended_ns: npt.NDArray[np.int64],
    preemptions: npt.NDArray[np.int64],
    end_ns: int,
    clock: SeriesClock,
    batch_size: int,
) -> Timings:
    """The served requests, and after them those that were still waiting at ``end_ns``."""
    arrivals_ns, later_ns = np.split(schedule_ns, [len(started_ns)])
    waited_ns = end_ns - later_ns[later_ns < end_ns]
    none = np.zeros_like(waited_ns)
    return Timings(
        started_ns=np.concatenate([started_ns, none + end_ns]),
        latency_ns=np.concatenate([ended_ns - arrivals_ns, waited_ns]),
        model_ns=np.concatenate([ended_ns - started_ns, none]),
        preemptions=np.concatenate([preemptions, none]),
        wall_s=clock.wall_s,
        cpu_s=clock.cpu_s,
        batch_size=batch_size,
        num_unserved=len(waited_ns),
    )


def _wait_until(moment_ns: int) -> bool:
    """Wait for a moment of ``perf_counter_ns``; False where it is past already."""
    left_ns = moment_ns - time.perf_counter_ns()
    if left_ns <= 0:
        return False
    if left_ns > SPIN_NS:
        time.sleep((left_ns - SPIN_NS) / 1e9)
    while time.perf_counter_ns() < moment_ns:
        pass
    return True
