"""One optimizer step: the gradient it follows, clipping, and that nothing moves where something is not finite."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from common.data import Batch
from common.ema import ExponentialMovingAverage
from common.engine.training_step import MicroBatch, MicroBatchTooLargeError, NonFiniteError, TrainingStep
from common.health import SampleHistory
from common.losses import build_loss
from common.parallel import World
from common.schedulers import build_scheduler

RATE = 0.5


class Rig:
    """A linear classifier under plain SGD, and what its steps need."""

    def __init__(self, *, clip_max_norm: float | None = None, ema: float | None = None, warmup_epochs: float = 0.0):
        torch.manual_seed(0)
        self.clip_max_norm = clip_max_norm
        self.model = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        self.ema = ExponentialMovingAverage(self.model, ema) if ema else None
        self.step = TrainingStep(
            self.model,
            self.optimizer,
            build_scheduler(self.optimizer, "none", total_epochs=9, steps_per_epoch=4, warmup_epochs=warmup_epochs),
            build_loss(),
            augmentation=None,
            ema=self.ema,
            scaler=None,
            autocast=contextlib.nullcontext,
            world=World(),
            averaged_model=self.model,
            sample_history=SampleHistory(torch.zeros(6, dtype=torch.int64)),
        )

    def run(self, inputs: torch.Tensor, labels: torch.Tensor, *, sizes: list[int] | None = None, step: int = 0):
        sizes = sizes or [len(labels)]
        pieces = zip(torch.arange(len(labels)).split(sizes), inputs.split(sizes), labels.split(sizes), strict=True)
        micro_batches = [MicroBatch(Batch(*piece)) for piece in pieces]
        return self.step.run(
            micro_batches,
            num_micro_batches=len(sizes),
            num_samples=len(labels),
            epoch=1,
            step=step,
            clip_max_norm=self.clip_max_norm,
        )

    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten().clone() for parameter in self.model.parameters()])


@pytest.fixture
def samples():
    torch.manual_seed(1)
    return torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0])


def gradient(samples) -> torch.Tensor:
    """Of the mean loss at the rig's initial weights, by the book."""
    model = Rig().model
    functional.cross_entropy(model(samples[0]), samples[1]).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_a_step_follows_the_gradient_of_the_mean_loss(samples):
    rig = Rig()
    before = rig.weights()
    expected_loss = functional.cross_entropy(rig.model(samples[0]), samples[1], reduction="sum").item()
    result = rig.run(*samples)
    assert torch.allclose(rig.weights(), before - RATE * gradient(samples), atol=1e-6)
    assert result.loss_sum == pytest.approx(expected_loss, rel=1e-6) and result.num_samples == 6
    assert result.grad_norm == pytest.approx(float(gradient(samples).norm()), rel=1e-6)


@pytest.mark.parametrize("sizes", [[3, 3], [4, 2], [1] * 6, [5, 1]])
def test_how_samples_are_cut_does_not_matter(sizes, samples):
    whole, cut = Rig(), Rig()
    one, other = whole.run(*samples), cut.run(*samples, sizes=sizes)
    assert torch.allclose(whole.weights(), cut.weights(), atol=1e-6)
    assert (one.loss_sum, one.grad_norm) == pytest.approx((other.loss_sum, other.grad_norm), rel=1e-5)


def test_a_step_forgets_the_gradient_before(samples):
    rig = Rig()
    rig.run(*samples)
    with torch.no_grad():
        for parameter, fresh in zip(rig.model.parameters(), Rig().model.parameters(), strict=True):
            parameter.copy_(fresh)
    before = rig.weights()
    rig.run(*samples)
    assert torch.allclose(rig.weights(), before - RATE * gradient(samples), atol=1e-6)


@pytest.mark.parametrize("limit", [0.01, 0.1])
def test_clipping_keeps_the_direction_and_bounds_the_length(limit, samples):
    rig, full = Rig(clip_max_norm=limit), gradient(samples)
    before = rig.weights()
    result = rig.run(*samples)
    moved = (before - rig.weights()) / RATE
    assert float(moved.norm()) == pytest.approx(limit, rel=1e-3)
    assert torch.allclose(moved / moved.norm(), full / full.norm(), atol=1e-4)
    assert result.grad_norm == pytest.approx(float(full.norm()), rel=1e-6)


def test_a_gradient_within_the_limit_is_left_as_it_is(samples):
    free, limited = Rig(), Rig(clip_max_norm=100.0)
    free.run(*samples)
    limited.run(*samples)
    assert torch.equal(free.weights(), limited.weights())


@pytest.mark.parametrize(("value", "where"), [(math.nan, 4), (math.inf, 0), (1e38, 5)])
def test_nothing_moves_where_something_is_not_finite(value, where, samples):
    rig = Rig(ema=0.5)
    inputs, labels = samples[0].clone(), samples[1]
    inputs[where] = value
    before, averaged = rig.weights(), rig.ema.state_dict()["num_updates"]
    with torch.no_grad():
        rig.model.weight[0] = 1e3
    before = rig.weights()
    with pytest.raises(NonFiniteError) as caught:
        rig.run(inputs, labels, sizes=[2, 2, 2])
    assert torch.equal(rig.weights(), before)
    assert rig.ema.state_dict()["num_updates"] == averaged
    assert not math.isfinite(caught.value.value) and caught.value.what in ("the loss", "the gradient norm")
    assert sorted(caught.value.indices.tolist()) == list(range(6)), "the batch can be named"


def test_out_of_memory_is_told_apart_and_moves_nothing(samples):
    rig = Rig()

    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    rig.model.register_forward_hook(too_large)
    before = rig.weights()
    with pytest.raises(MicroBatchTooLargeError):
        rig.run(*samples)
    assert torch.equal(rig.weights(), before)


def test_other_errors_are_not_taken_for_a_lack_of_memory(samples):
    rig = Rig()
    with pytest.raises(RuntimeError, match="shapes"):
        rig.run(torch.zeros(6, 4), samples[1])


def test_the_average_follows_the_weights_after_the_step(samples):
    rig = Rig(ema=0.5)
    before = rig.weights()
    rig.run(*samples)
    share = 1 - min(0.5, 2 / 11)
    averaged = torch.cat([t.flatten() for t in rig.ema.state_dict()["model_state_dict"].values()])
    assert torch.allclose(averaged, before + share * (rig.weights() - before), atol=1e-6)


def test_the_step_number_sets_the_rate(samples):
    moved = []
    for step in (0, 1, 3):
        rig = Rig(warmup_epochs=1.0)
        before = rig.weights()
        rig.run(*samples, step=step)
        moved.append(float((before - rig.weights()).norm()))
    assert moved == sorted(moved) and moved[0] < 0.5 * moved[2]
