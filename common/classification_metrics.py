"""Accuracy, precision, recall and F1 of a classifier, all from one confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ClassMetrics:
    """One class against the rest. Fractions in [0, 1]; 0 where the denominator is 0.

    Attributes:
        support: number of examples whose true class this is.
    """

    support: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, eq=False)
class ClassificationMetrics:
    """How predictions compare with labels.

    Attributes:
        accuracy_pct: correct predictions, percent.
        precision, recall, f1: macro averages, fractions in [0, 1].
        per_class: one entry per class, in the order of the class indices.
        confusion_matrix: counts, int64, shape (C, C); row: true class, column: predicted class.
    """

    accuracy_pct: float
    f1: float
    precision: float
    recall: float
    per_class: list[ClassMetrics]
    confusion_matrix: npt.NDArray[np.int64]


def classification_metrics(
    labels_N: npt.ArrayLike, predictions_N: npt.ArrayLike, num_classes: int
) -> ClassificationMetrics:
    """Compare predicted with true classes.

    The macro averages run over the classes that occur among the labels or the predictions, each with the same
    weight: a class that this data says nothing about neither helps nor hurts. These are scikit-learn's values for
    ``average="macro", zero_division=0``, to the last bit.

    Args:
        labels_N: true class indices, integers in [0, num_classes), N >= 1.
        predictions_N: predicted class indices, same shape.
        num_classes: >= 1.
    Raises:
        ValueError: shapes disagree, no examples, or an index out of range.
    Source: Sokolova and Lapalme 2009, doi:10.1016/j.ipm.2009.03.002, table 3 (macro-averaging), with F1 averaged per
        class.
    """
    matrix_CC = confusion_matrix(labels_N, predictions_N, num_classes)
    hits_C = matrix_CC.diagonal()
    support_C = matrix_CC.sum(axis=1)
    predicted_C = matrix_CC.sum(axis=0)
    precision_C = _ratio(hits_C, predicted_C)
    recall_C = _ratio(hits_C, support_C)
    f1_C = _ratio(2 * hits_C, support_C + predicted_C)
    occurs_C = (support_C + predicted_C) > 0
    return ClassificationMetrics(
        accuracy_pct=100.0 * int(hits_C.sum()) / int(support_C.sum()),
        f1=float(f1_C[occurs_C].mean()),
        precision=float(precision_C[occurs_C].mean()),
        recall=float(recall_C[occurs_C].mean()),
        per_class=[
            ClassMetrics(*row)
            for row in zip(support_C.tolist(), precision_C.tolist(), recall_C.tolist(), f1_C.tolist(), strict=True)
        ],
        confusion_matrix=matrix_CC,
    )


def confusion_matrix(labels_N: npt.ArrayLike, predictions_N: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.int64]:
    """Counts of (true class, predicted class), int64, shape (C, C); arguments and errors as above."""
    labels, predictions = np.asarray(labels_N), np.asarray(predictions_N)
    if labels.ndim != 1 or labels.shape != predictions.shape:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} must be equally long vectors")
    if labels.size == 0:
        raise ValueError("no examples: the metrics of nothing are undefined")
    for name, values in (("labels", labels), ("predictions", predictions)):
        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= num_classes:
            raise ValueError(f"{name} must be integers from 0 to {num_classes - 1}")
    # One number per cell; in int64, since the class indices may come in a type too narrow for C * C.
    cells = labels.astype(np.int64) * num_classes + predictions.astype(np.int64)
    return np.bincount(cells, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def _ratio(numerators: npt.NDArray[np.int64], denominators: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    # A zero denominator comes with a zero numerator, so dividing by one instead gives the 0 we want.
    return numerators / np.maximum(denominators, 1)
