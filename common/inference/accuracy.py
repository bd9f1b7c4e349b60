"""How many answers were right, and how well so many tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.classification_metrics import ClassificationMetrics, classification_metrics

_Z_95 = 1.959963984540054


@dataclass(frozen=True, eq=False)
class Accuracy:
    """A model's answers to the whole test set.

    Attributes:
        metrics: accuracy in percent, the rest as fractions.
        predictions_N: class indices, int64, in the order of the test data.
        num_correct: of N.
        num_non_finite: samples for which a logit was not a finite number.
    """

    metrics: ClassificationMetrics
    predictions_N: npt.NDArray[np.int64]
    num_correct: int
    num_non_finite: int

    @property
    def num_samples(self) -> int:
        return len(self.predictions_N)

    @property
    def interval_pct(self) -> tuple[float, float]:
        """95% confidence interval of the accuracy on data like this, percent."""
        return wilson_interval_pct(self.num_correct, self.num_samples)


def accuracy_of(
    labels_N: npt.NDArray[np.int64], predictions_N: npt.NDArray[np.int64], num_classes: int, num_non_finite: int = 0
) -> Accuracy:
    """Compare predicted with true classes; see ``classification_metrics`` for the arguments."""
    metrics = classification_metrics(labels_N, predictions_N, num_classes)
    return Accuracy(metrics, predictions_N, int((labels_N == predictions_N).sum()), num_non_finite)


def wilson_interval_pct(num_correct: int, num_samples: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion at 95% confidence, in percent.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    share, z_squared = num_correct / num_samples, _Z_95**2
    centre = share + z_squared / (2 * num_samples)
    half = _Z_95 * math.sqrt(share * (1 - share) / num_samples + z_squared / (4 * num_samples**2))
    scale = 100.0 / (1 + z_squared / num_samples)
    return max(0.0, scale * (centre - half)), min(100.0, scale * (centre + half))
