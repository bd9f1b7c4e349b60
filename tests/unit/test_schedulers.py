"""Schedules: their shapes, warm-up, reactions, and that the rate depends on the step alone."""

from __future__ import annotations

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.exits import UsageError
from common.schedulers import SHAPES, Scheduler, build_scheduler

EPOCHS, STEPS = 10, 7
TOTAL = EPOCHS * STEPS


def optimizer(rate: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=rate)


def make(type: str, rate: float = 0.1, **arguments) -> Scheduler:
    return build_scheduler(optimizer(rate), type, total_epochs=EPOCHS, steps_per_epoch=STEPS, **arguments)


def rates(scheduler: Scheduler, steps=range(TOTAL)) -> list[float]:
    found = []
    for step in steps:
        scheduler.before_step(step)
        found.append(scheduler.learning_rate)
    return found


def test_none_is_constant():
    assert set(rates(make("none"))) == {0.1}


def test_step_cuts_every_so_many_epochs():
    found = rates(make("step", step_size=3, factor=0.5, min_lr=0.02))
    assert [found[epoch * STEPS] for epoch in range(EPOCHS)] == [0.1] * 3 + [0.05] * 3 + [0.025] * 3 + [0.02]
    assert found[3 * STEPS - 1] == 0.1


def test_cosine_falls_from_the_peak_to_the_minimum():
    found = rates(make("cosine", min_lr=0.01), range(TOTAL + 1))
    assert found[0] == 0.1
    assert found[TOTAL // 2] == pytest.approx(0.055)
    assert found[TOTAL] == pytest.approx(0.01)
    assert found == sorted(found, reverse=True)


def test_cosine_and_one_cycle_are_pytorchs():
    own = rates(make("one_cycle"))
    reference = optimizer()
    schedule = torch.optim.lr_scheduler.OneCycleLR(reference, 0.1, total_steps=TOTAL, cycle_momentum=False)
    expected = []
    for _ in range(TOTAL):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        if len(expected) < TOTAL:
            schedule.step()
    assert own == pytest.approx(expected, rel=1e-9)

    reference = optimizer()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=TOTAL, eta_min=0.01)
    expected = []
    for _ in range(TOTAL):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        schedule.step()
    assert rates(make("cosine", min_lr=0.01)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("type", sorted(set(SHAPES) - {"one_cycle"}))
def test_warm_up_rises_linearly_to_the_peak(type):
    found = rates(make(type, warmup_epochs=2.0))
    assert found[: 2 * STEPS] == pytest.approx([0.1 * (step + 1) / (2 * STEPS) for step in range(2 * STEPS)])
    assert found[2 * STEPS] == 0.1


def test_warm_up_sets_the_rise_of_one_cycle():
    found = rates(make("one_cycle", warmup_epochs=2.0))
    assert found.index(max(found)) == 2 * STEPS - 1
    assert found[0] == pytest.approx(0.1 / 25)
    assert found[-1] == pytest.approx(0.1 / 25 / 1e4)


def test_plateau_cuts_after_more_than_patience_epochs():
    scheduler = make("reduce_on_plateau", patience=2, factor=0.1, min_lr=0.0005)
    found = []
    for metric in [1.0, 0.9, 0.95, 0.9, 0.90, 0.8, math.nan, math.nan, None, math.nan, 0.8, 0.8, 0.8, 0.8, 0.8]:
        scheduler.after_epoch(metric)
        found.append(scheduler.learning_rate)
    cut_once, cut_twice = pytest.approx(0.01), pytest.approx(0.001)
    assert found == [0.1] * 4 + [cut_once] * 5 + [cut_twice] * 3 + [pytest.approx(0.0005)] * 3


def test_plateau_agrees_with_pytorch_for_metrics_to_be_maximised():
    metrics = [50.0, 60.0, 60.001, 59.0, 61.0, 61.0, 61.0, 61.0, 61.0, 62.0, 10.0, 10.0, 10.0]
    scheduler = make("reduce_on_plateau", patience=1, factor=0.5, mode="max")
    reference = optimizer()
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, "max", factor=0.5, patience=1, eps=0)
    for metric in metrics:
        scheduler.after_epoch(metric)
        schedule.step(metric)
        assert scheduler.learning_rate == pytest.approx(reference.param_groups[0]["lr"])


@pytest.mark.parametrize("type", sorted(set(SHAPES) - {"reduce_on_plateau"}))
def test_other_schedules_do_not_look_at_the_metric(type):
    scheduler = make(type, patience=0)
    before = scheduler.learning_rate
    for _ in range(5):
        scheduler.after_epoch(1.0)
    assert scheduler.learning_rate == before


@pytest.mark.parametrize("type", SHAPES)
def test_scaling_acts_at_once_and_for_the_rest(type):
    plain, scaled = make(type), make(type)
    scaled.before_step(20)
    scaled.set_scale(0.1)
    assert scaled.learning_rate == pytest.approx(0.1 * rates(plain, [20])[0])
    assert rates(scaled) == pytest.approx([0.1 * rate for rate in rates(plain)])


def test_scaling_below_the_minimum_still_lowers_the_rate():
    scheduler = make("cosine", min_lr=0.05)
    scheduler.set_scale(0.1)
    assert rates(scheduler) == pytest.approx([0.01] * TOTAL)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_must_be_positive(factor):
    scheduler = make("none")
    with pytest.raises(ValueError, match="positive"):
        scheduler.set_scale(factor)
    assert scheduler.learning_rate == 0.1


def test_every_group_keeps_its_own_peak():
    model = nn.Linear(2, 2)
    groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.01}]
    two = torch.optim.SGD(groups, lr=1.0)
    scheduler = build_scheduler(two, "step", total_epochs=4, steps_per_epoch=1, step_size=1, factor=0.5)
    scheduler.before_step(2)
    assert [group["lr"] for group in two.param_groups] == pytest.approx([0.025, 0.0025])


SCHEDULES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(sorted(SHAPES)),
        "warmup_epochs": st.sampled_from([0.0, 0.5, 3.0]),
        "patience": st.integers(0, 2),
        "factor": st.floats(0.05, 0.9),
        "min_lr": st.sampled_from([0.0, 1e-3]),
        "step_size": st.integers(1, 4),
    }
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(arguments=SCHEDULES, stop=st.integers(0, TOTAL - 1), metrics=st.lists(st.floats(0, 2), min_size=EPOCHS))
def test_resuming_anywhere_gives_the_same_rates_to_the_bit(arguments, stop, metrics):
    def train(scheduler: Scheduler, start: int, end: int) -> list[float]:
        found = []
        for step in range(start, end):
            scheduler.before_step(step)
            found.append(scheduler.learning_rate)
            if step == TOTAL // 2:
                scheduler.set_scale(0.1)
            if (step + 1) % STEPS == 0:
                scheduler.after_epoch(metrics[step // STEPS])
        return found

    unbroken = train(make(**arguments), 0, TOTAL)
    first = make(**arguments)
    train(first, 0, stop)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    # The optimizer that is resumed has the rate of the moment, not the peak.
    second = make(**{**arguments, "rate": 0.003})
    second.load_state_dict(torch.load(buffer, weights_only=True))
    assert second.learning_rate == first.learning_rate
    assert train(second, stop, TOTAL) == unbroken[stop:]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(arguments=SCHEDULES, step=st.integers(0, 3 * TOTAL))
def test_rates_stay_between_zero_and_the_peak(arguments, step):
    scheduler = make(**arguments)
    scheduler.before_step(step)
    assert 0.0 <= scheduler.learning_rate <= 0.1


def test_what_makes_no_sense_is_said():
    with pytest.raises(UsageError, match=r"unknown scheduler `cosin`; did you mean `cosine`\?"):
        make("cosin")
    with pytest.raises(UsageError, match="a warm-up of 10 epochs leaves nothing of a training of 10"):
        make("cosine", warmup_epochs=10)
