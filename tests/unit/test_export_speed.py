"""Speeds are compared in turns, and a slower model is called slower."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from common.export.speed import MIN_BLOCK_CALLS, MIN_TURNS, Speed, _speedup, measure_speed

SPEED = Speed(median_ms=2.0, baseline="fp32", baseline_ms=4.0, speedup=2.0, low=1.8, high=2.2, num_calls=9)


@pytest.mark.parametrize(
    ("speedup", "low", "high", "verdict"),
    [
        (2.0, 1.8, 2.2, "2.00 times as fast as fp32"),
        (1.0, 0.9, 1.1, "no measurable difference from fp32"),
        (0.5, 0.4, 0.6, "SLOWER: takes 2.00 times as long as fp32"),
    ],
)
def test_verdict(speedup, low, high, verdict):
    speed = dataclasses.replace(SPEED, speedup=speedup, low=low, high=high)
    assert speed.verdict == verdict and speed.as_json()["verdict"] == verdict


def test_speedup_of_paired_blocks():
    speedup, low, high = _speedup([1.0, 2.0, 4.0], [2.0, 4.4, 7.6])
    assert speedup == pytest.approx((2.0 * 2.2 * 1.9) ** (1 / 3))
    assert low < speedup < high
    assert _speedup([1.0, 2.0], [3.0, 6.0]) == pytest.approx((3.0, 3.0, 3.0))


def test_all_models_take_turns_on_all_samples():
    order, samples = [], [np.full((1, 2), number, dtype=np.float32) for number in range(3)]

    def model(name):
        return lambda inputs: order.append((name, float(inputs[0, 0])))

    speeds = measure_speed(
        {"int8": (model("int8"), "fp32"), "other": (model("other"), "fp32")},
        {"fp32": model("fp32")}, samples, duration_s=0.0,
    )  # fmt: skip
    assert set(speeds) == {"int8", "other"}
    assert all(speed.num_calls >= MIN_TURNS * MIN_BLOCK_CALLS and speed.baseline == "fp32" for speed in speeds.values())
    names = [name for name, _ in order]
    blocks = [name for index, name in enumerate(names) if index == 0 or names[index - 1] != name]
    # A first round to warm up; then there and back again, so that neighbours of a turn run together.
    assert blocks[:8] == ["int8", "other", "fp32", "int8", "other", "fp32", "other", "int8"]
    assert {value for _, value in order} == {0.0, 1.0, 2.0}
