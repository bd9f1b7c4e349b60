"""What a number recorded at every step of an epoch does over the epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from common.health.numbers import finite, ratio


def series_signals(values: Sequence[float]) -> dict:
    """Signals of a positive number per step, such as the gradient norm or the mean loss of the batch.

    Returns:
        ``first``, ``last``, ``median``, ``max``; ``growth``: the median of the last quarter of the steps over that of
        the first (above 2 for a gradient norm: it runs away, or gradients are never cleared); ``max_to_median``: a
        single large value; ``num_non_finite``. None for what is not known; the others leave non-finite values out.
    """
    known = [value for value in values if math.isfinite(value)]
    quarter = max(len(known) // 4, 1)
    middle = median(known) if known else None
    return {
        "first": finite(values[0]) if values else None,
        "last": finite(values[-1]) if values else None,
        "median": middle,
        "max": max(known, default=None),
        "growth": ratio(median(known[-quarter:]), median(known[:quarter])) if len(known) > 1 else None,
        "max_to_median": ratio(max(known), middle) if known else None,
        "num_non_finite": len(values) - len(known),
    }
