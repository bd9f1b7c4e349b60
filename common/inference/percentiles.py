"""Percentiles of latency, with the bounds that the number of samples allows.

Of n independent samples, the number that lie at or below the true q-quantile is binomial (n, q), whatever the
distribution. So the k-th smallest sample is an upper confidence bound of that quantile with confidence
``P(Bin(n, q) <= k - 1)``, and the j-th smallest a lower bound with confidence ``P(Bin(n, q) >= j)``.
Source: David and Nagaraja 2003, Order Statistics, section 7.1 (distribution-free confidence intervals for quantiles).

An upper bound that were the very largest sample would hang on one call, so at least one sample must lie beyond it. That
is the rule by which MLPerf's LoadGen stops early (mlcommons/inference, loadgen/early_stopping.cc,
``MinPassingQueriesFinder`` with tolerance 0), and it asks for 11, 64, 130 and 662 samples at p50, p90, p95 and p99.

Samples of one process in a row are not quite independent: a bound covers the noise of sampling, not that of another
day.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

CONFIDENCE = 0.99
REPORTED_PCT = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True)
class Percentile:
    """One percentile of latencies in milliseconds.

    Attributes:
        pct: which one, in (0, 100).
        value_ms: the smallest sample that at least ``pct`` percent of all do not exceed (nearest rank); None where
            there are too few samples to say it with confidence.
        low_ms, high_ms: bounds of the true percentile, each holding with 99% confidence; None as well then.
        num_samples, num_needed: how many there are, and from how many on it is given.
    """

    pct: float
    value_ms: float | None
    low_ms: float | None
    high_ms: float | None
    num_samples: int
    num_needed: int

    @property
    def name(self) -> str:
        """``p99``, ``p99.9``."""
        return f"p{self.pct:g}"


@functools.cache
def samples_needed(pct: float, confidence: float = CONFIDENCE) -> int:
    """The fewest samples that bound a percentile on both sides with one sample beyond each bound.

    Raises:
        ValueError: ``pct`` is not in (0, 100), or ``confidence`` not in (0, 1).
    """
    _check(pct, confidence)
    extreme = max(pct, 100.0 - pct) / 100.0
    # P(no more than one of n samples lies beyond the percentile), which falls with n.
    low, high = 1, 2
    while _at_most_one_beyond(high, extreme) > 1.0 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _at_most_one_beyond(middle, extreme) <= 1.0 - confidence else (middle, high)
    return high


def percentile(latencies_ms: npt.ArrayLike, pct: float, confidence: float = CONFIDENCE) -> Percentile:
    """The percentile with its bounds; without a value where the samples are too few.

    Args:
        latencies_ms: any order, one dimension, finite.
        pct: in (0, 100).
    """
    ordered = np.sort(np.asarray(latencies_ms, dtype=np.float64))
    return _of_sorted(ordered, pct, confidence)


def percentiles(latencies_ms: npt.ArrayLike, pcts: Sequence[float] = REPORTED_PCT) -> list[Percentile]:
    """``percentile`` for each of ``pcts``, sorting once."""
    ordered = np.sort(np.asarray(latencies_ms, dtype=np.float64))
    return [_of_sorted(ordered, pct, CONFIDENCE) for pct in pcts]


def bound_ranks(num_samples: int, pct: float, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """Ranks (1 to n) of the samples that bound the percentile from below and from above.

    Raises:
        ValueError: there are fewer samples than ``samples_needed``.
    """
    if num_samples < samples_needed(pct, confidence):
        raise ValueError(f"{num_samples} samples do not bound p{pct:g}")
    fraction = pct / 100.0
    counts = np.arange(num_samples + 1)
    at_most = bdtr(counts, num_samples, fraction)
    # Smallest k with P(Bin <= k - 1) >= confidence; largest j with P(Bin >= j) = 1 - P(Bin <= j - 1) >= confidence.
    upper = int(np.searchsorted(at_most, confidence, side="left")) + 1
    lower = int(np.searchsorted(at_most, 1.0 - confidence, side="right"))
    return lower, upper


def _of_sorted(ordered: npt.NDArray[np.float64], pct: float, confidence: float) -> Percentile:
    count, needed = len(ordered), samples_needed(pct, confidence)
    if count < needed:
        return Percentile(pct, None, None, None, count, needed)
    lower, upper = bound_ranks(count, pct, confidence)
    # Rounded first: 100 times a binary fraction such as 0.95 may lie a hair above the whole number that is meant.
    rank = max(1, math.ceil(round(count * pct / 100.0, 9)))
    value, low, high = (float(ordered[index - 1]) for index in (rank, lower, upper))
    return Percentile(pct, value, low, high, count, needed)


def _at_most_one_beyond(num_samples: int, fraction: float) -> float:
    return fraction**num_samples + num_samples * (1.0 - fraction) * fraction ** (num_samples - 1)


def _check(pct: float, confidence: float) -> None:
    if not 0.0 < pct < 100.0:
        raise ValueError(f"a percentile lies between 0 and 100, not at {pct}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"a confidence lies between 0 and 1, not at {confidence}")
