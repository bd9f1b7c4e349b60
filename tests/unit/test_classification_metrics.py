"""The metrics against scikit-learn's, bit for bit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from common.classification_metrics import ClassMetrics, classification_metrics, confusion_matrix


def sklearn_values(true_labels, predictions, average, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # zero_division=0 must cover every case without complaint
        values = sklearn_metrics.precision_recall_fscore_support(
            true_labels, predictions, average=average, zero_division=0, **options
        )
    return values


def assert_equals_sklearn(labels, predictions, num_classes):
    ours = classification_metrics(labels, predictions, num_classes)
    precision, recall, f1, _ = sklearn_values(labels, predictions, "macro")
    assert (ours.precision, ours.recall, ours.f1) == (precision, recall, f1)
    assert ours.accuracy_pct == pytest.approx(100 * sklearn_metrics.accuracy_score(labels, predictions), rel=1e-14)
    classes = range(num_classes)
    per_class = zip(*sklearn_values(labels, predictions, None, labels=list(classes)), strict=True)
    assert [(c.precision, c.recall, c.f1, c.support) for c in ours.per_class] == [tuple(row) for row in per_class]
    expected = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(expected, (labels, predictions), 1)
    assert np.array_equal(ours.confusion_matrix, expected)


@given(st.data(), st.integers(1, 12))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_equals_sklearn_on_any_data(data, num_classes):
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, num_classes - 1), st.integers(0, num_classes - 1)), min_size=1, max_size=60)
    )
    labels, predictions = map(list, zip(*pairs, strict=True))
    assert_equals_sklearn(labels, predictions, num_classes)


@pytest.mark.parametrize(
    ("labels", "predictions", "num_classes"),
    [
        ([0, 1, 2, 2], [0, 2, 1, 2], 3),
        ([0, 0, 0], [0, 0, 0], 5),  # four classes that nothing is said about
        ([0, 0, 1], [2, 2, 2], 4),  # a class only predicted, others never
        ([3], [0], 4),
        ([0], [0], 1),
    ],
)
def test_equals_sklearn_at_the_edges(labels, predictions, num_classes):
    assert_equals_sklearn(labels, predictions, num_classes)


def test_equals_sklearn_on_many_examples():
    random = np.random.default_rng(7)
    labels = random.integers(0, 10, 2000)
    predictions = np.where(random.random(2000) < 0.8, labels, random.integers(0, 10, 2000))
    assert_equals_sklearn(labels, predictions, 10)


def test_a_worked_example():
    ours = classification_metrics([0, 0, 0, 1], [0, 0, 1, 1], 3)
    assert ours.accuracy_pct == 75.0
    assert ours.confusion_matrix.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert ours.per_class == [
        ClassMetrics(support=3, precision=1.0, recall=2 / 3, f1=0.8),
        ClassMetrics(support=1, precision=0.5, recall=1.0, f1=2 / 3),
        ClassMetrics(support=0, precision=0.0, recall=0.0, f1=0.0),
    ]
    assert ours.precision == 0.75  # over the two classes that occur


def test_narrow_types_do_not_overflow():
    labels = np.full(4, 120, dtype=np.int8)
    assert confusion_matrix(labels, labels, 121)[120, 120] == 4
    unsigned = np.full(4, 200, dtype=np.uint8)
    assert confusion_matrix(unsigned, unsigned, 201)[200, 200] == 4


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([], [], "no examples"),
        ([0, 1], [0], "equally long"),
        ([[0]], [[0]], "equally long"),
        ([0, 3], [0, 0], "labels must be integers from 0 to 2"),
        ([0, 0], [0, -1], "predictions must be integers from 0 to 2"),
        ([0.0, 1.0], [0, 1], "labels must be integers"),
    ],
)
def test_refuses_what_has_no_meaning(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(labels, predictions, 3)
