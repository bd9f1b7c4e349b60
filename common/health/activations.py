"""Dead and saturated units, seen by hooks during an evaluation."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from common.health.numbers import finite, mean_and_std
from common.health.outputs import OutputSignals, output_signals

# A unit whose output varies this much less than its input passes nothing on, forwards or backwards: ten below zero,
# SiLU passes on 5e-4. Where dead is exactly zero the input need not be looked at.
_DEAD_GAIN = 1e-3
_EXACTLY_ZERO = (nn.ReLU, nn.ReLU6)
# Samples looked at in all passes together, and at the least in each of those that are watched.
_NUM_SAMPLES, _MIN_SAMPLES = 128, 8
_MAX_PASSES = 16
_MAX_ELEMENTS = 1 << 16
# Within this share of the range from one of its ends, a sigmoid or tanh passes on hardly any gradient.
_SATURATED_SHARE_OF_RANGE = 0.01
_ENDS: dict[type[nn.Module], tuple[float, float]] = {
    nn.Sigmoid: (0.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
    nn.Tanh: (-1.0, 1.0),
}
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, *_ENDS,
)  # fmt: skip


@dataclass(frozen=True)
class ActivationSignals:
    """Of about 128 samples (fewer where the maps are large), spread evenly over an evaluation.

    A unit is a channel of (B, C, ...) maps or a feature of (B, F) and (B, T, F); it is dead if over all samples and
    places its output varies a thousandth or less of what its input does (for ReLU: not at all).

    Attributes:
        num_activation_layers: calls of activation modules in a pass; functional activations cannot be seen.
        dead_share: dead units over all units, fraction in [0, 1]; None where no activation was seen.
        dead_share_max, dead_share_max_layer: of the layer with the most. Half a layer is a fault.
        saturated_share, saturated_share_max, saturated_share_max_layer: the same for outputs of sigmoid and tanh within
            1% of their range from its ends; None where there are none.
        num_non_finite_layers: layers that put out a NaN or infinite value.
        input_mean, input_std, input_min, input_max: over all values of those samples as the model was fed them.
        outputs: what came out of the model; None where that was no tensor (B, C).
    """

    num_activation_layers: int
    dead_share: float | None
    dead_share_max: float | None
    dead_share_max_layer: str | None
    saturated_share: float | None
    saturated_share_max: float | None
    saturated_share_max_layer: str | None
    num_non_finite_layers: int
    input_mean: float | None
    input_std: float | None
    input_min: float | None
    input_max: float | None
    outputs: OutputSignals | None

    def as_dict(self) -> dict:
        """Plain values for JSON; the outputs' signals stand among the others."""
        values = {name: value for name, value in vars(self).items() if name != "outputs"}
        return values | (self.outputs.as_dict() if self.outputs is not None else {})


class _Call(NamedTuple):
    """Of each unit the smallest and the largest output, then the same of its input where that counts, (U,) each; the
    saturated share, (1,). Still on the device."""

    limits: tuple[Tensor, ...]
    saturated_share: tuple[Tensor, ...]


class ActivationWatch:
    """Collects during forward passes; made by ``watch_activations``."""

    def __init__(self, model: nn.Module, num_passes: int) -> None:
        self._passes_left = num_passes
        self._every = -(-num_passes // _MAX_PASSES)
        self._is_watched_pass = num_passes % self._every == 0
        self._samples_per_pass = max(-(-_NUM_SAMPLES * self._every // num_passes), _MIN_SAMPLES)
        # Compiled code takes no notice of hooks that came after it, so that one pass has to run without compilation.
        self._is_compiled = model._compiled_call_impl is not None
        # By module and number of its call in a pass; a list entry per pass.
        self._calls: dict[tuple[str, int], list[_Call]] = {}
        self._calls_in_pass: Counter[str] = Counter()
        self._input_limits: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self._hooks: list[RemovableHandle] = []
        self._stance = ExitStack()
        self._hook(model)

    def stop(self) -> None:
        """Take all hooks away; what was collected stays."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._stance.close()

    @property
    def num_bytes(self) -> int:
        """Memory that the copies of inputs and outputs take until ``summary``."""
        return sum(part.nbytes for part in (*self._inputs, *self._outputs))

    def summary(self) -> ActivationSignals | None:
        """What was seen, or None if the model was not called. Waits for the device."""
        if not self._inputs:
            return None
        layers = [_seen(calls, rows) for calls, rows in zip(self._calls.values(), self._collected(), strict=True)]
        names = [name for name, _ in self._calls]
        dead = [(layer.num_dead / layer.num_units, name) for layer, name in zip(layers, names, strict=True)]
        saturated = [
            (layer.saturated_share, name)
            for layer, name in zip(layers, names, strict=True)
            if layer.saturated_share is not None
        ]
        worst_dead, worst_saturated = max(dead, default=(None, None)), max(saturated, default=(None, None))
        inputs = _joined(self._inputs).float().cpu().numpy()
        input_mean, input_std = mean_and_std(inputs)
        return ActivationSignals(
            num_activation_layers=len(names),
            dead_share=sum(layer.num_dead for layer in layers) / sum(layer.num_units for layer in layers)
            if layers
            else None,
            dead_share_max=worst_dead[0],
            dead_share_max_layer=worst_dead[1],
            saturated_share=fmean(share for share, _ in saturated) if saturated else None,
            saturated_share_max=worst_saturated[0],
            saturated_share_max_layer=worst_saturated[1],
            num_non_finite_layers=sum(not layer.is_finite for layer in layers),
            input_mean=finite(input_mean),
            input_std=finite(input_std),
            input_min=finite(np.minimum.reduce(inputs, axis=None)),
            input_max=finite(np.maximum.reduce(inputs, axis=None)),
            outputs=output_signals(_joined(self._outputs)) if self._outputs else None,
        )

    def _collected(self) -> list[np.ndarray]:
        """What was seen of each layer, (number of passes, numbers of a call), float32, brought over at once."""
        by_layer = [
            [part for call in calls for part in (*call.limits, *call.saturated_share)] for calls in self._calls.values()
        ]
        parts = [part for layer in by_layer for part in layer]
        if not parts:
            return []
        if len({part.device for part in parts}) > 1:
            parts = [part.cpu() for part in parts]
        numbers, start, collected = torch.cat(parts).float().cpu().numpy(), 0, []
        for calls, layer in zip(self._calls.values(), by_layer, strict=True):
            end = start + sum(map(len, layer))
            collected.append(numbers[start:end].reshape(len(calls), -1))
            start = end
        return collected

    def _hook(self, model: nn.Module) -> None:
        for name, module in model.named_modules():
            if _is_activation(type(module)):
                if not isinstance(module, _EXACTLY_ZERO):
                    self._hooks.append(module.register_forward_pre_hook(self._before_activation))
                self._hooks.append(module.register_forward_hook(self._after_activation(name)))
        self._hooks.append(model.register_forward_hook(self._after_model))
        if self._is_compiled:
            self._stance.enter_context(torch.compiler.set_stance("force_eager"))

    def _is_watched(self, values: Tensor) -> bool:
        """Whether this pass is looked at, and these values have samples and units."""
        return self._is_watched_pass and values.ndim >= 2

    def _before_activation(self, module: nn.Module, inputs: tuple) -> None:
        # Before the call, since it may be one that overwrites its input.
        if inputs and self._is_watched(inputs[0]):
            self._input_limits[module] = _limits(self._some_samples(inputs[0]))

    def _after_activation(self, name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            input_limits = self._input_limits.pop(module, ())
            # A module called by keyword has no inputs that hooks can see.
            is_judged = input_limits or isinstance(module, _EXACTLY_ZERO)
            if not is_judged or not self._is_watched(output):
                return
            values = self._some_samples(output)
            share = (_saturated_share(values, *_ENDS[type(module)]),) if type(module) in _ENDS else ()
            self._calls_in_pass[name] += 1
            key = (name, self._calls_in_pass[name])
            self._calls.setdefault(key, []).append(_Call((*_limits(values), *input_limits), share))

        return hook

    def _after_model(self, module: nn.Module, inputs: tuple, output: object) -> None:
        if inputs and self._is_watched(inputs[0]):
            # Copies: a part of a tensor would keep all of it in memory.
            self._inputs.append(self._some_samples(inputs[0]).clone())
            if isinstance(output, Tensor) and output.ndim == 2:
                self._outputs.append(self._some_samples(output).clone())
        self._passes_left -= 1
        self._is_watched_pass = self._passes_left > 0 and self._passes_left % self._every == 0
        self._calls_in_pass.clear()
        if self._is_compiled or self._passes_left <= 0:
            self.stop()

    def _some_samples(self, values: Tensor) -> Tensor:
        """Evenly spread ones of a batch: data is often sorted by class, and units are for some classes only."""
        num_samples = values.shape[0]
        most = min(self._samples_per_pass, _MAX_ELEMENTS * num_samples // max(values.numel(), 1))
        return values.detach()[:: -(-num_samples // max(most, _MIN_SAMPLES))]


@cache
def _is_activation(kind: type) -> bool:
    return issubclass(kind, ACTIVATIONS)


@contextlib.contextmanager
def watch_activations(model: nn.Module, num_passes: int = 1) -> Iterator[ActivationWatch]:
    """Watch the model within the body, which should run it ``num_passes`` times, in eval mode.

    At most 16 of the passes are looked at, evenly spread, and none after them; of a compiled model the first alone,
    which runs without compilation. Hooks draw no random numbers and change no value.
    """
    watch = ActivationWatch(model, num_passes)
    try:
        yield watch
    finally:
        watch.stop()


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _limits(values: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each unit, over samples and places: (U,) each."""
    units_last = values.ndim == 3 or not values[0].is_contiguous()
    if units_last and values.ndim > 3:
        values = values.movedim(1, -1)  # the order in memory: along it, reducing is ten times faster
    num_units = values.shape[-1] if units_last else values.shape[1]
    by_place = values.flatten(1)
    shape, places = ((-1, num_units), 0) if units_last else ((num_units, -1), 1)
    return by_place.amin(0).reshape(shape).amin(places), by_place.amax(0).reshape(shape).amax(places)


class _Layer(NamedTuple):
    num_units: int
    num_dead: int
    is_finite: bool
    saturated_share: float | None


def _seen(calls: Sequence[_Call], rows: np.ndarray) -> _Layer:
    """What the passes say of a layer together; ``rows`` has the numbers of each call."""
    limits, num_units = calls[0].limits, len(calls[0].limits[0])
    sides_PSU = rows[:, : len(limits) * num_units].reshape(len(calls), len(limits), num_units)
    # Largest minus smallest value of each unit over all passes, of the output and of the input.
    ranges = np.maximum.reduce(sides_PSU[:, 1::2]) - np.minimum.reduce(sides_PSU[:, ::2])
    passes_nothing_on_U = ranges[0] <= _DEAD_GAIN * ranges[1] if len(ranges) > 1 else ranges[0] == 0.0
    return _Layer(
        num_units=num_units,
        num_dead=int(np.count_nonzero(passes_nothing_on_U)),
        is_finite=math.isfinite(np.maximum.reduce(ranges[0])),
        saturated_share=fmean(rows[:, -1].tolist()) if calls[0].saturated_share else None,
    )


def _saturated_share(values: Tensor, low: float, high: float) -> Tensor:
    margin = _SATURATED_SHARE_OF_RANGE * (high - low)
    return ((values < low + margin) | (values > high - margin)).float().mean()[None]
