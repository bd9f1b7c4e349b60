"""Everything that a training is made of at one instant, into a checkpoint and back, to the bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common import checkpoints
from common.ema import ExponentialMovingAverage
from common.engine.progress import Progress
from common.engine.training_step import NonFiniteError
from common.health import SampleHistory
from common.late import Late, settled
from common.parallel import World
from common.schedulers import Scheduler
from common.seeding import capture_rng_state, restore_rng_state

_RECORDED = ("train_loss", "train_acc", "val_loss", "val_acc", "val_f1", "val_precision", "val_recall")


@dataclass
class TrainingState:
    """The live objects of a training. ``config`` and ``model_spec`` go into every checkpoint as they are."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    ema: ExponentialMovingAverage | None
    scaler: torch.amp.GradScaler | None
    sample_history: SampleHistory
    progress: Progress
    config: dict
    model_spec: dict

    def require_finite(self) -> None:
        """Raises NonFiniteError where a weight, a buffer, the optimizer's state or the average is not finite."""
        groups = {
            "a weight": self.model.state_dict().values(),
            "the optimizer's state": [value for entry in self.optimizer.state.values() for value in entry.values()],
            "the average of the weights": self.ema.state_dict()["model_state_dict"].values() if self.ema else (),
        }
        if _are_finite([value for values in groups.values() for value in values]):
            return
        for what, values in groups.items():
            if not _are_finite(values):
                raise NonFiniteError(what, float("nan"), torch.empty(0, dtype=torch.int64))

    def capture(self, world: World) -> dict:
        """A checkpoint of this instant: top-level keys as documented, only tensors and plain values inside.

        Its tensors are copies on the CPU, which going on with the training leaves alone. A collective call: the random
        state of every process is in it.

        ``epoch`` counts completed epochs; ``progress`` says where inside the next one this is.
        """
        return settled(self.capture_late(world))

    def capture_late(self, world: World) -> dict:
        """``capture`` with late values in it, whose work can wait until the checkpoint is written: see ``settled``."""
        record = self.progress.history[-1] if self.progress.history else {}
        state = {
            "schema_version": checkpoints.SCHEMA_VERSION,
            "epoch": self.progress.completed_epochs,
            "step": self.progress.step,
            "model_state_dict": checkpoints.snapshot(self.model.state_dict()),
            "optimizer_state_dict": checkpoints.snapshot(self.optimizer.state_dict()),
            "scheduler_state_dict": checkpoints.snapshot(self.scheduler.state_dict()),
            "val_loss": record.get("val_loss"),
            "val_acc": record.get("val_acc"),
            "metrics": {key: record.get(key) for key in _RECORDED},
            "config": self.config,
            "rng_state": world.gather(capture_rng_state()),
            "progress": Late(self.progress.frozen().as_dict),
            "model_spec": self.model_spec,
            "sample_history": self.sample_history.late_state_dict(None if world.is_alone else world.sum),
        }
        if self.ema is not None:
            state["ema_state_dict"] = checkpoints.snapshot(self.ema.state_dict())
        if self.scaler is not None:
            state["scaler_state_dict"] = checkpoints.snapshot(self.scaler.state_dict())
        return state

    def restore(self, checkpoint: Mapping, world: World) -> None:
        """Take over a checkpoint. The random state comes last, after everything that could draw from it."""
        self.model.load_state_dict(checkpoint["model_state_dict"])
        self.optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
        self.scheduler.load_state_dict(checkpoint["scheduler_state_dict"])
        if self.ema is not None:
            self.ema.load_state_dict(checkpoint["ema_state_dict"])
        if self.scaler is not None:
            self.scaler.load_state_dict(checkpoint["scaler_state_dict"])
        self.sample_history.load_state_dict(checkpoint["sample_history"], is_main=world.is_main)
        self.progress = Progress.from_dict(checkpoint["progress"])
        # With another number of processes than before the run goes on, but not to the same bits; it says so.
        states = checkpoint["rng_state"]
        restore_rng_state(states[world.rank % len(states)])


def _are_finite(values: Iterable) -> bool:
    """Whether the floating-point tensors among ``values`` hold finite numbers alone."""
    tensors = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
    if not tensors:
        return True
    return bool(torch.stack([norm.float() for norm in torch._foreach_norm(tensors)]).sum().isfinite())
