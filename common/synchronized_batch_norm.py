"""Batch norm whose statistics are those of the batches of all processes together, on CPUs too.

``torch.nn.SyncBatchNorm`` works on GPUs only.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes; since every process's loss depends on it, so is the gradient."""

    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SynchronizedBatchNorm(_BatchNorm):
    """Trains on the mean and variance over the batches of all processes; evaluates as batch norm does.

    Same parameters, buffers and state-dict keys as the ``torch.nn`` layer it replaces. With one process it computes
    what that layer computes, to rounding. Source: Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions (N, C, ...), got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        other_axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        # In float64: the variance as the mean of squares less the square of the mean cancels.
        wide = input.double()
        count = input.new_tensor([input.numel() / input.shape[1]], dtype=torch.float64)
        sums = torch.cat([count, wide.sum(other_axes), wide.square().sum(other_axes)])
        total = _SumOverProcesses.apply(sums)
        num_values, (sum_C, square_sum_C) = total[0].detach(), total[1:].chunk(2)
        mean_C = sum_C / num_values
        variance_C = (square_sum_C / num_values - mean_C.square()).clamp_min(0.0)
        self._update_running_statistics(mean_C.detach(), variance_C.detach(), num_values)
        scale_C = torch.rsqrt(variance_C + self.eps)
        normalized = (wide - mean_C.view(shape)) * scale_C.view(shape)
        output = normalized.to(input.dtype)
        if self.affine:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output

    @torch.no_grad()
    def _update_running_statistics(self, mean_C: Tensor, variance_C: Tensor, num_values: Tensor) -> None:
        if not self.track_running_stats:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        unbiased_C = variance_C * (num_values / (num_values - 1).clamp_min(1.0))
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), momentum)


def synchronize_batch_norm(model: nn.Module) -> nn.Module:
    """Replace every batch-norm layer of ``model``, in place, by one that works across processes."""
    for name, child in model.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, SynchronizedBatchNorm):
            setattr(model, name, _synchronized(child))
        else:
            synchronize_batch_norm(child)
    return model


def _synchronized(layer: _BatchNorm) -> SynchronizedBatchNorm:
    replacement = SynchronizedBatchNorm(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    )
    replacement.load_state_dict(layer.state_dict())
    return replacement.to(next(iter(layer.state_dict().values())).device).train(layer.training)
