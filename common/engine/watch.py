"""Looking at every completed epoch: does the training learn, does the machine keep up, and what to do if not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from common.console import Console
from common.engine.parts import Parts
from common.engine.progress import Progress
from common.engine.reaction_log import tell
from common.engine.recovery import note_replays

# An update this much smaller or larger than its weights is no longer near the healthy 1e-3 (cs231n).
SMALL_UPDATE_RATIO = 1e-4
LARGE_UPDATE_RATIO = 1e-2
# Half a layer dead is a fault (SageMaker Debugger); a healthy first loss is ln C.
MANY_DEAD_UNITS = 0.5
FAR_INITIAL_LOSS_RATIO = 2.0
# Less than this, relative, over the whole patience is no improvement: a rate far too low creeps for ever.
LEAST_IMPROVEMENT = 0.01
MAX_STALL_ACTIONS = 3
RATE_STEP = 10.0
# Data time above this share of an epoch is worth more workers.
MUCH_WAITING = 0.3
# Steps shorter than this are bound by launching kernels: no batch size fills the GPU with so small a model.
TINY_STEP_S = 0.003


@dataclass(frozen=True)
class StallPolicy:
    """When a training counts as stalled, and whether it may act: ``reaction`` is act, suggest or off.

    ``loss_threshold`` None means min(2.0, 0.87 ln C): the documented 2.0 is 0.87 ln 10.
    """

    reaction: str
    patience_epochs: int
    loss_threshold: float | None

    def threshold(self, num_classes: int) -> float:
        """The loss in nats above which nothing was learnt."""
        return min(2.0, 0.87 * math.log(num_classes)) if self.loss_threshold is None else self.loss_threshold


@dataclass(frozen=True)
class ResourcePolicy:
    """When a GPU counts as idle: below ``gpu_util_pct`` for more than ``patience_epochs`` epochs in a row."""

    reaction: str
    gpu_util_pct: float
    patience_epochs: int


class TrainingWatch:
    """Implements ``trainer.EpochWatch``. Every decision is a function of the training's progress alone.

    Args:
        start_afresh: puts new random weights, from the given number of earlier tries, and an empty optimizer in place.
    """

    def __init__(
        self,
        parts: Parts,
        console: Console,
        stall: StallPolicy,
        resources: ResourcePolicy,
        start_afresh: Callable[[int], None],
        *,
        num_workers: int,
    ) -> None:
        self._parts = parts
        self._console = console
        self._stall = stall
        self._resources = resources
        self._start_afresh = start_afresh
        self._num_workers = num_workers

    @property
    def _progress(self) -> Progress:
        return self._parts.state.progress

    def after_epoch(self, *, would_stop_early: bool) -> bool:
        """React to what the epoch shows; returns whether training should stop early."""
        note_replays(self._console, self._progress)
        self._look_at_resources()
        return self._look_at_learning(would_stop_early)

    def _look_at_learning(self, would_stop_early: bool) -> bool:
        threshold = self._stall.threshold(self._parts.settings.num_classes)
        if self._stall.reaction == "off" or not has_not_learnt(self._progress, threshold):
            return would_stop_early
        may_act = self._stall.reaction == "act" and len(self._progress.reactions.stall_actions) < MAX_STALL_ACTIONS
        if is_stalled(self._progress, self._stall.patience_epochs, threshold):
            return self._react_to_stall(would_stop_early, may_act=may_act)
        # A run that has not learnt anything is not converged: it goes on until the stall is certain.
        return would_stop_early and not may_act

    def _react_to_stall(self, would_stop_early: bool, *, may_act: bool) -> bool:
        progress = self._progress
        # Of several processes each sees the activations of its own samples only.
        world = self._parts.world
        actions = world.from_main(stall_actions(progress) if world.is_main else None)
        finding = f"no improvement for {self._stall.patience_epochs} epochs, and the loss is still high"
        if not may_act or not actions:
            self._suggest(finding, actions)
            return would_stop_early
        outcome = "; ".join(_STALL_TEXTS[action] for action in actions)
        progress.events.append(tell(self._console, progress, "convergence_stall", finding, actions, outcome))
        self._apply(actions)
        return False

    def _apply(self, actions: list[str]) -> None:
        progress = self._progress
        reactions = progress.reactions
        if "increase_learning_rate" in actions:
            reactions.rate_scale *= RATE_STEP
        if "reduce_learning_rate" in actions:
            reactions.rate_scale /= RATE_STEP
        self._parts.state.scheduler.set_scale(reactions.rate_scale)
        if "reinitialise" in actions:
            self._start_afresh(len(reactions.stall_actions) + 1)
        reactions.stall_actions += actions
        reactions.stall_watched_from = progress.epoch
        progress.epochs_without_improvement, progress.stopping_best = 0, None

    def _suggest(self, finding: str, actions: list[str]) -> None:
        reactions = self._progress.reactions
        if "convergence_stall" in reactions.suggested:
            return
        reactions.suggested.append("convergence_stall")
        texts = [_STALL_TEXTS[action] for action in actions] or ["look at the labels and at how the data is loaded"]
        outcome = f"suggestion: {'; '.join(texts)}"
        self._progress.events.append(tell(self._console, self._progress, "convergence_stall", finding, [], outcome))

    def _look_at_resources(self) -> None:
        policy, progress = self._resources, self._progress
        recent = progress.history[-(policy.patience_epochs + 1) :]
        if policy.reaction == "off" or len(recent) <= policy.patience_epochs:
            return
        if "resource_inefficiency" in progress.reactions.suggested:
            return
        finding = idle_finding(recent, policy.gpu_util_pct)
        if finding is None:
            return
        progress.reactions.suggested.append("resource_inefficiency")
        batch_size, workers = self._parts.settings.batch_size, self._num_workers
        outcome = (
            f"suggestion: training.batch_size {batch_size} -> {2 * batch_size}, "
            f"data.num_workers {workers} -> {2 * workers or 2}"
        )
        if self._parts.device.type == "cuda":
            outcome += ", data.pin_memory true"
        progress.events.append(tell(self._console, progress, "resource_inefficiency", finding, [], outcome))


_STALL_TEXTS = {
    "increase_learning_rate": "learning rate x 10: updates are tiny beside the weights",
    "reduce_learning_rate": "learning rate / 10: updates are large beside the weights",
    "reinitialise": "new initial weights from another seed: units are dead or the first loss was far from ln C",
}


def has_not_learnt(progress: Progress, threshold: float) -> bool:
    """Whether no epoch since the last reaction brought the validation loss below ``threshold``."""
    losses = _watched_losses(progress)
    return bool(losses) and min(losses) > threshold


def is_stalled(progress: Progress, patience_epochs: int, threshold: float) -> bool:
    """Whether the last ``patience_epochs`` validated epochs were hardly better than those before, at a high loss."""
    losses = _watched_losses(progress)
    if len(losses) <= patience_epochs or min(losses) <= threshold:
        return False
    before, after = min(losses[:-patience_epochs]), min(losses[-patience_epochs:])
    return not after < before * (1 - LEAST_IMPROVEMENT)


def stall_actions(progress: Progress) -> list[str]:
    """What the signals call for; empty where they point at the data."""
    health = progress.history[-1]["health"]
    actions = []
    ratio, dead = _value(health, "weights", "update_to_weight_median"), _value(health, "activations", "dead_share_max")
    first_loss = progress.signals.get("initial_loss_ratio")
    badly_begun = first_loss is not None and first_loss > FAR_INITIAL_LOSS_RATIO
    if ratio is not None and ratio > LARGE_UPDATE_RATIO:
        actions.append("reduce_learning_rate")
    elif ratio is not None and ratio < SMALL_UPDATE_RATIO:
        actions.append("increase_learning_rate")
    if (dead is not None and dead > MANY_DEAD_UNITS) or badly_begun:
        actions.append("reinitialise")
    return actions


def idle_finding(records: list[Mapping], gpu_util_pct: float) -> str | None:
    """What is wrong with the use of the machine over all of these epochs, with the measured reason; None if nothing."""
    waiting = [record["data_time_s"] / max(record["time_s"], 1e-9) for record in records]
    mean_waiting = sum(waiting) / len(waiting)
    share = f"{100 * mean_waiting:.0f}% of the time goes to waiting for data"
    utilisation = [record["gpu_util"] for record in records]
    if None in utilisation:
        return share if min(waiting) > MUCH_WAITING else None
    if max(utilisation) >= gpu_util_pct:
        return None
    step_s = records[-1]["time_s"] / max(records[-1]["num_steps"], 1)
    if step_s < TINY_STEP_S and mean_waiting < MUCH_WAITING:
        return None
    return f"GPU utilisation below {gpu_util_pct:.0f}% for {len(records)} epochs (now {utilisation[-1]:.0f}%); {share}"


def _watched_losses(progress: Progress) -> list[float]:
    start = progress.reactions.stall_watched_from
    records = [record for record in progress.history if record["num"] > start and record["val_loss"] is not None]
    return [loss if math.isfinite(loss := record["val_loss"]) else math.inf for record in records]


def _value(health: Mapping, *keys: str) -> float | None:
    value: object = health
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, (int, float)) else None
