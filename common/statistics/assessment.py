"""The verdict on two configurations that were trained over seeds, and everything that it rests on."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from common.statistics.means import (
    MeanDifference,
    PermutationResult,
    equivalence_p_value,
    paired_difference,
    permutation_test,
    sign_flip_test,
    welch_difference,
)
from common.statistics.power import ALPHA, detectable_effect, runs_needed

# Two runs a side describe; from three on they can carry a verdict.
FEWEST_FOR_VERDICT = 3
# Below these numbers a permutation test cannot reach 5%, whatever the values are.
FEWEST_PAIRS_FOR_SIGN_FLIP = 6
FEWEST_A_SIDE_FOR_PERMUTATION = 4


class Verdict(str, enum.Enum):
    """What the evidence allows to say about the optimized configuration."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    SMALL = "real but small"
    UNKNOWN = "not enough evidence"


@dataclass(frozen=True)
class Assessment:
    """Scores over seeds, compared. Every number is ``optimized - baseline`` in the unit of the scores.

    Attributes:
        paired: whether runs were matched by seed.
        num_baseline, num_optimized: runs; equal where paired.
        effect: difference of the means.
        difference: t test and 95% interval; None where one run a side, or equal differences, leave no spread.
        permutation: sign-flip (paired) or permutation test, None below the number where it can reach 5%.
        equivalence_p: of the two one-sided tests within the margin; None where there is no ``difference``.
        wins, ties, trials: pairs of runs in which the optimized one is better; unpaired: of all pairs across the sides.
        probability_better: that a new optimized run beats a new baseline run; None where there is no spread.
        smallest_effect: true difference that these runs find with 80% power.
        needed_for_effect: runs a side that find the difference seen with 80% power (t test); None: over 10,000.
        needed_for_margin: the same for a difference of ``margin``.
        margin: smallest difference that matters in practice.
    """

    paired: bool
    num_baseline: int
    num_optimized: int
    effect: float
    difference: MeanDifference | None
    permutation: PermutationResult | None
    equivalence_p: float | None
    wins: int
    ties: int
    trials: int
    probability_better: float | None
    smallest_effect: float | None
    needed_for_effect: int | None
    needed_for_margin: int | None
    margin: float
    verdict: Verdict


def assess_paired(
    baseline_K: Sequence[float], optimized_K: Sequence[float], *, margin: float, higher_is_better: bool = True
) -> Assessment:
    """Compare K runs a side that share their seeds, pair by pair.

    Raises:
        ValueError: the numbers of values differ, a value is not finite, or ``margin`` < 0.
    """
    difference = paired_difference(baseline_K, optimized_K)
    differences = np.asarray(optimized_K, dtype=float) - np.asarray(baseline_K, dtype=float)
    count = len(differences)
    permutation = sign_flip_test(differences) if difference and count >= FEWEST_PAIRS_FOR_SIGN_FLIP else None
    deviation = float(differences.std(ddof=1)) if difference else None
    return _assessment(
        differences, difference, permutation,
        paired=True, sizes=(count, count), margin=margin, higher_is_better=higher_is_better,
        deviation=deviation, freedom_per_run=1.0, prediction_error=_quadratic(deviation, difference),
    )  # fmt: skip


def assess_unpaired(
    baseline_N: Sequence[float], optimized_M: Sequence[float], *, margin: float, higher_is_better: bool = True
) -> Assessment:
    """Compare two independent sets of runs. Arguments and errors as for ``assess_paired``."""
    difference = welch_difference(baseline_N, optimized_M)
    baseline, optimized = np.asarray(baseline_N, dtype=float), np.asarray(optimized_M, dtype=float)
    sizes = (len(baseline), len(optimized))
    enough = min(sizes) >= FEWEST_A_SIDE_FOR_PERMUTATION
    permutation = permutation_test(baseline, optimized) if difference and enough else None
    deviation, freedom = None, 1.0
    if difference:
        variances = [float(side.var(ddof=1)) for side in (baseline, optimized)]
        deviation = math.sqrt(sum(variances))
        freedom = sum(variances) ** 2 / sum(variance**2 for variance in variances)
    return _assessment(
        np.subtract.outer(optimized, baseline).ravel(), difference, permutation,
        paired=False, sizes=sizes, margin=margin, higher_is_better=higher_is_better,
        deviation=deviation, freedom_per_run=freedom, prediction_error=_quadratic(deviation, difference),
    )  # fmt: skip


def _assessment(
    differences: npt.NDArray[np.float64],
    difference: MeanDifference | None,
    permutation: PermutationResult | None,
    *,
    paired: bool,
    sizes: tuple[int, int],
    margin: float,
    higher_is_better: bool,
    deviation: float | None,
    freedom_per_run: float,
    prediction_error: float | None,
) -> Assessment:
    if margin < 0:
        raise ValueError(f"the margin {margin} is negative")
    gain = 1.0 if higher_is_better else -1.0
    effect = float(differences.mean())
    equivalence_p = equivalence_p_value(difference, margin) if difference and margin > 0 else None
    probability = smallest = needed_for_effect = needed_for_margin = None
    if difference and deviation and prediction_error:
        # The t distribution of the next difference, given those seen (Geisser 1993, Predictive Inference, 2.2).
        probability = float(stats.t.cdf(gain * effect / prediction_error, difference.degrees_of_freedom))
        smallest = detectable_effect(difference.standard_error, difference.degrees_of_freedom)
        needed_for_effect = runs_needed(effect, deviation, freedom_per_run=freedom_per_run)
        needed_for_margin = runs_needed(margin, deviation, freedom_per_run=freedom_per_run)
    return Assessment(
        paired=paired,
        num_baseline=sizes[0],
        num_optimized=sizes[1],
        effect=effect,
        difference=difference,
        permutation=permutation,
        equivalence_p=equivalence_p,
        wins=int((gain * differences > 0).sum()),
        ties=int((differences == 0).sum()),
        trials=len(differences),
        probability_better=probability,
        smallest_effect=smallest,
        needed_for_effect=needed_for_effect,
        needed_for_margin=needed_for_margin,
        margin=margin,
        verdict=_verdict(difference, permutation, equivalence_p, min(sizes), margin, gain),
    )


def _verdict(
    difference: MeanDifference | None,
    permutation: PermutationResult | None,
    equivalence_p: float | None,
    fewest: int,
    margin: float,
    gain: float,
) -> Verdict:
    """The written rules: significant by every test there is, then by size; else equivalent, else unknown."""
    if difference is None or fewest < FEWEST_FOR_VERDICT:
        return Verdict.UNKNOWN
    if difference.p_value < ALPHA and (permutation is None or permutation.p_value < ALPHA):
        if abs(difference.effect) < margin:
            return Verdict.SMALL
        return Verdict.BETTER if gain * difference.effect > 0 else Verdict.WORSE
    if equivalence_p is not None and equivalence_p < ALPHA:
        return Verdict.EQUIVALENT
    return Verdict.UNKNOWN


def _quadratic(deviation: float | None, difference: MeanDifference | None) -> float | None:
    """Standard error of a new difference: its own spread, and how well the mean is known."""
    return math.hypot(deviation, difference.standard_error) if deviation and difference else None
