"""Outputs that are no logits, the initial loss, recalls, and numbers over the steps of an epoch."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from common.health import initial_loss_ratio, output_signals, recall_signals, series_signals
from common.health.numbers import mean, mean_and_std
from common.models import build_model


def logits(count: int = 50, classes: int = 4, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(count, classes, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_probabilities_are_told_from_logits(classes, dtype):
    raw = logits(classes=classes)
    assert output_signals(raw.softmax(dim=1).to(dtype)).looks_like_probabilities
    for other in (raw, raw.log_softmax(dim=1), raw.sigmoid()):
        assert not output_signals(other.to(dtype)).looks_like_probabilities


def test_a_model_that_ends_in_a_softmax_is_seen_from_the_start():
    torch.manual_seed(0)
    model = build_model("simple_mlp", input_shape=(8,), num_classes=5)
    inputs = torch.randn(30, 8)
    assert output_signals(nn.Sequential(model, nn.Softmax(dim=1))(inputs)).looks_like_probabilities
    assert not output_signals(model(inputs)).looks_like_probabilities


def test_numbers_by_the_book():
    raw = logits()
    signals = output_signals(raw)
    assert signals.logits_mean == pytest.approx(float(raw.mean()), abs=1e-6)
    assert signals.logits_std == pytest.approx(float(raw.std(correction=0)), rel=1e-5)
    assert (signals.logits_min, signals.logits_max) == (float(raw.min()), float(raw.max()))
    assert signals.row_sum_mean == pytest.approx(float(raw.sum(dim=1).mean()), abs=1e-5)
    assert signals.confidence_mean_pct == pytest.approx(100 * float(raw.softmax(dim=1).amax(dim=1).mean()), rel=1e-5)


def test_a_model_that_always_says_the_same():
    constant = torch.tensor([[0.0, 2.0, 1.0]]).expand(20, 3)
    assert output_signals(constant).top_class_share_pct == 100.0
    assert output_signals(torch.eye(4)).top_class_share_pct == 25.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite(value):
    broken = logits()
    broken[3, 1] = value
    signals = output_signals(broken)
    assert signals.logits_mean is None and signals.top_class_share_pct is None
    assert not signals.looks_like_probabilities
    json.dumps(signals.as_dict(), allow_nan=False)


@pytest.mark.parametrize(("gain", "low", "high"), [(0.0, 0.99, 1.01), (1.0, 0.9, 1.2), (5.0, 2.0, 100.0)])
def test_the_initial_loss_shows_the_gain(gain, low, high):
    torch.manual_seed(0)
    model = build_model("simple_mlp", input_shape=(8,), num_classes=5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain)
    loss = functional.cross_entropy(model(torch.randn(200, 8)), torch.arange(200) % 5).item()
    assert low < initial_loss_ratio(loss, 5) < high


def test_the_initial_loss_of_nothing_known():
    assert initial_loss_ratio(math.log(10), 10) == pytest.approx(1.0)
    assert initial_loss_ratio(math.nan, 10) is None


def test_recalls():
    signals = recall_signals([0.9, 0.0, 0.0, 0.5], [100, 0, 3, 4])
    assert signals == {
        "recall_min": 0.0,
        "recall_min_class": 2,
        "recall_median": 0.5,
        "num_zero_recall_classes": 1,
        "recall_per_class": [0.9, None, 0.0, 0.5],
    }
    assert recall_signals([0.5] * 101, [1] * 101)["recall_per_class"] is None
    assert recall_signals([0.0, 0.0], [0, 0])["recall_min"] is None


def test_a_series_that_grows_and_one_that_leaps():
    growing = series_signals([float(step) for step in range(1, 41)])
    assert growing["growth"] == pytest.approx(35.5 / 5.5) and growing["median"] == 20.5
    assert (growing["first"], growing["last"], growing["max"]) == (1.0, 40.0, 40.0)
    steady = series_signals([1.0] * 30 + [50.0] + [1.0] * 9)
    assert steady["growth"] == 1.0 and steady["max_to_median"] == 50.0


def test_a_series_with_numbers_that_are_not_finite():
    signals = series_signals([math.inf, 2.0, math.nan, 4.0])
    assert signals["num_non_finite"] == 2 and signals["first"] is None and signals["max"] == 4.0
    json.dumps(signals, allow_nan=False)


@pytest.mark.parametrize("values", [[], [math.nan], [0.0, 0.0], [3.0]])
def test_a_series_that_says_nothing(values):
    signals = series_signals(values)
    assert signals["growth"] is None
    json.dumps(signals, allow_nan=False)


def gradient_norms(*, cleared: bool) -> list[float]:
    """Of one epoch of plain descent on random data, with or without gradients that add up."""
    torch.manual_seed(0)
    model = build_model("simple_mlp", input_shape=(8,), num_classes=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    norms = []
    for _ in range(24):
        if cleared:
            optimizer.zero_grad()
        inputs, labels = torch.randn(16, 8), torch.randint(0, 3, (16,))
        functional.cross_entropy(model(inputs), labels).backward()
        norms.append(float(nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])))
        optimizer.step()
    return norms


def test_gradients_that_add_up_grow_over_the_epoch():
    assert series_signals(gradient_norms(cleared=False))["growth"] > 2.0
    assert series_signals(gradient_norms(cleared=True))["growth"] < 1.5


@pytest.mark.parametrize("shape", [(1,), (7, 3), (78, 1, 8, 8), (3, 10_001)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_mean_and_deviation_are_numpys_to_the_bit(shape, offset):
    values = np.random.default_rng(0).normal(offset, 3.0, shape).astype(np.float32)
    before = values.copy()
    assert mean_and_std(values) == (values.mean(), values.std())
    assert mean(values) == values.mean() and mean(values).dtype == np.float32
    np.testing.assert_array_equal(values, before)
