"""Plug-in models with a fault at an exact place, for trainings that have to cope with it."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn


class Glitch(nn.Module):
    """A perceptron that says infinity in the training passes numbered in ``TEST_GLITCHES`` ("3" or "3,5").

    Passes are counted over the life of the process, so that a pass that is repeated has another number.
    """

    passes = 0

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), num_classes))

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.layers(inputs)
        if not self.training:
            return logits
        Glitch.passes += 1
        if str(Glitch.passes) in os.environ.get("TEST_GLITCHES", "").split(","):
            return logits * float("inf")
        return logits
