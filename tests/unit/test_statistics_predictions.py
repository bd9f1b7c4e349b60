"""Two models on the same examples: published McNemar tables, and bootstrap intervals that repeat and cover."""

from __future__ import annotations

import numpy as np
import pytest

from common.classification_metrics import classification_metrics
from common.statistics import bootstrap_classification, bootstrap_mean, mcnemar, seed_spread_guess


@pytest.mark.parametrize(
    ("counts", "p_value", "mid_p_value"),
    [
        # Fagerland, Lydersen and Laake 2013, tables 1 and 2: airway hyper-responsiveness, complete response.
        ((1, 7), 0.0703125, 0.0390625),
        ((6, 16), 0.0524787903, 0.0346896648),
        # Agresti 1990, table 10.1: approval of the prime minister.
        ((86, 150), 3.71593614e-05, 2.89338952e-05),
    ],
)
def test_published_tables(counts, p_value, mid_p_value):
    for table in (counts, counts[::-1]):
        found = mcnemar(*table)
        assert found.p_value == pytest.approx(p_value, rel=1e-6)
        assert found.mid_p_value == pytest.approx(mid_p_value, rel=1e-6)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_balanced_tables_show_nothing(count):
    assert (mcnemar(count, count).p_value, mcnemar(count, count).mid_p_value) == (1.0, 1.0)


@pytest.fixture(scope="module")
def models():
    """Labels of six classes and two models' predictions, one more often right; a seventh class is only predicted."""
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 6, 300)
    guesses = generator.integers(0, 7, (2, 300))
    weak = np.where(generator.random(300) < 0.80, labels, guesses[0])
    strong = np.where(generator.random(300) < 0.93, labels, guesses[1])
    return labels, weak, strong


@pytest.mark.parametrize(
    ("metric", "field"), [("acc", "accuracy_pct"), ("f1", "f1"), ("precision", "precision"), ("recall", "recall")]
)
def test_the_difference_is_that_of_the_metrics(models, metric, field):
    labels, weak, strong = models
    values = [getattr(classification_metrics(labels, predicted, 7), field) for predicted in (weak, strong)]
    found = bootstrap_classification(*models, metric)
    assert found.effect == pytest.approx(values[1] - values[0])
    assert 0 < found.low < found.effect < found.high
    assert found.share_positive > 0.99
    assert bootstrap_classification(*models, metric) == found


def test_accuracy_interval_is_the_binomial_one(models):
    """For many examples the percentile interval is the normal one of a mean of -1, 0 and 1."""
    labels, weak, strong = models
    differences = 100.0 * ((strong == labels).astype(int) - (weak == labels))
    error = differences.std() / np.sqrt(len(labels))
    found = bootstrap_classification(*models, "acc")
    assert found.low == pytest.approx(found.effect - 1.96 * error, abs=0.5)
    assert found.high == pytest.approx(found.effect + 1.96 * error, abs=0.5)


def test_equal_models_have_no_interval_width(models):
    labels, weak, _ = models
    found = bootstrap_classification(labels, weak, weak, "f1")
    assert (found.effect, found.low, found.high, found.share_positive) == (0, 0, 0, 0.5)


def test_mean_of_losses():
    differences = np.random.default_rng(2).normal(-0.3, 1.0, 500)
    found = bootstrap_mean(differences)
    error = differences.std() / np.sqrt(500)
    assert found.effect == pytest.approx(differences.mean())
    assert found.low == pytest.approx(found.effect - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(found.effect + 1.96 * error, abs=0.2 * error)
    assert found.share_positive < 0.01


def test_planning_spread_is_in_points():
    assert seed_spread_guess(8, 8, 400) == pytest.approx(1.5)
