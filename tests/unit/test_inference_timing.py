"""Timed calls: what is counted, when a series ends, and how a queue shows. Durations are compared with clocks of the
same run only, never with a limit."""

from __future__ import annotations

import gc
import time

import numpy as np
import pytest

from common.inference.contention import StealWatch, contention_of
from common.inference.schedule import open_loop, poisson_schedule
from common.inference.timing import Recorder, Timings, closed_loop, warm_up

BATCHES = [np.zeros((4, 2), dtype=np.float32), np.ones((4, 2), dtype=np.float32)]


class Sleeper:
    """Sleeps a while at each call and remembers what it was given."""

    def __init__(self, sleep_s: float = 0.0) -> None:
        self.sleep_s = sleep_s
        self.inputs: list[float] = []

    def __call__(self, inputs) -> None:
        self.inputs.append(float(inputs[0, 0]))
        time.sleep(self.sleep_s)


def test_a_series_has_every_call_in_order_and_goes_round_the_batches():
    model = Sleeper(0.002)
    timings = closed_loop(model, BATCHES, duration_s=0.02, min_calls=25)
    assert timings.num_calls == len(model.inputs) == timings.num_served >= 25
    assert model.inputs[:4] == [0.0, 1.0, 0.0, 1.0]
    assert timings.latency_ns.min() >= 2_000_000 and (timings.latency_ns == timings.model_ns).all()
    assert timings.started_ns[0] == 0 and (np.diff(timings.started_ns) >= timings.latency_ns[:-1]).all()
    assert timings.wall_s * 1e9 >= timings.latency_ns.sum() and timings.batch_size == 4


def test_lengthening_ends_after_ten_times_the_duration():
    timings = closed_loop(Sleeper(0.01), BATCHES, duration_s=0.01, min_calls=10_000)
    assert 1 <= timings.num_calls <= 10


def test_the_duration_is_used_up_also_when_there_are_enough_calls():
    timings = closed_loop(Sleeper(), BATCHES, duration_s=0.05, min_calls=1)
    assert timings.wall_s >= 0.05 and timings.num_calls > 1


def test_garbage_collection_is_as_it_was_also_after_an_error():
    def fail(inputs):
        assert not gc.isenabled()
        raise RuntimeError("no model")

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="no model"):
        closed_loop(fail, BATCHES, duration_s=0.01, min_calls=1)
    assert gc.isenabled()


def test_blocks_of_a_recorder_add_up():
    recorder = Recorder(Sleeper(), 4)
    for block in range(1, 4):
        with recorder.clock.running():
            recorder.run(iter(BATCHES * 3), until_ns=0, min_calls=5)
        assert recorder.num_calls == 5 * block
    timings = recorder.timings()
    assert timings.num_calls == 15 and timings.wall_s * 1e9 >= timings.latency_ns.sum()


def test_preemptions_are_put_down_to_the_slowest_calls_of_the_stretch(monkeypatch):
    counts = iter([0, 2, 2, 9])  # at the start; after calls 1 to 4; of the next run: at the start, after calls 5 to 7
    monkeypatch.setattr("common.inference.timing.preemptions_so_far", lambda: next(counts))
    model, recorder = Sleeper(), Recorder(lambda inputs: model(inputs), 4)
    monkeypatch.setattr("common.inference.timing.PREEMPTIONS_EVERY_NS", 10**15)
    recorder.run(iter(BATCHES * 2), until_ns=0, min_calls=4)
    recorder.run(iter(BATCHES * 2), until_ns=0, min_calls=3)
    timings = recorder.timings()
    assert timings.num_calls == 7 and timings.preemptions.sum() == 2 + 7
    disturbed = np.flatnonzero(timings.preemptions[:4])
    assert sorted(disturbed) == sorted(np.argsort(-timings.latency_ns[:4], kind="stable")[:2])
    assert sorted(timings.preemptions[4:]) == [1, 1, 5]
    assert timings.preemptions[4 + np.argmax(timings.latency_ns[4:])] == 5


def test_the_kernel_is_asked_after_every_long_call(monkeypatch):
    counts = iter(range(0, 1000, 1))
    monkeypatch.setattr("common.inference.timing.preemptions_so_far", lambda: next(counts))
    recorder = Recorder(Sleeper(0.002), 4)
    recorder.run(iter(BATCHES * 3), until_ns=0, min_calls=6)
    assert recorder.timings().preemptions.tolist() == [1] * 6


def test_warm_up_ends_when_times_are_steady_or_time_is_up():
    growing = Sleeper()

    def ever_slower(inputs):
        growing.sleep_s += 0.002
        growing(inputs)

    assert not warm_up(ever_slower, BATCHES, limit_s=0.3).settled
    steady = warm_up(Sleeper(0.02), BATCHES, limit_s=30.0)
    assert steady.settled and steady.num_calls >= 15


def test_a_poisson_schedule_has_the_rate_and_the_spread_asked_for():
    schedule_ns = poisson_schedule(200.0, 20_000)
    gaps_s = np.diff(schedule_ns) / 1e9
    assert (gaps_s >= 0).all() and gaps_s.mean() == pytest.approx(1 / 200, rel=0.03)
    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.03)  # exponential: as large as the mean
    assert (schedule_ns == poisson_schedule(200.0, 20_000)).all()


def test_latency_counts_from_arrival_so_that_a_queue_shows():
    schedule_ns = np.zeros(10, dtype=np.int64)  # all at once
    timings = open_loop(Sleeper(0.003), BATCHES, schedule_ns=schedule_ns, limit_s=60.0)
    assert timings.num_served == 10 and timings.num_unserved == 0
    assert timings.model_ns.min() >= 3_000_000
    waited = np.cumsum(timings.model_ns)
    assert (timings.latency_ns >= waited).all(), "each has waited for all before it"


def test_requests_are_not_served_before_they_arrive():
    schedule_ns = np.arange(1, 6) * 5_000_000
    timings = open_loop(Sleeper(), BATCHES, schedule_ns=schedule_ns, limit_s=60.0)
    assert (timings.started_ns >= schedule_ns).all()
    assert (timings.latency_ns >= timings.model_ns).all()


def test_requests_still_waiting_when_time_is_up_count_with_their_wait():
    schedule_ns = np.arange(1000) * 1_000_000
    timings = open_loop(Sleeper(0.05), BATCHES, schedule_ns=schedule_ns, limit_s=0.2)
    assert timings.num_unserved > 0 and timings.num_served >= 1
    waiting = timings.latency_ns[timings.num_served :]
    assert (np.diff(waiting) == -1_000_000).all() and waiting.min() >= 0
    assert (timings.model_ns[timings.num_served :] == 0).all()
    # Those that had not yet arrived are in no count.
    assert timings.num_calls <= round(timings.wall_s * 1000) + 1


def timings_with(preempted: list[int], latency_ms: np.ndarray, *, cpu_s: float = 1.0) -> Timings:
    latency_ns = np.rint(latency_ms * 1e6).astype(np.int64)
    counts = np.zeros(len(latency_ns), dtype=np.int64)
    counts[preempted] = 2
    return Timings(np.cumsum(latency_ns), latency_ns, latency_ns, counts, 1.0, cpu_s, 1)


def test_a_series_is_contended_from_more_than_one_call_in_a_hundred_on():
    latency_ms = np.linspace(1, 2, 1000)
    clean = contention_of(timings_with([*range(10)], latency_ms), 0.5, never_idle=True)
    assert (clean.verdict, clean.reasons, clean.num_preempted) == ("clean", [], 10)
    assert clean.slowest_preempted_pct == 0.0
    contended = contention_of(timings_with([*range(989, 1000)], latency_ms), 0.5, never_idle=True)
    assert contended.verdict == "contended" and contended.reasons == ["1.1% of the calls were preempted"]
    assert contended.slowest_preempted_pct == 100.0
    assert contended.undisturbed.num_samples == 989 and contended.undisturbed.value_ms < latency_ms[989]


def test_a_process_without_a_processor_was_not_alone():
    series = timings_with([], np.ones(100), cpu_s=0.4)
    assert contention_of(series, None, never_idle=True).reasons == [
        "this process had a processor for only 40% of the time"
    ]
    assert contention_of(series, None, never_idle=False).verdict == "clean"
    assert "hypervisor took 3.0%" in contention_of(series, 3.0, never_idle=False).reasons[0]


def test_time_stolen_is_a_share_or_unknown():
    stolen_pct = StealWatch().steal_pct()
    assert stolen_pct is None or 0.0 <= stolen_pct <= 100.0
