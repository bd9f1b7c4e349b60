"""Tests, intervals and power against published values; the verdict's rules."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common import statistics
from common.statistics import (
    Verdict,
    assess_paired,
    assess_unpaired,
    detectable_effect,
    equivalence_p_value,
    holm,
    paired_difference,
    permutation_test,
    power,
    runs_needed,
    sign_flip_test,
    welch_difference,
)

SIX_DIGITS = {"rel": 1e-6}
# Extra hours of sleep with two drugs, ten patients (Student 1908; the data set `sleep` of R).
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# Heights in inches of cross- and self-fertilised maize, fifteen pairs (Darwin 1876; Fisher 1935, section 17).
CROSSED = [23.5, 12, 21, 22, 19.125, 21.5, 22.125, 20.375, 18.25, 21.625, 23.25, 21, 22.125, 23, 12]
SELFED = [17.375, 20.375, 20, 20, 18.375, 18.625, 18.625, 15.25, 16.5, 18, 16.25, 18, 12.75, 15.5, 18]


def test_students_sleep_data_paired():
    found = paired_difference(SLEEP_1, SLEEP_2)
    assert found.effect == pytest.approx(1.58, **SIX_DIGITS)
    assert found.statistic == pytest.approx(4.06212768, **SIX_DIGITS)
    assert found.degrees_of_freedom == 9
    assert found.p_value == pytest.approx(0.00283289020, **SIX_DIGITS)
    assert (found.low, found.high) == pytest.approx((0.7001142367, 2.4598857633), **SIX_DIGITS)


def test_students_sleep_data_as_independent_groups():
    found = welch_difference(SLEEP_1, SLEEP_2)
    assert found.statistic == pytest.approx(1.86081347, **SIX_DIGITS)
    assert found.degrees_of_freedom == pytest.approx(17.7764735, **SIX_DIGITS)
    assert found.p_value == pytest.approx(0.0793941402, **SIX_DIGITS)
    assert (found.low, found.high) == pytest.approx((-0.2054832307, 3.3654832307), **SIX_DIGITS)


def test_darwins_maize_by_t_test():
    found = paired_difference(SELFED, CROSSED)
    assert found.statistic == pytest.approx(2.14798746, **SIX_DIGITS)
    assert found.p_value == pytest.approx(0.0497029440, **SIX_DIGITS)
    assert (found.low, found.high) == pytest.approx((0.003899165, 5.229434169), **SIX_DIGITS)


def test_darwins_maize_by_signs():
    """Fisher counted 863 of 32768 arrangements with a sum as large, in each tail."""
    result = sign_flip_test(np.subtract(CROSSED, SELFED))
    assert result.p_value == pytest.approx(2 * 863 / 32768, **SIX_DIGITS)
    assert result.exact


def test_permutation_test_counts_every_division():
    """Of the 20 ways to divide six values the observed one and its mirror image are the most extreme."""
    result = permutation_test([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert result.p_value == pytest.approx(2 / 20)
    assert result.exact


def test_many_arrangements_are_sampled_and_said_to_be():
    generator = np.random.default_rng(3)
    values = generator.normal(0.6, 1.0, 20)
    result = sign_flip_test(values)
    assert not result.exact
    assert result.p_value == pytest.approx(paired_difference(np.zeros(20), values).p_value, abs=0.01)
    assert sign_flip_test(values) == result


def test_standard_error_fits_effect_and_statistic():
    found = welch_difference(SLEEP_1, SLEEP_2)
    expected = math.sqrt(np.var(SLEEP_1, ddof=1) / 10 + np.var(SLEEP_2, ddof=1) / 10)
    assert found.standard_error == pytest.approx(expected)
    balanced = paired_difference([0.0, 1.0, 2.0], [1.0, 1.0, 1.0])
    assert balanced.effect == 0 and balanced.standard_error == pytest.approx(1 / math.sqrt(3))


@pytest.mark.parametrize("pair", [([1.0], [2.0]), ([1.0, 2.0, 3.0], [1.5, 2.5, 3.5]), ([96.3] * 3, [96.3 + 1e-14] * 3)])
def test_without_spread_there_is_no_interval(pair):
    assert paired_difference(*pair) is None


def test_a_side_without_spread_does_not_stop_welch():
    found = welch_difference([96.0, 96.0, 96.0], [97.0, 98.0, 99.0])
    assert found.degrees_of_freedom == pytest.approx(2)
    assert welch_difference([96.0, 96.0], [97.0, 97.0]) is None
    assert welch_difference([96.0], [97.0, 98.0]) is None


@pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf, 1.0], [], [[1.0]]])
def test_what_is_no_list_of_numbers_is_refused(values):
    with pytest.raises(ValueError, match="finite numbers"):
        paired_difference(values, values)


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])


def test_holm_by_hand():
    """Smallest times four, next times three, and so on; never less than one before it, never more than 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_equivalence_is_the_90_percent_interval_within_the_margin():
    found = paired_difference(SLEEP_1, SLEEP_2)
    half_width = 1.8331129326536335 * found.standard_error  # t, 95% quantile at 9 degrees of freedom
    upper_end = found.effect + half_width
    assert equivalence_p_value(found, upper_end) == pytest.approx(0.05, **SIX_DIGITS)
    assert equivalence_p_value(found, upper_end * 1.01) < 0.05 < equivalence_p_value(found, upper_end * 0.99)


@pytest.mark.parametrize(("effect", "expected"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_pairs_needed_are_those_of_the_tables(effect, expected):
    assert runs_needed(effect, 1.0) == expected


@pytest.mark.parametrize(("effect", "expected"), [(0.2, 394), (0.5, 64), (0.8, 26)])
def test_runs_a_side_needed_are_cohens(effect, expected):
    """Cohen 1988, table 2.4.1 (two-sided 5%, power 80%): 393, 64 and 26 by his approximation; 394 exactly."""
    assert runs_needed(effect, math.sqrt(2.0), freedom_per_run=2.0) == expected


def test_runs_needed_has_ends():
    assert runs_needed(100.0, 1.0) == 3
    assert runs_needed(1e-4, 1.0) is None
    assert runs_needed(0.0, 1.0) is None
    assert runs_needed(-0.5, 1.0) == runs_needed(0.5, 1.0)


@pytest.mark.parametrize(("runs", "expected"), [(3, 3.264), (5, 1.682), (10, 0.996)])
def test_detectable_effect_in_standard_deviations(runs, expected):
    error = 1 / math.sqrt(runs)
    effect = detectable_effect(error, runs - 1)
    assert effect == pytest.approx(expected, abs=5e-4)
    assert power(effect, error, runs - 1) == pytest.approx(0.8)


BASELINE = [96.0, 97.0, 96.4, 96.8, 97.2, 96.1, 96.9, 97.1]


def shifted(by: float, count: int, spread: float = 0.2) -> tuple[list[float], list[float]]:
    """Paired scores whose differences have the mean ``by`` and alternate by ``spread``."""
    wobble = [spread * (-1) ** index for index in range(count)]
    wobble = [value - sum(wobble) / count for value in wobble]
    baseline = BASELINE[:count]
    return baseline, [value + by + extra for value, extra in zip(baseline, wobble, strict=True)]


@pytest.mark.parametrize(
    ("by", "count", "margin", "verdict"),
    [
        (2.0, 5, 0.5, Verdict.BETTER),
        (-2.0, 5, 0.5, Verdict.WORSE),
        (0.4, 5, 0.5, Verdict.SMALL),
        (0.0, 5, 0.5, Verdict.EQUIVALENT),
        (0.05, 5, 0.1, Verdict.UNKNOWN),
        (2.0, 2, 0.5, Verdict.UNKNOWN),
        (2.0, 1, 0.5, Verdict.UNKNOWN),
        (0.4, 5, 0.0, Verdict.BETTER),
    ],
)
def test_verdicts_of_paired_seeds(by, count, margin, verdict):
    baseline, optimized = shifted(by, count)
    found = assess_paired(baseline, optimized, margin=margin)
    assert found.verdict is verdict
    assert found.effect == pytest.approx(by)
    assert (found.trials, found.num_baseline, found.num_optimized) == (count, count, count)


def test_lower_may_be_better():
    baseline, optimized = shifted(-2.0, 5)
    found = assess_paired(baseline, optimized, margin=0.5, higher_is_better=False)
    assert found.verdict is Verdict.BETTER
    assert (found.wins, found.effect) == (5, pytest.approx(-2.0))
    assert found.probability_better > 0.99


def test_six_pairs_need_the_sign_flip_test_to_agree():
    """One pair against a strong t test: 4 of 64 arrangements are as extreme, p = 0.0625."""
    differences = [1.0, 1.1, 0.9, 1.05, 0.95, -0.05]
    found = assess_paired([96.0] * 6, [96.0 + d for d in differences], margin=0.5)
    assert found.difference.p_value < 0.05
    assert found.permutation.p_value == pytest.approx(4 / 64)
    assert found.verdict is Verdict.UNKNOWN


def test_permutation_tests_begin_where_they_can_reach_five_percent():
    assert assess_paired(*shifted(2.0, 5), margin=0.5).permutation is None
    assert assess_paired(*shifted(2.0, 6), margin=0.5).permutation.p_value == pytest.approx(2 / 64)
    three = assess_unpaired([96.0, 96.2, 96.4], [98.0, 98.1, 98.3], margin=0.5)
    four = assess_unpaired([96.0, 96.2, 96.4, 96.1], [98.0, 98.1, 98.3, 98.2], margin=0.5)
    assert three.permutation is None
    assert four.permutation.p_value == pytest.approx(2 / 70)
    assert {three.verdict, four.verdict} == {Verdict.BETTER}


def test_equal_differences_are_no_evidence():
    """Accuracies come in steps: three equal gains say that the spread is below a step, not that there is none."""
    found = assess_paired([96.0, 97.0, 95.0], [96.5, 97.5, 95.5], margin=0.1)
    assert found.verdict is Verdict.UNKNOWN
    assert found.difference is None and found.probability_better is None and found.smallest_effect is None
    assert (found.wins, found.trials) == (3, 3)


def test_wins_and_ties_are_counted_over_all_pairs():
    paired = assess_paired([96.0, 97.0, 98.0], [96.0, 98.0, 97.0], margin=0.5)
    assert (paired.wins, paired.ties, paired.trials) == (1, 1, 3)
    unpaired = assess_unpaired([96.0, 97.0], [97.0, 98.0, 95.0], margin=0.5)
    assert (unpaired.wins, unpaired.ties, unpaired.trials) == (3, 1, 6)


def test_needed_runs_follow_from_the_spread():
    baseline, optimized = shifted(0.4, 8, spread=0.5)
    found = assess_paired(baseline, optimized, margin=0.2)
    deviation = np.std(np.subtract(optimized, baseline), ddof=1)
    assert found.needed_for_effect == runs_needed(0.4, deviation)
    assert found.needed_for_margin == runs_needed(0.2, deviation)


def test_probability_of_a_win_is_calibrated():
    """Over many studies without a difference, the next pair is a win as often as foretold: here half of the time."""
    generator = np.random.default_rng(1)
    stated = [
        assess_paired(np.zeros(4), generator.normal(0.0, 1.0, 4), margin=0.5).probability_better for _ in range(100)
    ]
    assert np.mean(stated) == pytest.approx(0.5, abs=0.1)


def test_a_negative_margin_is_refused():
    with pytest.raises(ValueError, match="negative"):
        assess_paired([1.0, 2.0], [1.0, 3.0], margin=-1.0)


def test_everything_public_is_there():
    assert all(hasattr(statistics, name) for name in statistics.__all__)
