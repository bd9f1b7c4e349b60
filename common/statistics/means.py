"""Differences of means over seeds: intervals, t tests, exact permutation tests, equivalence, and Holm's correction."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

CONFIDENCE = 0.95
# Up to this many arrangements every one is counted; beyond, as many are drawn with a fixed seed.
MAX_ARRANGEMENTS = 2**18
ARRANGEMENTS_PER_BATCH = 20_000


@dataclass(frozen=True)
class MeanDifference:
    """``optimized - baseline`` in the unit of the values.

    Attributes:
        effect: difference of the means.
        standard_error, degrees_of_freedom: of the t statistic.
        p_value: two-sided, of no difference.
        low, high: ends of the 95% interval.
    """

    effect: float
    standard_error: float
    degrees_of_freedom: float
    p_value: float
    low: float
    high: float

    @property
    def statistic(self) -> float:
        """Student's t."""
        return self.effect / self.standard_error


@dataclass(frozen=True)
class PermutationResult:
    """``p_value`` is two-sided; ``exact`` where every arrangement was counted."""

    p_value: float
    exact: bool


def paired_difference(baseline_K: npt.ArrayLike, optimized_K: npt.ArrayLike) -> MeanDifference | None:
    """Paired t test and interval over K matched runs.

    Returns:
        None where K < 2, or where all differences are equal: no spread can be estimated then.
    Raises:
        ValueError: the numbers of values differ, or a value is not finite.
    Source: Student 1908, doi:10.2307/2331554.
    """
    baseline, optimized = _checked(baseline_K), _checked(optimized_K)
    if len(baseline) != len(optimized):
        raise ValueError(f"{len(baseline)} and {len(optimized)} values cannot be paired")
    if len(baseline) < 2 or not has_spread(optimized - baseline):
        return None
    return _difference(stats.ttest_rel(optimized, baseline), float((optimized - baseline).mean()))


def welch_difference(baseline_N: npt.ArrayLike, optimized_M: npt.ArrayLike) -> MeanDifference | None:
    """Welch's t test and interval for two independent sets of runs, whatever their spreads.

    Returns:
        None where a side has fewer than two values, or neither side has any spread.
    Raises:
        ValueError: a value is not finite.
    Source: Welch 1947, doi:10.1093/biomet/34.1-2.28.
    """
    baseline, optimized = _checked(baseline_N), _checked(optimized_M)
    if min(len(baseline), len(optimized)) < 2 or not (has_spread(baseline) or has_spread(optimized)):
        return None
    with warnings.catch_warnings():
        # A side whose values are all equal is no mistake here: accuracies come in steps.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        test = stats.ttest_ind(optimized, baseline, equal_var=False)
    return _difference(test, float(optimized.mean() - baseline.mean()))


def has_spread(values: npt.NDArray[np.float64]) -> bool:
    """Whether the values differ by more than rounding."""
    return bool(np.ptp(values) > 1e-12 * max(1.0, float(np.abs(values).max())))


def sign_flip_test(differences_K: npt.ArrayLike) -> PermutationResult:
    """Whether K paired differences could be centred on zero: the mean against all 2^K assignments of signs.

    Source: Fisher 1935, The Design of Experiments, section 21.
    """
    differences = _checked(differences_K)
    arrangements = 2 ** len(differences)
    return _permutation((differences,), _mean, "samples", arrangements)


def permutation_test(baseline_N: npt.ArrayLike, optimized_M: npt.ArrayLike) -> PermutationResult:
    """Whether two sets of runs could be one: the difference of means against every way to divide them.

    Source: Pitman 1937, doi:10.2307/2984124.
    """
    baseline, optimized = _checked(baseline_N), _checked(optimized_M)
    arrangements = math.comb(len(baseline) + len(optimized), len(baseline))
    return _permutation((optimized, baseline), _mean_difference, "independent", arrangements)


def equivalence_p_value(difference: MeanDifference, margin: float) -> float:
    """Two one-sided t tests that the true difference lies within ``margin`` on either side of zero; the larger p.

    Args:
        margin: > 0.
    Source: Schuirmann 1987, doi:10.1007/BF01068419.
    """
    above = stats.t.sf((difference.effect + margin) / difference.standard_error, difference.degrees_of_freedom)
    below = stats.t.cdf((difference.effect - margin) / difference.standard_error, difference.degrees_of_freedom)
    return float(max(above, below))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for being several, in the order given.

    Source: Holm 1979, https://www.jstor.org/stable/4615733.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = largest
    return corrected


def _difference(test: object, effect: float) -> MeanDifference:
    interval = test.confidence_interval(CONFIDENCE)
    return MeanDifference(
        effect=effect,
        standard_error=abs(effect / float(test.statistic)) if effect else _half_width(interval) / _critical(test.df),
        degrees_of_freedom=float(test.df),
        p_value=float(test.pvalue),
        low=float(interval.low),
        high=float(interval.high),
    )


def _half_width(interval: object) -> float:
    return float(interval.high - interval.low) / 2


def _critical(degrees_of_freedom: float) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees_of_freedom))


def _permutation(data: tuple, statistic: object, kind: str, arrangements: int) -> PermutationResult:
    exact = arrangements <= MAX_ARRANGEMENTS
    result = stats.permutation_test(
        data,
        statistic,
        permutation_type=kind,
        vectorized=True,
        n_resamples=arrangements if exact else MAX_ARRANGEMENTS,
        batch=ARRANGEMENTS_PER_BATCH,
        rng=np.random.default_rng(0),
    )
    return PermutationResult(float(result.pvalue), exact)


def _mean(values: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    return values.mean(axis=axis)


def _mean_difference(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], axis: int
) -> npt.NDArray[np.float64]:
    return first.mean(axis=axis) - second.mean(axis=axis)


def _checked(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError("the values must be finite numbers, at least one")
    return array
