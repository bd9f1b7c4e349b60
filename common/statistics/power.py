"""What a comparison of so many runs can show, and how many runs it takes: the power of the two-sided 5% t test.

Power means: the difference is found, and in its true direction. Source: Cohen 1988, Statistical Power Analysis,
section 2; computed from the noncentral t distribution.
"""

from __future__ import annotations

import math

from scipy import optimize, stats

ALPHA = 0.05
POWER = 0.8
MAX_RUNS = 10_000


def power(effect: float, standard_error: float, degrees_of_freedom: float) -> float:
    """Probability, in [0, 1], that a true ``effect`` is found. ``standard_error`` > 0, in the same unit."""
    critical = stats.t.ppf(1 - ALPHA / 2, degrees_of_freedom)
    return float(stats.nct.sf(critical, degrees_of_freedom, abs(effect) / standard_error))


def detectable_effect(standard_error: float, degrees_of_freedom: float) -> float:
    """The smallest true effect that is found with 80% power, in the unit of ``standard_error`` (> 0)."""
    # Few degrees of freedom make both the critical value and what must exceed it large: at one, 16 standard errors.
    return standard_error * float(
        optimize.brentq(lambda ratio: power(ratio, 1.0, degrees_of_freedom) - POWER, 0.0, 1000.0)
    )


def runs_needed(effect: float, deviation: float, *, freedom_per_run: float = 1.0, fewest: int = 3) -> int | None:
    """How many pairs (or runs a side) find ``effect`` with 80% power; None where more than 10,000 do not.

    Args:
        effect: the true difference, of either sign.
        deviation: standard deviation of one difference: of a pair's, or ``sqrt(s1^2 + s2^2)`` of two independent runs.
        freedom_per_run: degrees of freedom that each run beyond the first adds: 1 for pairs, up to 2 for Welch.
        fewest: never say less.
    """
    if effect == 0:
        return None

    def enough(count: int) -> bool:
        return power(effect, deviation / math.sqrt(count), freedom_per_run * (count - 1)) >= POWER

    if not enough(MAX_RUNS):
        return None
    low, high = fewest - 1, MAX_RUNS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
