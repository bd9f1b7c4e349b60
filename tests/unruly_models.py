"""Architectures, by import path, that get a training into trouble."""

from __future__ import annotations

import gc
import os
import weakref
from typing import ClassVar

import torch
from torch import Tensor, nn

from tests.training_runs import StoppableMlp

BYTES_PER_SAMPLE = 17_000_000


class GreedyMlp(nn.Module):
    """A small network that runs out of memory with more than ``fitting_samples`` from a given forward pass on.

    The passes are counted in a buffer, so that it is the training's state that decides, whichever process goes on with
    it. It runs out in the backward pass too, where ``in_backward``, and in evaluation with more than
    ``fitting_in_evaluation``. ``survivors`` counts, at every later pass, how many graphs of failed attempts are still
    held by something; ``evaluated`` has the number of samples of every evaluation pass that went well.
    """

    survivors: ClassVar[list[int]] = []
    evaluated: ClassVar[list[int]] = []
    _failed: ClassVar[list[weakref.ref]] = []

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        dropout: float,
        fitting_samples: int,
        from_pass: int = 0,
        in_backward: bool = False,
        batch_norm: bool = True,
        fitting_in_evaluation: int = 1_000_000,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(input_shape[0], 16),
            nn.BatchNorm1d(16) if batch_norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(16, num_classes),
        )
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        self._fitting_samples = fitting_samples
        self._from_pass = from_pass
        self._in_backward = in_backward
        self._fitting_in_evaluation = fitting_in_evaluation

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return self._evaluate(inputs)
        self._count_survivors()
        self.passes += 1
        too_large = len(inputs) > self._fitting_samples and self.passes.item() > self._from_pass
        logits = self.layers(inputs)
        if not too_large:
            return logits
        graph = _Graph()
        GreedyMlp._failed.append(weakref.ref(graph))
        logits = _RunsOut.apply(logits, graph)
        if not self._in_backward:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return logits

    def _evaluate(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self._fitting_in_evaluation and self.passes.item() > 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        GreedyMlp.evaluated.append(len(inputs))
        return self.layers(inputs)

    @staticmethod
    def _count_survivors() -> None:
        if GreedyMlp._failed:
            gc.collect()
            GreedyMlp._failed[:] = [failed for failed in GreedyMlp._failed if failed() is not None]
        GreedyMlp.survivors.append(len(GreedyMlp._failed))


class _Graph:
    """Lives as long as the graph of one forward pass."""


class _RunsOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, graph: _Graph) -> Tensor:
        ctx.graph = graph
        return logits.clone()

    @staticmethod
    def backward(ctx, grad: Tensor):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


class VastMlp(nn.Module):
    """A small network that asks for ``BYTES_PER_SAMPLE`` in every training pass, and does not use it."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(input_shape[0], 16), nn.ReLU(), nn.Linear(16, num_classes))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            torch.empty(len(inputs), BYTES_PER_SAMPLE, dtype=torch.uint8)
        return self.layers(inputs)


class MortalMlp(StoppableMlp):
    """As ``StoppableMlp``, but in the first attempt alone, and only in the process of rank ``TEST_STOP_RANK``."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, dropout: float) -> None:
        super().__init__(input_shape, num_classes, dropout)
        rank = os.environ.get("RANK", "0")
        is_first_attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if not is_first_attempt or os.environ.get("TEST_STOP_RANK", rank) != rank:
            self._action = ""
