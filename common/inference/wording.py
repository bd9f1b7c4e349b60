"""Numbers of a measurement as people read them."""

from __future__ import annotations

from common.console import format_duration
from common.inference.percentiles import Percentile


def milliseconds(value_ms: float) -> str:
    """``11.2ms``, ``1.23ms``, ``0.417ms``: one decimal as documented, more where digits that count would be lost."""
    decimals = 1 if value_ms >= 9.995 else 2 if value_ms >= 0.9995 else 3
    return f"{value_ms:.{decimals}f}ms"


def duration(seconds: float) -> str:
    """``16.5ms``, ``4.8s``."""
    return milliseconds(1e3 * seconds) if seconds < 1 else format_duration(seconds)


def percentile_text(found: Percentile) -> str:
    """The value, or how many samples are missing."""
    if found.value_ms is None:
        return f"not enough samples ({found.num_samples} of {found.num_needed})"
    return milliseconds(found.value_ms)


def bounds_text(found: Percentile) -> str:
    """``p99 18.3ms (17.9ms to 19.0ms)``."""
    if found.low_ms is None or found.high_ms is None:
        return f"{found.name} {percentile_text(found)}"
    return f"{found.name} {percentile_text(found)} ({milliseconds(found.low_ms)} to {milliseconds(found.high_ms)})"


def rate(samples_per_s: float) -> str:
    """``89``, ``4.2``, ``0.35`` samples per second."""
    decimals = 0 if samples_per_s >= 9.95 else 1 if samples_per_s >= 0.995 else 2
    return f"{samples_per_s:.{decimals}f}"
