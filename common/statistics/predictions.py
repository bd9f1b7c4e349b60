"""Two trained models on the same examples: McNemar's test and paired bootstrap intervals.

These speak about two sets of weights, never about the configurations that led to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse, stats

RESAMPLES = 4_999
CELLS_PER_BATCH = 4_000_000
# Two seeds of one configuration differ by more than their examples explain: exact McNemar calls a fifth of such pairs
# different at 5%, as if the difference had this many times the standard deviation that the test assumes.
SEED_SPREAD_RATIO = 1.5


@dataclass(frozen=True)
class McNemar:
    """``baseline_only`` and ``optimized_only``: examples that this model alone has right. Two-sided p values."""

    baseline_only: int
    optimized_only: int
    p_value: float
    mid_p_value: float


@dataclass(frozen=True)
class BootstrapDifference:
    """``optimized - baseline``; 95% percentile interval and the share of resamples above zero (ties count half)."""

    effect: float
    low: float
    high: float
    share_positive: float


def mcnemar(baseline_only: int, optimized_only: int) -> McNemar:
    """Exact McNemar test of two models, from the examples on which exactly one is right; mid-p beside it.

    Source: Fagerland, Lydersen and Laake 2013, doi:10.1186/1471-2288-13-91.
    """
    discordant = baseline_only + optimized_only
    if baseline_only == optimized_only:
        return McNemar(baseline_only, optimized_only, 1.0, 1.0)
    fewer = min(baseline_only, optimized_only)
    exact = float(stats.binomtest(fewer, discordant, 0.5).pvalue)
    # Twice the one-sided mid-p: the observed point counts half in each tail.
    mid = exact - float(stats.binom.pmf(fewer, discordant, 0.5))
    return McNemar(baseline_only, optimized_only, exact, mid)


def seed_spread_guess(baseline_only: int, optimized_only: int, num_examples: int) -> float:
    """Standard deviation, in percentage points, to expect of the accuracy difference between two seeds.

    A planning figure for when no second seed exists yet: that of so many examples flipping at random, times 1.5.
    """
    return 100.0 * SEED_SPREAD_RATIO * math.sqrt(baseline_only + optimized_only) / num_examples


def bootstrap_mean(differences_N: npt.ArrayLike) -> BootstrapDifference:
    """Interval for the mean of per-example differences, such as of losses. One example has no interval (NaN)."""
    differences = np.asarray(differences_N, dtype=np.float64)
    result = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        method="percentile",
        batch=max(1, CELLS_PER_BATCH // len(differences)),
        rng=np.random.default_rng(0),
    )
    interval = result.confidence_interval
    return BootstrapDifference(
        float(differences.mean()), float(interval.low), float(interval.high),
        _share_positive(result.bootstrap_distribution),
    )  # fmt: skip


def bootstrap_classification(
    labels_N: npt.NDArray[np.int64],
    baseline_N: npt.NDArray[np.int64],
    optimized_N: npt.NDArray[np.int64],
    metric: str,
) -> BootstrapDifference:
    """Interval for the difference of a classification metric of two models, examples resampled in pairs.

    Args:
        labels_N: true class, int64, >= 0.
        baseline_N, optimized_N: classes that the models predict, same shape.
        metric: ``acc`` (result in percentage points), ``f1``, ``precision`` or ``recall`` (macro, fractions).
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, sections 10.3 and 13.3.
    """
    triples = np.stack([labels_N, baseline_N, optimized_N], axis=1)
    if metric == "acc":  # only right or wrong counts
        triples = (triples == triples[:, :1]).astype(np.int64)
    # Examples with the same label and the same two predictions are interchangeable, so their counts are drawn instead.
    cells_S3, counts_S = np.unique(triples, axis=0, return_counts=True)
    classes = np.unique(cells_S3)
    labels_S, baseline_S, optimized_S = np.searchsorted(classes, cells_S3).T
    score, num_classes = _SCORES[metric], len(classes)

    def difference(weights_RS: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        optimized_R = score(weights_RS, labels_S, optimized_S, num_classes)
        return optimized_R - score(weights_RS, labels_S, baseline_S, num_classes)

    generator = np.random.default_rng(0)
    rows = max(1, CELLS_PER_BATCH // max(len(counts_S), num_classes))
    batches = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    shares_S = counts_S / counts_S.sum()
    resampled = np.concatenate(
        [difference(generator.multinomial(counts_S.sum(), shares_S, size).astype(float)) for size in batches]
    )
    low, high = np.percentile(resampled, [2.5, 97.5])
    return BootstrapDifference(
        float(difference(counts_S[None].astype(float))[0]), float(low), float(high), _share_positive(resampled)
    )


def _share_positive(resampled: npt.NDArray[np.float64]) -> float:
    return float(((resampled > 0) + 0.5 * (resampled == 0)).mean())


def _accuracy_pct(
    weights_RS: npt.NDArray[np.float64], labels_S: npt.NDArray, predicted_S: npt.NDArray, num_classes: int
) -> npt.NDArray[np.float64]:
    return 100.0 * (weights_RS @ (labels_S == predicted_S)) / weights_RS.sum(axis=1)


def _class_counts(
    weights_RS: npt.NDArray[np.float64], labels_S: npt.NDArray, predicted_S: npt.NDArray, num_classes: int
) -> tuple[npt.NDArray[np.float64], ...]:
    """Hits, examples and predictions of each class in each resample."""
    rows_S, shape = np.arange(len(labels_S)), (len(labels_S), num_classes)
    right_S = (labels_S == predicted_S).astype(float)
    ones_S = np.ones(len(labels_S))
    return (
        weights_RS @ sparse.csr_array((right_S, (rows_S, labels_S)), shape=shape),
        weights_RS @ sparse.csr_array((ones_S, (rows_S, labels_S)), shape=shape),
        weights_RS @ sparse.csr_array((ones_S, (rows_S, predicted_S)), shape=shape),
    )


def _macro(values_RC: npt.NDArray, support_RC: npt.NDArray, predicted_RC: npt.NDArray) -> npt.NDArray[np.float64]:
    """Mean over the classes that occur among the labels or the predictions, as ``classification_metrics`` has it."""
    occurs_RC = (support_RC + predicted_RC) > 0
    return (values_RC * occurs_RC).sum(axis=1) / occurs_RC.sum(axis=1)


def _f1(*cells: object) -> npt.NDArray[np.float64]:
    hits, support, predicted = _class_counts(*cells)
    return _macro(2 * hits / np.maximum(support + predicted, 1), support, predicted)


def _precision(*cells: object) -> npt.NDArray[np.float64]:
    hits, support, predicted = _class_counts(*cells)
    return _macro(hits / np.maximum(predicted, 1), support, predicted)


def _recall(*cells: object) -> npt.NDArray[np.float64]:
    hits, support, predicted = _class_counts(*cells)
    return _macro(hits / np.maximum(support, 1), support, predicted)


_SCORES = {"acc": _accuracy_pct, "f1": _f1, "precision": _precision, "recall": _recall}
