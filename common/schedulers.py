"""Learning-rate schedules.

Not PyTorch's: those multiply the current rate again and again, so the rate depends on rounding along the way and on
how often they were called, and a run that resumes inside an epoch has to restore two objects that share that number.
Here the rate is a pure function of the step and a few plain numbers, so it is the same to the bit however the step was
reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from common.choices import unknown_name
from common.exits import UsageError

# Smith and Topin 2018, arXiv:1708.07120, with PyTorch's defaults: from 1/25 of the peak up in 30% of the steps, then
# down to 1/10,000 of the start, both along half a cosine.
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4
# A smaller relative gain is no improvement (PyTorch's default in ReduceLROnPlateau).
PLATEAU_THRESHOLD = 1e-4


@dataclass(frozen=True)
class Schedule:
    """The shape of a schedule in steps. ``min_lr`` is a rate, ``warmup_steps`` of 0 means none."""

    total_steps: int
    steps_per_epoch: int
    warmup_steps: int
    factor: float
    min_lr: float
    step_size: int


def _constant(schedule: Schedule, peak: float, step: int) -> float:
    return peak


def _step(schedule: Schedule, peak: float, step: int) -> float:
    cuts = step // schedule.steps_per_epoch // schedule.step_size
    return max(peak * schedule.factor**cuts, min(schedule.min_lr, peak))


def _cosine(schedule: Schedule, peak: float, step: int) -> float:
    # Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.
    falling = max(schedule.total_steps - schedule.warmup_steps, 1)
    position = min(max(step - schedule.warmup_steps, 0) / falling, 1.0)
    return _half_cosine(peak, min(schedule.min_lr, peak), position)


def _one_cycle(schedule: Schedule, peak: float, step: int) -> float:
    last = schedule.total_steps - 1
    top = (schedule.warmup_steps or ONE_CYCLE_RISE * schedule.total_steps) - 1
    if step <= top:
        return _half_cosine(peak * ONE_CYCLE_START, peak, step / top if top > 0 else 1.0)
    return _half_cosine(peak, peak * ONE_CYCLE_END, min((step - top) / max(last - top, 1), 1.0))


def _half_cosine(start: float, end: float, position: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * position)) / 2


# Rate at a step, from the peak rate. A new schedule is a function and a line here.
SHAPES: dict[str, Callable[[Schedule, float, int], float]] = {
    "none": _constant,
    "reduce_on_plateau": _constant,
    "step": _step,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
}


class Scheduler:
    """Sets the learning rate of an optimizer's parameter groups: ``before_step`` each step, ``after_epoch`` each epoch.

    The rate that each group has at construction is its peak. Belongs to the training loop's thread.
    """

    def __init__(self, optimizer: Optimizer, type: str, schedule: Schedule, patience: int, mode: str) -> None:
        self._optimizer = optimizer
        self._type = type
        self._schedule = schedule
        self._patience = patience
        self._mode = mode
        self._base_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._scale = 1.0
        self._cuts = 0
        self._best: float | None = None
        self._epochs_without_improvement = 0
        self._at_step = 0
        self.before_step(0)

    @property
    def learning_rate(self) -> float:
        """The rate of the first parameter group, as the optimizer has it now."""
        return float(self._optimizer.param_groups[0]["lr"])

    def before_step(self, step: int) -> None:
        """Set the rate for optimizer step ``step``, counted from 0 over the whole training."""
        self._at_step = step
        for group, base_rate in zip(self._optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = self._rate(base_rate * self._scale, step)

    def after_epoch(self, metric: float | None) -> None:
        """Take in the validation metric of a finished epoch; only ``reduce_on_plateau`` makes use of it.

        After more than ``patience`` such epochs in a row without improvement the rate is multiplied by ``factor``, down
        to ``min_lr`` at most. A NaN is no improvement; None (not validated) counts for nothing.
        """
        if self._type != "reduce_on_plateau" or metric is None:
            return
        if self._improves(metric):
            self._best = metric
            self._epochs_without_improvement = 0
            return
        self._epochs_without_improvement += 1
        if self._epochs_without_improvement > self._patience:
            self._cuts += 1
            self._epochs_without_improvement = 0
            self.before_step(self._at_step)

    def set_scale(self, scale: float) -> None:
        """Multiply the configured peak rate by ``scale`` from now on, and with it the whole schedule.

        Raises:
            ValueError: the scale is not a positive number.
        """
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be a positive number, not {scale}")
        self._scale = scale
        self.before_step(self._at_step)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, lists of them, and None."""
        return {
            "base_rates": list(self._base_rates),
            "scale": self._scale,
            "cuts": self._cuts,
            "best": self._best,
            "epochs_without_improvement": self._epochs_without_improvement,
            "step": self._at_step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, and set the rate that held then."""
        self._base_rates = list(state["base_rates"])
        self._scale = state["scale"]
        self._cuts = state["cuts"]
        self._best = state["best"]
        self._epochs_without_improvement = state["epochs_without_improvement"]
        self.before_step(state["step"])

    def _rate(self, peak: float, step: int) -> float:
        schedule = self._schedule
        if step < schedule.warmup_steps and self._type != "one_cycle":
            return peak * (step + 1) / schedule.warmup_steps
        rate = SHAPES[self._type](schedule, peak, step)
        if self._cuts:
            rate = max(rate * schedule.factor**self._cuts, min(schedule.min_lr, peak))
        return rate

    def _improves(self, metric: float) -> bool:
        if math.isnan(metric):
            return False
        if self._best is None:
            return True
        margin = abs(self._best) * PLATEAU_THRESHOLD
        return metric > self._best + margin if self._mode == "max" else metric < self._best - margin


def build_scheduler(
    optimizer: Optimizer,
    type: str,
    *,
    total_epochs: int,
    steps_per_epoch: int,
    warmup_epochs: float = 0.0,
    patience: int = 5,
    factor: float = 0.1,
    min_lr: float = 0.0,
    step_size: int = 10,
    mode: str = "min",
) -> Scheduler:
    """The schedule of that name for ``optimizer``, whose rate now is the peak.

    Args:
        type: ``none``; ``step``: times ``factor`` every ``step_size`` epochs; ``cosine``: down to ``min_lr`` at the
            end; ``one_cycle``: up and down; ``reduce_on_plateau``: times ``factor`` when the metric stalls.
        total_epochs, steps_per_epoch: >= 1; a step is an optimizer step.
        warmup_epochs: the rate first rises linearly over so many epochs, whatever the type (with ``one_cycle`` it is
            the length of its rise); less than ``total_epochs``.
        patience: epochs without improvement that ``reduce_on_plateau`` accepts.
        factor: in (0, 1).
        min_lr: lowest rate of ``step``, ``cosine`` and ``reduce_on_plateau``. Where the peak lies below it, the peak.
        mode: ``max`` where a higher metric is better, else ``min``.
    Raises:
        UsageError: unknown name, or a warm-up as long as the training.
    """
    if type.lower() not in SHAPES:
        raise unknown_name("scheduler", type, SHAPES, field="lr_scheduler.type")
    if warmup_epochs and warmup_epochs >= total_epochs:
        raise UsageError(
            f"a warm-up of {warmup_epochs:g} epochs leaves nothing of a training of {total_epochs}",
            field="lr_scheduler.warmup_epochs",
        )
    schedule = Schedule(
        total_steps=total_epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=round(warmup_epochs * steps_per_epoch),
        factor=factor,
        min_lr=min_lr,
        step_size=step_size,
    )
    return Scheduler(optimizer, type.lower(), schedule, patience, mode)
