"""An exponential moving average of a model's weights, to evaluate and to deploy instead of the last ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """Averaged parameters and the latest buffers of a model (batch norm's statistics are averages already).

    After update number t the average is d * average + (1 - d) * weights with d = min(decay, (1 + t) / (10 + t)): a
    young average forgets faster, so that it does not hang on the initial weights for the first 1 / (1 - decay) steps.
    Source: TensorFlow's ``tf.train.ExponentialMovingAverage`` with ``num_updates``.

    Owns copies, on the model's device at construction: move the model first. A NaN that gets in never leaves again,
    so call ``update`` only after a step whose weights are finite.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"decay must be in (0, 1), not {decay}")
        self.decay = decay
        self.num_updates = 0
        self._parameters = {name: tensor.detach().clone() for name, tensor in _parameters(model).items()}
        self._buffers = {name: tensor.detach().clone() for name, tensor in _buffers(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's weights after an optimizer step."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        current = [tensor.detach() for tensor in _parameters(model).values()]
        torch._foreach_lerp_(list(self._parameters.values()), current, 1.0 - decay)
        _copy(self._buffers, _buffers(model))

    @contextlib.contextmanager
    def apply_to(self, model: nn.Module) -> Iterator[None]:
        """Within the body ``model`` holds the averaged weights; afterwards its own again, to the bit.

        Whatever the body does to the model's weights and buffers is lost.
        """
        live = {**_parameters(model), **_buffers(model)}
        own = {name: tensor.detach().clone() for name, tensor in live.items()}
        _copy(live, {**self._parameters, **self._buffers})
        try:
            yield
        finally:
            _copy(live, own)

    def state_dict(self) -> dict[str, Any]:
        """``decay``, ``num_updates``, and ``model_state_dict``: the average as the model's own ``load_state_dict``
        takes it. The tensors are the live ones, not copies."""
        return {
            "decay": self.decay,
            "num_updates": self.num_updates,
            "model_state_dict": {**self._parameters, **self._buffers},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved average.

        Raises:
            KeyError, RuntimeError: it is of another model.
        """
        saved = state["model_state_dict"]
        own = {**self._parameters, **self._buffers}
        if saved.keys() != own.keys():
            raise KeyError(f"another model's average: {sorted(saved.keys() ^ own.keys())}")
        self.num_updates = state["num_updates"]
        _copy(own, saved)


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    # A parameter under two names is averaged under both, so that the result loads like any state dict.
    return dict(model.named_parameters(remove_duplicate=False))


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    parameters = _parameters(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in parameters}


@torch.no_grad()
def _copy(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> None:
    if targets:
        torch._foreach_copy_(list(targets.values()), [sources[name].detach() for name in targets])
