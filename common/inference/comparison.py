"""Two models on the same requests, in turns, so that whatever else the machine does meets both alike."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.inference.contention import StealWatch, contention_of
from common.inference.engines import Engine
from common.inference.measurement import MIN_CALLS, Advance, Measurement, Ready, Settings, finish, make_ready
from common.inference.requests import RequestSource
from common.inference.timing import LENGTHENING, Recorder, Timings, without_collection
from common.statistics import McNemar, MeanDifference, mcnemar, paired_difference

# Long enough that each model works with warm caches of its own, short enough that a disturbance meets both.
BLOCK_S = 0.02
MIN_BLOCK_CALLS = 5


@dataclass(frozen=True)
class LatencyRatio:
    """Median latency of the other model over that of the first; ``low`` and ``high`` are a 95% interval, None where
    there are too few turns for one."""

    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """``first`` is ``--model``, ``other`` is ``--compare``.

    Attributes:
        ratio: of latencies.
        num_turns: pairs of blocks of calls that it rests on.
        agreement_pct: share of the test samples on which both predict the same class, percent.
        mcnemar: of the two models' errors (``baseline`` there is ``first``).
    """

    first: Measurement
    other: Measurement
    ratio: LatencyRatio
    num_turns: int
    agreement_pct: float
    mcnemar: McNemar


def compare(
    engines: tuple[Engine, Engine], requests: tuple[RequestSource, RequestSource], settings: Settings, advance: Advance
) -> Comparison:
    """Measure both models in turns: first, other, other, first, and so on, so that a drift cancels out.

    Both get ``duration_s`` of calls. See ``measurement.measure`` for ``advance`` and for what is raised.
    """
    ready = [make_ready(engine, source) for engine, source in zip(engines, requests, strict=True)]
    watch = StealWatch()
    timings, medians = _in_turns(ready, settings)
    steal_pct = watch.steal_pct()
    first, other = (
        finish(one, series, contention_of(series, steal_pct, never_idle=not one.engine.on_gpu), settings, advance)
        for one, series in zip(ready, timings, strict=True)
    )
    right = [_right_answers(measurement) for measurement in (first, other)]
    return Comparison(
        first=first,
        other=other,
        ratio=_ratio(timings, medians),
        num_turns=len(medians[0]),
        agreement_pct=100.0 * float((_predicted_names(first) == _predicted_names(other)).mean()),
        mcnemar=mcnemar(int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())),
    )


def _in_turns(ready: list[Ready], settings: Settings) -> tuple[list[Timings], list[list[float]]]:
    """Timings of each model, and the median latency of each of its blocks in ns."""
    recorders = [Recorder(one.engine, one.requests.batch_size) for one in ready]
    sources = [itertools.cycle(one.batches) for one in ready]
    sizes: list[list[int]] = [[], []]
    begin_s = time.perf_counter()
    with without_collection():
        # A turn each at least, however long the process was kept from running before the first.
        while not sizes[0] or not _done(recorders, time.perf_counter() - begin_s, 2 * settings.duration_s):
            for index in (0, 1) if len(sizes[0]) % 2 == 0 else (1, 0):
                sizes[index].append(_run_block(recorders[index], sources[index]))
    timings = [recorder.timings() for recorder in recorders]
    return timings, [_block_medians(series, counts) for series, counts in zip(timings, sizes, strict=True)]


def _run_block(recorder: Recorder, batches: Iterator) -> int:
    """One model's turn; returns how many calls it made."""
    before, until_ns = recorder.num_calls, time.perf_counter_ns() + int(BLOCK_S * 1e9)
    with recorder.clock.running():
        recorder.run(batches, until_ns=until_ns, min_calls=MIN_BLOCK_CALLS)
    return recorder.num_calls - before


def _done(recorders: list[Recorder], elapsed_s: float, duration_s: float) -> bool:
    if elapsed_s >= LENGTHENING * duration_s:
        return True
    return elapsed_s >= duration_s and min(recorder.num_calls for recorder in recorders) >= MIN_CALLS


def _block_medians(timings: Timings, counts: list[int]) -> list[float]:
    blocks = np.split(timings.latency_ns, np.cumsum(counts)[:-1])
    return [float(np.median(block)) for block in blocks]


def _ratio(timings: list[Timings], medians: list[list[float]]) -> LatencyRatio:
    """The interval is Student's over the logarithms of the ratios of paired blocks, which drift together."""
    overall = [float(np.median(series.latency_ns)) for series in timings]
    difference: MeanDifference | None = paired_difference(*(np.log(values) for values in medians))
    if difference is None:
        return LatencyRatio(overall[1] / overall[0], None, None)
    return LatencyRatio(math.exp(difference.effect), math.exp(difference.low), math.exp(difference.high))


def _right_answers(measurement: Measurement) -> npt.NDArray[np.bool_]:
    return measurement.accuracy.predictions_N == measurement.requests.labels


def _predicted_names(measurement: Measurement) -> npt.NDArray[np.str_]:
    # By name: the two models may number their classes differently.
    return np.array(measurement.engine.metadata.class_names)[measurement.accuracy.predictions_N]
