"""Percentiles and their bounds: published numbers, the binomial distribution, and a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from common.inference.percentiles import bound_ranks, percentile, percentiles, samples_needed


@pytest.mark.parametrize(("pct", "needed"), [(50, 11), (90, 64), (95, 130), (99, 662)])
def test_the_samples_needed_are_those_of_loadgen(pct, needed):
    assert samples_needed(pct) == needed


def test_low_percentiles_need_as_many_as_high_ones():
    assert samples_needed(1) == samples_needed(99) and samples_needed(10) == samples_needed(90)


@pytest.mark.parametrize("pct", [50, 90, 95, 99])
@pytest.mark.parametrize("extra", [0, 1, 37, 5000])
def test_bounds_are_the_tightest_that_hold_with_99_percent(pct, extra):
    count, fraction = samples_needed(pct) + extra, pct / 100
    low, high = bound_ranks(count, pct)
    # P(X_(high) >= q) = P(fewer than high samples lie below q), and P(X_(low) <= q) = P(at least low lie at or below).
    assert stats.binom.cdf(high - 1, count, fraction) >= 0.99 > stats.binom.cdf(high - 2, count, fraction)
    assert stats.binom.sf(low - 1, count, fraction) >= 0.99 > stats.binom.sf(low, count, fraction)
    assert 1 <= low < high < count


def test_one_sample_less_gives_no_value():
    found = percentile(np.arange(661.0), 99)
    assert (found.value_ms, found.low_ms, found.high_ms) == (None, None, None)
    assert (found.num_samples, found.num_needed, found.name) == (661, 662, "p99")
    with pytest.raises(ValueError, match="661 samples do not bound p99"):
        bound_ranks(661, 99)


def test_values_are_nearest_ranks():
    samples = np.random.default_rng(0).permutation(np.arange(1.0, 1001.0))
    assert [found.value_ms for found in percentiles(samples)] == [500.0, 900.0, 950.0, 990.0]
    assert percentile(np.arange(1.0, 12.0), 50).value_ms == 6.0


@pytest.mark.parametrize("pct", [7.0, 14.0, 28.0, 55.0, 95.0, 99.9])
def test_rounding_errors_do_not_shift_the_rank(pct):
    samples = np.arange(1.0, 10001.0)
    assert percentile(samples, pct).value_ms == round(pct * 100)


@pytest.mark.parametrize(("pct", "confidence"), [(0, 0.99), (100, 0.99), (50, 0.0), (50, 1.0)])
def test_senseless_arguments_are_refused(pct, confidence):
    with pytest.raises(ValueError, match="lies between"):
        samples_needed(pct, confidence)


@pytest.mark.parametrize("pct", [50, 95, 99])
def test_bounds_cover_the_truth_as_often_as_they_say(pct):
    """2,000 drawings from a long-tailed distribution; each bound may miss in 1% of them."""
    rng = np.random.default_rng(1)
    truth = stats.lognorm.ppf(pct / 100, 1.0)
    found = [percentile(rng.lognormal(size=900), pct) for _ in range(2000)]
    too_low = sum(one.high_ms < truth for one in found)
    too_high = sum(one.low_ms > truth for one in found)
    # Binomial (2000, 0.01) exceeds 34 with a probability below 0.2%; the drawing is fixed, so this cannot flicker.
    assert too_low <= 34 and too_high <= 34
    assert too_low + too_high > 0, "bounds that never miss are wider than they need to be"
