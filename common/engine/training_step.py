"""One optimizer step: forward, backward, the check that all is finite, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.augmentation import Augmentation
from common.data import Batch
from common.ema import ExponentialMovingAverage
from common.losses import ClassificationLoss
from common.schedulers import Scheduler


class NonFiniteError(Exception):
    """The loss or a gradient is NaN or infinite. The weights are as they were before the step."""

    def __init__(self, what: str, value: float, indices: Tensor) -> None:
        super().__init__(f"{what} is {value}")
        self.what = what
        self.value = value
        self.indices = indices


@dataclass(frozen=True)
class StepResult:
    """``loss_sum`` is summed over the step's samples; ``grad_norm`` the L2 norm of all gradients before clipping."""

    loss_sum: float
    num_samples: int
    grad_norm: float


class TrainingStep:
    """What is done with the samples of one optimizer step. Owns no state of its own but what it is given."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Scheduler,
        loss: ClassificationLoss,
        *,
        augmentation: Augmentation | None,
        ema: ExponentialMovingAverage | None,
        scaler: torch.amp.GradScaler | None,
        autocast: Callable,
        clip_max_norm: float | None,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._loss = loss
        self._augmentation = augmentation
        self._ema = ema
        self._scaler = scaler
        self._autocast = autocast
        self._clip_max_norm = clip_max_norm
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def run(self, micro_batches: Iterable[Batch], *, num_samples: int, epoch: int, step: int) -> StepResult:
        """Train on ``num_samples`` samples that come in one or more micro-batches.

        The gradient is that of the mean loss over all of them, so how they are cut changes rounding only.

        Raises:
            NonFiniteError: before any weight is touched.
        """
        self._scheduler.before_step(step)
        self._optimizer.zero_grad(set_to_none=True)
        losses, indices = [], []
        for batch in micro_batches:
            loss_sum = self._forward(batch, epoch)
            mean_part = loss_sum / num_samples
            (self._scaler.scale(mean_part) if self._scaler else mean_part).backward()
            losses.append(loss_sum.detach())
            indices.append(batch.indices)
        result = self._result(losses, num_samples, indices)
        self._update(result.grad_norm)
        return result

    def _forward(self, batch: Batch, epoch: int) -> Tensor:
        mixed = (batch.inputs, batch.labels, None, None)
        if self._augmentation is not None:
            mixed = self._augmentation(batch.inputs, batch.labels, batch.indices, epoch)
        inputs, labels_B, mix_labels_B, mix_lambda_B = mixed
        with self._autocast():
            logits_BC = self._model(inputs)
        return self._loss.per_sample(logits_BC, labels_B, mix_labels_B, mix_lambda_B).sum()

    def _result(self, losses: list[Tensor], num_samples: int, indices: list[Tensor]) -> StepResult:
        if self._scaler:
            self._scaler.unscale_(self._optimizer)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # The one place in a step that waits for the device: both numbers in one transfer.
        loss_sum, grad_norm = torch.stack([torch.stack(losses).double().sum(), norm.double()]).tolist()
        if not math.isfinite(loss_sum):
            raise NonFiniteError("the loss", loss_sum, torch.cat(indices))
        # Under fp16 an overflowing gradient is the scaler's everyday signal to lower its scale; it skips the update.
        if not math.isfinite(grad_norm) and not self._scaler:
            raise NonFiniteError("the gradient norm", grad_norm, torch.cat(indices))
        return StepResult(loss_sum, num_samples, grad_norm)

    def _update(self, grad_norm: float) -> None:
        if self._clip_max_norm is not None and grad_norm > self._clip_max_norm and math.isfinite(grad_norm):
            gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
            torch._foreach_mul_(gradients, self._clip_max_norm / (grad_norm + 1e-6))
        if self._scaler:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        if self._ema is not None:
            self._ema.update(self._model)
