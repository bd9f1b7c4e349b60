"""One model at one batch size, measured in one session: latency, throughput, accuracy, memory."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.exits import UsageError
from common.inference.accuracy import Accuracy, accuracy_of
from common.inference.contention import Contention, StealWatch, contention_of
from common.inference.engines import Engine
from common.inference.percentiles import REPORTED_PCT, Percentile, percentiles, samples_needed
from common.inference.requests import RequestSource
from common.inference.resources import Resources, measure_resources
from common.inference.schedule import open_loop, poisson_schedule
from common.inference.timing import LENGTHENING, Timings, WarmUp, closed_loop, warm_up

MIN_CALLS = samples_needed(max(REPORTED_PCT))
MAX_SCHEDULED = 10_000_000

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Settings:
    """``duration_s`` of the timed calls, which is lengthened where percentiles need more of them; ``rate_per_s`` is of
    requests (not samples) that arrive on a schedule, None for calls back to back."""

    duration_s: float = 5.0
    rate_per_s: float | None = None


@dataclass(frozen=True, eq=False)
class EndToEnd:
    """From the stored sample to the predicted class, one entry per request, in order; ns, int64.

    ``prepare_ns`` is the part of ``latency_ns`` before the model is called.
    """

    latency_ns: npt.NDArray[np.int64]
    prepare_ns: npt.NDArray[np.int64]

    @property
    def percentiles(self) -> list[Percentile]:
        return percentiles(self.latency_ns / 1e6)

    @property
    def prepare_p50_ms(self) -> float:
        return float(np.median(self.prepare_ns)) / 1e6


@dataclass(frozen=True, eq=False)
class Schedule:
    """Requests per second that arrived, and how the model itself did: its own time per call, and the share of the time
    that it was at work, percent."""

    rate_per_s: float
    busy_pct: float
    model_percentiles: list[Percentile]


@dataclass(frozen=True, eq=False)
class Measurement:
    """Everything about one model at one batch size. ``resources`` is the reason where they could not be measured."""

    engine: Engine
    requests: RequestSource
    resources: Resources | str
    warm_up: WarmUp
    timings: Timings
    contention: Contention
    end_to_end: EndToEnd
    accuracy: Accuracy
    rate_per_s: float | None

    @property
    def batch_size(self) -> int:
        return self.requests.batch_size

    @functools.cached_property
    def percentiles(self) -> list[Percentile]:
        """Of the latency, at ``REPORTED_PCT``."""
        return percentiles(self.timings.latency_ms)

    @property
    def schedule(self) -> Schedule | None:
        """None where calls were made back to back."""
        if self.rate_per_s is None:
            return None
        served_ns = self.timings.model_ns[: self.timings.num_served]
        busy_pct = 100.0 * float(served_ns.sum()) / 1e9 / self.timings.wall_s
        return Schedule(self.rate_per_s, busy_pct, percentiles(served_ns / 1e6))

    @property
    def samples_per_s(self) -> float:
        """Back to back: per second of time within calls, without the harness. On a schedule: as many as were served."""
        timings = self.timings
        elapsed_s = timings.wall_s if self.rate_per_s is not None else float(timings.model_ns.sum()) / 1e9
        return timings.batch_size * timings.num_served / elapsed_s

    def percentile(self, pct: float) -> Percentile:
        """One of ``REPORTED_PCT``."""
        return next(found for found in self.percentiles if found.pct == pct)


@dataclass(frozen=True, eq=False)
class Ready:
    """A model that has been tried out and warmed up, with its prepared inputs."""

    engine: Engine
    requests: RequestSource
    resources: Resources | str
    warm_up: WarmUp
    batches: list[npt.NDArray[np.float32]]


def measure(engine: Engine, requests: RequestSource, settings: Settings, advance: Advance) -> Measurement:
    """Try the model out, warm it up, time its calls, and have it answer the whole test set.

    Args:
        advance: told the number of samples answered since it was last called.
    Raises:
        ToolError: the model does not run (``Engine.try_out``), or an input can no longer be read.
    """
    ready = make_ready(engine, requests)
    watch = StealWatch()
    timings = _timed(ready, settings)
    never_idle = settings.rate_per_s is None and not engine.on_gpu
    contention = contention_of(timings, watch.steal_pct(), never_idle=never_idle)
    return finish(ready, timings, contention, settings, advance)


def make_ready(engine: Engine, requests: RequestSource) -> Ready:
    """See ``measure``. The fresh process for memory runs here, before anything is timed in this one."""
    batches = requests.prepared()
    engine.try_out(batches[0])
    resources = measure_resources(engine, requests.batch_size)
    return Ready(engine, requests, resources, warm_up(engine, batches), batches)


def finish(ready: Ready, timings: Timings, contention: Contention, settings: Settings, advance: Advance) -> Measurement:
    """Have the model answer the whole test set, and put everything together."""
    end_to_end, accuracy = _answer_all(ready.engine, ready.requests, settings.duration_s, advance)
    return Measurement(
        ready.engine, ready.requests, ready.resources, ready.warm_up, timings, contention, end_to_end, accuracy,
        settings.rate_per_s,
    )  # fmt: skip


def check_schedule(settings: Settings) -> int:
    """How many requests are scheduled in the time asked for, lengthened as far as percentiles need it and time allows.

    Raises:
        UsageError: less than one, or more than memory should hold.
    """
    assert settings.rate_per_s is not None
    expected = settings.rate_per_s * settings.duration_s
    if not 1.0 <= expected <= MAX_SCHEDULED:
        raise UsageError(
            f"{settings.rate_per_s:g} requests/s for {settings.duration_s:g} s make {expected:g} requests",
            field="--rate",
            hint=f"1 to {MAX_SCHEDULED:,} are possible",
        )
    return round(max(expected, min(float(MIN_CALLS), LENGTHENING * expected)))


def _timed(ready: Ready, settings: Settings) -> Timings:
    if settings.rate_per_s is None:
        return closed_loop(ready.engine, ready.batches, duration_s=settings.duration_s, min_calls=MIN_CALLS)
    schedule_ns = poisson_schedule(settings.rate_per_s, check_schedule(settings))
    # A server that keeps up is done soon after the last arrival; one that does not is stopped.
    limit_s = float(schedule_ns[-1]) / 1e9 + settings.duration_s
    return open_loop(ready.engine, ready.batches, schedule_ns=schedule_ns, limit_s=limit_s)


def _answer_all(engine: Engine, requests: RequestSource, limit_s: float, advance: Advance) -> tuple[EndToEnd, Accuracy]:
    """Every request once; then again, until there are enough for every percentile or ``limit_s`` is over."""
    predictions = np.empty(requests.num_samples, dtype=np.int64)
    latency_ns, prepare_ns, num_non_finite, number = [], [], 0, 0
    now, begin_ns = time.perf_counter_ns, time.perf_counter_ns()
    while number < requests.num_requests or (number < MIN_CALLS and now() - begin_ns < limit_s * 1e9):
        indices = requests.indices(number)
        start_ns = now()
        inputs = requests.prepare(indices)
        prepared_ns = now()
        logits = engine(inputs)
        answers = logits.argmax(axis=1)
        latency_ns.append(now() - start_ns)
        prepare_ns.append(prepared_ns - start_ns)
        if number < requests.num_requests:
            new = min(len(indices), requests.num_samples - number * requests.batch_size)
            predictions[indices[:new]] = answers[:new]
            num_non_finite += int((~np.isfinite(logits[:new]).all(axis=1)).sum())
            advance(new)
        number += 1
    accuracy = accuracy_of(requests.labels, predictions, requests.dataset.num_classes, num_non_finite)
    return EndToEnd(np.array(latency_ns, dtype=np.int64), np.array(prepare_ns, dtype=np.int64)), accuracy
