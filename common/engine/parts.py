"""What a training is put together from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from common.data import BatchSource, Dataset
from common.engine.progress import CheckpointPlan, Criterion, EarlyStopping
from common.engine.state import TrainingState
from common.engine.training_step import TrainingStep
from common.health import BatchMixing
from common.parallel import World


@dataclass(frozen=True)
class TrainerSettings:
    """How long and in what rhythm. A step takes ``batch_size * accumulate`` samples, ``batch_size`` at once."""

    epochs: int
    seed: int
    batch_size: int
    accumulate: int
    drop_last: bool
    num_classes: int
    validate_every_n_epochs: int
    save_every_n_steps: int | None
    save_every_n_s: float | None
    min_s_between_saves: float
    monitor: Criterion
    early_stopping: EarlyStopping
    clip_max_norm: float | None

    @property
    def samples_per_step(self) -> int:
        return self.batch_size * self.accumulate

    def steps_per_epoch(self, num_train: int) -> int:
        """Optimizer steps in one epoch over ``num_train`` samples."""
        per_step = self.samples_per_step
        return num_train // per_step if self.drop_last else -(-num_train // per_step)


@dataclass(frozen=True)
class EvaluationSet:
    """Samples to measure on: where they come from and which, in batches."""

    source: BatchSource
    index_batches: list[Tensor]


@dataclass
class Parts:
    """All that a training consists of, built and on its device.

    ``evaluation_batch_limit`` is set where memory was too small to evaluate a whole batch at once.
    """

    dataset: Dataset
    device: torch.device
    world: World
    state: TrainingState
    step: TrainingStep
    train_source: BatchSource
    train_sample: EvaluationSet
    validation: EvaluationSet
    settings: TrainerSettings
    plan: CheckpointPlan
    autocast: Callable
    batch_mixing: BatchMixing
    num_parameters: int
    evaluation_batch_limit: int | None = None

    @property
    def num_train(self) -> int:
        return self.dataset.splits["train"].num_samples

    @property
    def clip_max_norm(self) -> float | None:
        """The bound on the gradient's norm that is in force: the configured one, or a tighter one after trouble."""
        bounds = [self.settings.clip_max_norm, self.state.progress.reactions.clip_max_norm]
        return min((bound for bound in bounds if bound is not None), default=None)

    @property
    def steps_per_epoch(self) -> int:
        return self.settings.steps_per_epoch(self.num_train)

    def close(self) -> None:
        """End the workers that load data."""
        for source in (self.train_source, self.train_sample.source, self.validation.source):
            source.close()
