"""How long models take for one sample on one core, measured in turns so that the machine's noise meets all alike."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from common.inference.engines import Engine
from common.inference.timing import Recorder, without_collection
from common.statistics import paired_difference

# Long enough that each model works with warm caches of its own, short enough that a disturbance meets all.
BLOCK_S = 0.02
MIN_BLOCK_CALLS = 3
MIN_TURNS = 6


@dataclass(frozen=True)
class Speed:
    """One model's time for a batch of one on one core, and how it compares with the baseline.

    Attributes:
        median_ms: over all of its calls.
        baseline: what it is compared with.
        baseline_ms: median of that.
        speedup: how many times as fast as the baseline; ``low`` and ``high`` are its 95% interval.
        num_calls: of this model.
    """

    median_ms: float
    baseline: str
    baseline_ms: float
    speedup: float
    low: float
    high: float
    num_calls: int

    @property
    def verdict(self) -> str:
        """In words, and loud where the model is slower."""
        if self.low > 1.0:
            return f"{self.speedup:.2f} times as fast as {self.baseline}"
        if self.high < 1.0:
            return f"SLOWER: takes {1 / self.speedup:.2f} times as long as {self.baseline}"
        return f"no measurable difference from {self.baseline}"

    def as_json(self) -> dict[str, Any]:
        """Plain values for the report."""
        return {**asdict(self), "verdict": self.verdict, "batch_size": 1, "num_threads": 1, "device": "cpu"}


def measure_speed(
    models: Mapping[str, tuple[Engine, str]],
    baselines: Mapping[str, Engine],
    samples: Sequence[npt.NDArray[np.float32]],
    *,
    duration_s: float,
) -> dict[str, Speed]:
    """Time all models and baselines in turns.

    Args:
        models: by name, each with the name of its baseline.
        samples: inputs (1, *input_shape) to go round in.
        duration_s: of calls of each model; lengthened to six turns of each where a call takes long.
    """
    engines = {**{name: engine for name, (engine, _) in models.items()}, **baselines}
    turns = _in_turns(engines, samples, duration_s)
    medians_ns = {name: [float(np.median(block)) for block in blocks] for name, blocks in turns.items()}
    overall_ms = {name: float(np.median(np.concatenate(blocks))) / 1e6 for name, blocks in turns.items()}
    speeds = {}
    for name, (_, baseline) in models.items():
        speedup, low, high = _speedup(medians_ns[name], medians_ns[baseline])
        speeds[name] = Speed(
            median_ms=overall_ms[name],
            baseline=baseline,
            baseline_ms=overall_ms[baseline],
            speedup=speedup,
            low=low,
            high=high,
            num_calls=sum(map(len, turns[name])),
        )
    return speeds


def _speedup(model_ns: Sequence[float], baseline_ns: Sequence[float]) -> tuple[float, float, float]:
    """How many times as fast the model is, with a 95% interval: Student's, over the logarithms of paired blocks."""
    model, baseline = np.log(model_ns), np.log(baseline_ns)
    difference = paired_difference(model, baseline)
    if difference is None:  # every pair has the same ratio
        ratio = math.exp(float((baseline - model).mean()))
        return ratio, ratio, ratio
    return math.exp(difference.effect), math.exp(difference.low), math.exp(difference.high)


def _in_turns(
    engines: Mapping[str, Engine], samples: Sequence[npt.NDArray[np.float32]], duration_s: float
) -> dict[str, list[npt.NDArray[np.int64]]]:
    """Latencies in ns of each block of calls; the order is turned round after every turn, so that a drift cancels."""
    for engine in engines.values():  # the first calls allocate
        _block(engine, itertools.cycle(samples))
    turns: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in engines}
    names = list(engines)
    until_s = time.perf_counter() + duration_s * len(names)
    with without_collection():
        while len(turns[names[0]]) < MIN_TURNS or time.perf_counter() < until_s:
            for name in names:
                turns[name].append(_block(engines[name], itertools.cycle(samples)))
            names.reverse()
    return turns


def _block(engine: Engine, samples: Any) -> npt.NDArray[np.int64]:
    recorder = Recorder(engine, 1)
    recorder.run(samples, until_ns=time.perf_counter_ns() + int(BLOCK_S * 1e9), min_calls=MIN_BLOCK_CALLS)
    return recorder.timings().latency_ns
