"""One optimizer step: forward, backward, the check that all is finite, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from common.augmentation import Augmentation
from common.data import Batch
from common.ema import ExponentialMovingAverage
from common.health import SampleHistory, WeightProbe, WeightSignals
from common.losses import ClassificationLoss
from common.parallel import World
from common.schedulers import Scheduler


class NonFiniteError(Exception):
    """The loss or a gradient is NaN or infinite. The weights are as they were before the step."""

    def __init__(self, what: str, value: float, indices: Tensor) -> None:
        super().__init__(f"{what} is {value}")
        self.what = what
        self.value = value
        self.indices = indices


class MicroBatchTooLargeError(Exception):
    """Memory ran out in the forward or backward pass. The weights are untouched; batch norm's statistics may not be."""


@dataclass(frozen=True)
class MicroBatch:
    """One process's part of a micro-batch; ``counts`` is False for a stand-in whose loss must not count."""

    batch: Batch
    counts: bool = True


@dataclass(frozen=True)
class StepResult:
    """``loss_sum`` is summed over the step's samples; ``grad_norm`` the L2 norm of all gradients before clipping.

    ``flags`` are the sums over all processes of what each gave to ``run``; ``weights`` is what the probe saw.
    """

    loss_sum: float
    num_samples: int
    grad_norm: float
    flags: list[float]
    weights: WeightSignals | None = None


class TrainingStep:
    """What is done with the samples of one optimizer step. Owns no state of its own but what it is given.

    Args:
        model: as it is to be called, wrapped for several processes where there are several.
        sample_history: told the losses and logits of every sample.
    """

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
        world: World,
        averaged_model: nn.Module,
        sample_history: SampleHistory,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._loss = loss
        self._augmentation = augmentation
        self._ema = ema
        self._scaler = scaler
        self._autocast = autocast
        self._world = world
        self._averaged_model = averaged_model
        self._sample_history = sample_history
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def run(
        self,
        micro_batches: Iterable[MicroBatch],
        *,
        num_micro_batches: int,
        num_samples: int,
        epoch: int,
        step: int,
        clip_max_norm: float | None = None,
        flags: tuple[float, ...] = (),
        probe: WeightProbe | None = None,
    ) -> StepResult:
        """Train on the ``num_samples`` samples of all processes, which come in ``num_micro_batches`` parts.

        The gradient is that of the mean loss over all of them, so how they are cut changes rounding only.

        Args:
            clip_max_norm: gradients with a larger norm are scaled down to it.
            flags: numbers to be added up over all processes along with the loss.
            probe: watches this step; None for most, since it costs a little.
        Raises:
            NonFiniteError: before any weight is touched.
            MicroBatchTooLargeError: out of memory, before any weight is touched.
        """
        self._scheduler.before_step(step)
        self._optimizer.zero_grad(set_to_none=True)
        if probe is not None:
            probe.before_backward()
        losses, indices = [], []
        for number, micro in enumerate(micro_batches, 1):
            losses.append(self._backward(micro, num_samples, epoch, is_last=number == num_micro_batches))
            indices.append(micro.batch.indices)
        result = self._result(losses, num_samples, indices, flags)
        if probe is None:
            self._update(result.grad_norm, clip_max_norm)
            return result
        probe.before_update()
        self._update(result.grad_norm, clip_max_norm)
        return replace(result, weights=probe.after_update())

    def release_memory(self) -> None:
        """Let go of the gradients of a step that was not finished."""
        self._optimizer.zero_grad(set_to_none=True)

    def _backward(self, micro: MicroBatch, num_samples: int, epoch: int, *, is_last: bool) -> Tensor:
        """Add the gradient of one micro-batch; returns its summed loss."""
        try:
            with self._world.without_gradient_exchange(self._model, active=not is_last):
                loss_sum = self._forward(micro, epoch)
                # The processes' gradients are averaged, and each has the mean over all samples in mind.
                mean_part = loss_sum * (self._world.size / num_samples)
                (self._scaler.scale(mean_part) if self._scaler else mean_part).backward()
            return loss_sum.detach()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler: the exception's traceback holds on to the tensors that filled the memory.
        raise MicroBatchTooLargeError

    def _forward(self, micro: MicroBatch, epoch: int) -> Tensor:
        batch = micro.batch
        mixed = (batch.inputs, batch.labels, None, None)
        if self._augmentation is not None:
            mixed = self._augmentation(batch.inputs, batch.labels, batch.indices, epoch)
        inputs, labels_B, mix_labels_B, mix_lambda_B = mixed
        with self._autocast():
            logits_BC = self._model(inputs)
        losses_B = self._loss.per_sample(logits_BC, labels_B, mix_labels_B, mix_lambda_B)
        if not micro.counts:
            return losses_B.sum() * 0.0
        self._sample_history.add(batch.indices, losses_B, logits_BC)
        return losses_B.sum()

    def _result(
        self, losses: list[Tensor], num_samples: int, indices: list[Tensor], flags: tuple[float, ...]
    ) -> StepResult:
        if self._scaler:
            self._scaler.unscale_(self._optimizer)
        loss_sum = torch.stack(losses).sum(dtype=torch.float64)[None]
        if flags or not self._world.is_alone:
            loss_sum = self._world.sum(torch.cat([loss_sum, loss_sum.new_tensor(flags)]))
        gradients = self._gradients()
        norms = torch.stack(torch._foreach_norm(gradients)).double() if gradients else loss_sum[:0]
        # The one place in a step that waits for the device: all numbers in one transfer.
        numbers = torch.cat([loss_sum, norms]).tolist()
        (total, *summed_flags), norms = numbers[: len(loss_sum)], numbers[len(loss_sum) :]
        grad_norm = math.hypot(*norms)
        if not math.isfinite(total):
            raise NonFiniteError("the loss", total, torch.cat(indices))
        # Under fp16 an overflowing gradient is the scaler's everyday signal to lower its scale; it skips the update.
        if not math.isfinite(grad_norm) and not self._scaler:
            raise NonFiniteError("the gradient norm", grad_norm, torch.cat(indices))
        return StepResult(total, num_samples, grad_norm, summed_flags)

    def _update(self, grad_norm: float, clip_max_norm: float | None) -> None:
        if clip_max_norm is not None and grad_norm > clip_max_norm and math.isfinite(grad_norm):
            torch._foreach_mul_(self._gradients(), clip_max_norm / (grad_norm + 1e-6))
        if self._scaler:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        if self._ema is not None:
            self._ema.update(self._averaged_model)

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in the machine."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
