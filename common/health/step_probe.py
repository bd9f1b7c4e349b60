"""What one optimizer step does to the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from common.health.numbers import finite, ratio

# Of a larger layer evenly spread rows are looked at: they bound the memory for copies, and tell the same.
_MAX_ELEMENTS = 1 << 18
# Rows of independent weights have a spread near 1; rows that started equal and were trained alike, near 0.
_IDENTICAL_SPREAD = 1e-3
_NAMED_LAYERS = 5
_HALF = (torch.float16, torch.bfloat16)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True)
class WeightSignals:
    """Of one step, over the layers: weights of two dimensions or more, one row (first dimension) per unit.

    Attributes:
        update_to_weight_median, update_to_weight_min, update_to_weight_max: L2 norm of a layer's change over that of
            the layer before; healthy near 1e-3 (Karpathy et al., cs231n). None where every layer is zero.
        update_to_weight_min_layer, update_to_weight_max_layer: the names of those layers.
        first_layer_grad_norm, last_layer_grad_norm: L2 norms, in the order in which the model registers its layers.
        first_to_last_grad_ratio: below 1e-3 gradients vanish (Zhang et al. 2021, AutoTrainer, arXiv:2103.07643).
        num_layers, num_zero_update_layers: how many there are, and how many did not move at all.
        zero_update_layers: the names of the first five of those.
        update_gradient_cosine: of the step with the negative gradient, in [-1, 1]: 1 for plain gradient descent, lower
            for adaptive steps, near or below 0 where momentum carries the weights somewhere else.
        weight_norm: L2, over all layers (of a layer of more than 2^18 weights, over rows spread evenly).
        weight_norm_growth: relative change of ``weight_norm`` in this one step; weight decay of strength d alone
            gives minus learning rate times d.
        unit_spread_min, unit_spread_min_layer: L2 norm of a layer's rows around their mean over that of the rows: 0
            where all units of the layer are the same, as after a constant initialisation; healthy near 1.
        num_identical_unit_layers: layers whose spread is below 0.001 or whose weights are all zero.
        narrowest_units, narrowest_layer: the fewest units of any layer but the last.
        gradients_cleared: False where a gradient of the step before was still there when this one began; None where
            that was not looked at.
        num_non_finite_layers: layers with a NaN or infinite weight, or such a gradient.
    """

    update_to_weight_median: float | None
    update_to_weight_min: float | None
    update_to_weight_min_layer: str | None
    update_to_weight_max: float | None
    update_to_weight_max_layer: str | None
    first_layer_grad_norm: float | None
    last_layer_grad_norm: float | None
    first_to_last_grad_ratio: float | None
    num_layers: int
    num_zero_update_layers: int
    zero_update_layers: list[str]
    update_gradient_cosine: float | None
    weight_norm: float | None
    weight_norm_growth: float | None
    unit_spread_min: float | None
    unit_spread_min_layer: str | None
    num_identical_unit_layers: int
    narrowest_units: int | None
    narrowest_layer: str | None
    gradients_cleared: bool | None
    num_non_finite_layers: int

    def as_dict(self) -> dict:
        """Plain values for JSON, None for what is not known."""
        return dict(vars(self))


class WeightProbe:
    """Watches one step at a time: ``before_backward`` (may be left out), ``before_update``, ``after_update``.

    Draws nothing, changes nothing, and holds copies (about 1 MiB of a large layer) only between the last two calls.
    In a model with weights in half precision, norms are those of float32 copies. Call it before clipping, for the
    gradients' norms to be the true ones; ratios do not depend on it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = _layers(model)
        self._parameters = list(model.parameters())
        self._before: list[Tensor] = []
        self._grad_norms: list[Tensor] = []
        self._gradients_cleared: bool | None = None

    @torch.no_grad()
    def before_backward(self) -> None:
        """Before the step's first backward, after old gradients should have been cleared."""
        left = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        self._gradients_cleared = not any(torch.stack(torch._foreach_norm(left)).tolist()) if left else True

    @torch.no_grad()
    def before_update(self) -> None:
        """When the step's gradients are there and the weights are still those of before."""
        weights = list(self._layers.values())
        self._before = [_rows(weight).clone() for weight in weights]
        self._grad_norms = torch._foreach_norm([_gradient(weight) for weight in weights]) if weights else []

    @torch.no_grad()
    def after_update(self) -> WeightSignals | None:
        """After the optimizer's step, with the gradients still there; None for a model without such layers.

        Waits for the device.
        """
        if not self._layers:
            return None
        assert self._before, "before_update comes first"
        measured = _measure(list(self._layers.values()), self._before, self._grad_norms)
        self._before, self._grad_norms = [], []
        signals = _signals(list(self._layers), list(self._layers.values()), measured, self._gradients_cleared)
        self._gradients_cleared = None
        return signals


@dataclass(frozen=True)
class _Measured:
    """One number per layer; norms are those of the rows looked at, and ``grads`` of the whole gradient."""

    before: list[float]
    after: list[float]
    updates: list[float]
    spreads: list[float]
    row_grads: list[float]
    grads: list[float]
    dots: list[float]


def _layers(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights whose rows are units: not scales, biases, position embeddings (1, T, D) or norms' parameters."""
    normed = {id(p) for module in model.modules() if isinstance(module, _NORMS) for p in module.parameters(False)}
    return {
        name: weight
        for name, weight in model.named_parameters()
        if weight.ndim >= 2 and weight.shape[0] > 1 and weight.numel() > weight.shape[0] and id(weight) not in normed
    }


def _rows(tensor: Tensor) -> Tensor:
    """All rows, or evenly spread ones of a large tensor, in float32 at least."""
    rows = tensor.detach()
    if rows.numel() > _MAX_ELEMENTS:
        # Two rows at the least, or units could not be compared.
        rows = rows[:: min(-(-rows.numel() // _MAX_ELEMENTS), max(len(rows) - 1, 1))]
    return rows.float() if rows.dtype in _HALF else rows


def _gradient(weight: nn.Parameter) -> Tensor:
    """The weight's gradient in float32 at least; zeros of one number where it has none."""
    if weight.grad is None:
        return torch.zeros((1,) * weight.ndim, device=weight.device)
    gradient = weight.grad.to_dense() if weight.grad.is_sparse else weight.grad
    return gradient.float() if gradient.dtype in _HALF else gradient


def _measure(weights: Sequence[nn.Parameter], before: list[Tensor], grad_norms: list[Tensor]) -> _Measured:
    after = [_rows(weight) for weight in weights]
    updates = torch._foreach_sub(after, before)
    gradients = [_rows(_gradient(weight)) for weight in weights]
    centred = torch._foreach_sub(after, [rows.mean(dim=0, keepdim=True) for rows in after])
    dots = [product.sum() for product in torch._foreach_mul(updates, gradients)]
    norms = torch._foreach_norm([*before, *after, *updates, *centred, *gradients])
    numbers, count = _numbers([*norms, *grad_norms, *dots]), len(after)
    return _Measured(*(numbers[start : start + count] for start in range(0, len(numbers), count)))


def _numbers(values: list[Tensor]) -> list[float]:
    """Of tensors without dimensions; those of a model on several devices or of several types come one by one."""
    if len({(value.device, value.dtype) for value in values}) > 1:
        return [value.item() for value in values]
    return torch.stack(values).tolist()


def _signals(
    names: list[str], weights: list[nn.Parameter], measured: _Measured, gradients_cleared: bool | None
) -> WeightSignals:
    ratios = _by_value(names, [ratio(u, w) for u, w in zip(measured.updates, measured.before, strict=True)])
    spreads = _by_value(names, [ratio(s, w) for s, w in zip(measured.spreads, measured.after, strict=True)])
    still = [name for name, update in zip(names, measured.updates, strict=True) if update == 0.0]
    narrowest = min(zip([len(weight) for weight in weights[:-1]], names, strict=False), default=(None, None))
    first, last = measured.grads[0], measured.grads[-1]
    norm_before, norm_after = _total(measured.before), _total(measured.after)
    return WeightSignals(
        update_to_weight_median=median(value for value, _ in ratios) if ratios else None,
        update_to_weight_min=ratios[0][0] if ratios else None,
        update_to_weight_min_layer=ratios[0][1] if ratios else None,
        update_to_weight_max=ratios[-1][0] if ratios else None,
        update_to_weight_max_layer=ratios[-1][1] if ratios else None,
        first_layer_grad_norm=finite(first),
        last_layer_grad_norm=finite(last),
        first_to_last_grad_ratio=ratio(first, last),
        num_layers=len(names),
        num_zero_update_layers=len(still),
        zero_update_layers=still[:_NAMED_LAYERS],
        update_gradient_cosine=ratio(-sum(measured.dots), _total(measured.updates) * _total(measured.row_grads)),
        weight_norm=finite(norm_after),
        weight_norm_growth=ratio(norm_after - norm_before, norm_before),
        unit_spread_min=spreads[0][0] if spreads else None,
        unit_spread_min_layer=spreads[0][1] if spreads else None,
        num_identical_unit_layers=_num_identical(measured),
        narrowest_units=narrowest[0],
        narrowest_layer=narrowest[1],
        gradients_cleared=gradients_cleared,
        num_non_finite_layers=sum(
            finite(w) is None or finite(g) is None for w, g in zip(measured.after, measured.grads, strict=True)
        ),
    )


def _by_value(names: list[str], values: list[float | None]) -> list[tuple[float, str]]:
    """The known values with their layers, smallest first."""
    return sorted((value, name) for name, value in zip(names, values, strict=True) if value is not None)


def _num_identical(measured: _Measured) -> int:
    return sum(s <= _IDENTICAL_SPREAD * w for s, w in zip(measured.spreads, measured.after, strict=True))


def _total(norms: list[float]) -> float:
    return sum(norm * norm for norm in norms) ** 0.5
