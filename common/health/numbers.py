"""Measured numbers as JSON may hold them."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor


def finite(value: float) -> float | None:
    """``value``, or None where it is NaN or infinite: JSON has no such numbers."""
    return float(value) if math.isfinite(value) else None


def ratio(numerator: float, denominator: float) -> float | None:
    """The quotient, or None where it is not a finite number."""
    return finite(numerator / denominator) if denominator else None


def mean(values: np.ndarray) -> np.floating:
    """``values.mean()``, to the bit, without what that call costs beyond the sum."""
    return values.dtype.type(float(np.add.reduce(values, axis=None)) / values.size)


def column_stds(values_NK: Tensor) -> Tensor:
    """``values_NK.std(dim=0, correction=0)``, many times faster."""
    return (values_NK - values_NK.mean(dim=0)).square_().mean(dim=0).sqrt_()


def mean_and_std(values: np.ndarray) -> tuple[np.floating, np.floating]:
    """``values.mean()`` and ``values.std()``, to the bit, from one mean."""
    centre = mean(values)
    deviations = values - centre
    return centre, np.sqrt(mean(np.multiply(deviations, deviations, out=deviations)))
