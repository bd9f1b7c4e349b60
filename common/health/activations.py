"""Dead and saturated units, seen by hooks during one forward pass of an evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn

from common.health.numbers import finite
from common.health.outputs import OutputSignals, output_signals

# A unit whose output varies this much less than its input passes nothing on, forwards or backwards: ten below zero,
# SiLU passes on 5e-4. Where dead is exactly zero the input need not be looked at.
_DEAD_GAIN = 1e-3
_EXACTLY_ZERO = (nn.ReLU, nn.ReLU6)
_MIN_SAMPLES, _MAX_SAMPLES = 16, 128
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
    """Of one evaluation batch (its first 128 samples, down to 16 where the maps are large).

    A unit is a channel of (B, C, ...) maps or a feature of (B, F) and (B, T, F); it is dead if over all samples and
    places its output varies a thousandth or less of what its input does (for ReLU: not at all).

    Attributes:
        num_activation_layers: calls of activation modules; functional activations cannot be seen.
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


@dataclass(frozen=True)
class _Layer:
    """One call of an activation module: ``num_dead`` of ``num_units`` are dead, the widest ranges over ``spread``."""

    name: str
    num_units: int
    num_dead: int
    spread: float
    saturated_share: float | None

    @property
    def dead_share(self) -> float:
        return self.num_dead / self.num_units


class ActivationWatch:
    """Collects during the first forward pass; made by ``watch_activations``."""

    def __init__(self, model: nn.Module) -> None:
        # Name, ranges of the units, the limits below which they count as dead, saturated share: still on the device.
        self._calls: list[tuple[str, Tensor, Tensor | None, Tensor | None]] = []
        self._input_ranges: dict[nn.Module, Tensor] = {}
        self._inputs: Tensor | None = None
        self._outputs: Tensor | None = None
        self._hooks = ExitStack()
        for name, module in model.named_modules():
            if isinstance(module, ACTIVATIONS):
                self._watch(name, module)
        self._hooks.callback(model.register_forward_hook(self._after_model).remove)
        if model._compiled_call_impl is not None:
            # Compiled code takes no notice of hooks that came after it.
            self._hooks.enter_context(torch.compiler.set_stance("force_eager"))

    def stop(self) -> None:
        """Take all hooks away; what was collected stays."""
        self._hooks.close()
        self._input_ranges.clear()

    def summary(self) -> ActivationSignals | None:
        """What was seen, or None if the model was not called. Waits for the device."""
        if self._inputs is None:
            return None
        layers = [_layer(*call) for call in self._calls]
        saturated = [(layer.saturated_share, layer.name) for layer in layers if layer.saturated_share is not None]
        worst_dead = max(((layer.dead_share, layer.name) for layer in layers), default=(None, None))
        worst_saturated = max(saturated, default=(None, None))
        inputs = _some_samples(self._inputs).float().cpu().numpy()
        return ActivationSignals(
            num_activation_layers=len(layers),
            dead_share=sum(layer.num_dead for layer in layers) / sum(layer.num_units for layer in layers)
            if layers
            else None,
            dead_share_max=worst_dead[0],
            dead_share_max_layer=worst_dead[1],
            saturated_share=fmean(share for share, _ in saturated) if saturated else None,
            saturated_share_max=worst_saturated[0],
            saturated_share_max_layer=worst_saturated[1],
            num_non_finite_layers=sum(finite(layer.spread) is None for layer in layers),
            input_mean=finite(inputs.mean()),
            input_std=finite(inputs.std()),
            input_min=finite(inputs.min()),
            input_max=finite(inputs.max()),
            outputs=None if self._outputs is None else output_signals(self._outputs),
        )

    def _watch(self, name: str, module: nn.Module) -> None:
        if not isinstance(module, _EXACTLY_ZERO):
            self._hooks.callback(module.register_forward_pre_hook(self._before_activation).remove)
        self._hooks.callback(module.register_forward_hook(self._after_activation(name)).remove)

    def _before_activation(self, module: nn.Module, inputs: tuple) -> None:
        # Before the call, since it may be one that overwrites its input.
        if inputs and inputs[0].ndim >= 2:
            self._input_ranges[module] = _ranges(_some_samples(inputs[0]))

    def _after_activation(self, name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            if output.ndim < 2:  # no units, or no samples
                return
            limits_U = None
            if not isinstance(module, _EXACTLY_ZERO):
                if module not in self._input_ranges:  # called by keyword, which these hooks do not see
                    return
                limits_U = _DEAD_GAIN * self._input_ranges.pop(module)
            values = _some_samples(output)
            saturated_share = _saturated_share(values, *_ENDS[type(module)]) if type(module) in _ENDS else None
            self._calls.append((name, _ranges(values), limits_U, saturated_share))

        return hook

    def _after_model(self, module: nn.Module, inputs: tuple, output: object) -> None:
        self._inputs = inputs[0].detach() if inputs else None
        if isinstance(output, Tensor) and output.ndim == 2:
            self._outputs = output.detach()
        self.stop()


def _layer(name: str, ranges_U: Tensor, limits_U: Tensor | None, saturated_share: Tensor | None) -> _Layer:
    dead_U = ranges_U == 0 if limits_U is None else ranges_U <= limits_U
    return _Layer(
        name=name,
        num_units=len(ranges_U),
        num_dead=int(dead_U.sum()),
        spread=float(ranges_U.max()),
        saturated_share=None if saturated_share is None else float(saturated_share),
    )


@contextlib.contextmanager
def watch_activations(model: nn.Module) -> Iterator[ActivationWatch]:
    """Watch the model's first forward pass within the body, which should be one in eval mode.

    Hooks draw no random numbers and change no value. They are gone after that pass, so the rest of an evaluation runs
    as it always does; a compiled model runs that one pass without compilation.
    """
    watch = ActivationWatch(model)
    try:
        yield watch
    finally:
        watch.stop()


def _some_samples(values: Tensor) -> Tensor:
    elements_per_sample = max(values[0].numel(), 1)
    return values.detach()[: max(_MIN_SAMPLES, min(_MAX_SAMPLES, _MAX_ELEMENTS // elements_per_sample))]


def _ranges(values: Tensor) -> Tensor:
    """Largest minus smallest value of each unit, over samples and places: (U,)."""
    units_last = values.ndim == 3 or not values.is_contiguous()
    if units_last and values.ndim > 3:
        values = values.movedim(1, -1)  # the order in memory: along it, reducing is ten times faster
    num_units = values.shape[-1] if units_last else values.shape[1]
    by_place = values.flatten(1)
    shape, places = ((-1, num_units), 0) if units_last else ((num_units, -1), 1)
    return by_place.amax(0).reshape(shape).amax(places) - by_place.amin(0).reshape(shape).amin(places)


def _saturated_share(values: Tensor, low: float, high: float) -> Tensor:
    margin = _SATURATED_SHARE_OF_RANGE * (high - low)
    return ((values < low + margin) | (values > high - margin)).float().mean()
