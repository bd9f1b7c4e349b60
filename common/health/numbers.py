"""Measured numbers as JSON may hold them."""

from __future__ import annotations

import math


def finite(value: float) -> float | None:
    """``value``, or None where it is NaN or infinite: JSON has no such numbers."""
    return float(value) if math.isfinite(value) else None


def ratio(numerator: float, denominator: float) -> float | None:
    """The quotient, or None where it is not a finite number."""
    return finite(numerator / denominator) if denominator else None
