"""What a model's outputs say: whether they are logits at all, how large, how varied, and how each class fares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from torch import Tensor

from common.health.numbers import finite, mean, mean_and_std, ratio

# Probabilities of half precision are this far from adding up to 1.
_SUM_TOLERANCE = 1e-2
_LISTED_CLASSES = 100


@dataclass(frozen=True)
class OutputSignals:
    """Of the outputs for one batch or split.

    Attributes:
        logits_mean, logits_std, logits_min, logits_max: over all values; std is 0 where the model says nothing.
        row_sum_mean: mean over the samples of the sum over the classes.
        looks_like_probabilities: every value in [0, 1] and every row's sum within 0.01 of 1: a softmax comes before
            the loss, which then cannot fall below ln(e + C - 1) - 1.
        top_class_share_pct: percent of samples for which the most often predicted class is predicted.
        confidence_mean_pct: mean over the samples of the largest softmax probability, percent.
    """

    logits_mean: float | None
    logits_std: float | None
    logits_min: float | None
    logits_max: float | None
    row_sum_mean: float | None
    looks_like_probabilities: bool
    top_class_share_pct: float | None
    confidence_mean_pct: float | None

    def as_dict(self) -> dict:
        """Plain values for JSON, None for what is not known."""
        return dict(vars(self))


def output_signals(logits_BC: Tensor) -> OutputSignals:
    """Signals of ``logits_BC``, any floating type, B >= 1. Waits for the device."""
    # NumPy's small operations cost less than PyTorch's, and its ufuncs less than its methods.
    logits = logits_BC.detach().float().cpu().numpy()
    row_sums_B, row_maxima_B = np.add.reduce(logits, axis=1), np.maximum.reduce(logits, axis=1)
    low, high = float(np.minimum.reduce(logits, axis=None)), float(np.maximum.reduce(row_maxima_B))
    is_finite = math.isfinite(low) and math.isfinite(high)
    logits_mean, logits_std = map(finite, mean_and_std(logits)) if is_finite else (None, None)
    return OutputSignals(
        logits_mean=logits_mean,
        logits_std=logits_std,
        logits_min=finite(low),
        logits_max=finite(high),
        row_sum_mean=finite(mean(row_sums_B)) if is_finite else None,
        looks_like_probabilities=low >= 0.0
        and high <= 1.0 + _SUM_TOLERANCE
        and bool((np.abs(row_sums_B - 1.0) <= _SUM_TOLERANCE).all()),
        top_class_share_pct=100 * int(np.bincount(logits.argmax(axis=1)).max()) / len(logits) if is_finite else None,
        confidence_mean_pct=_mean_confidence_pct(logits, row_maxima_B) if is_finite else None,
    )


def _mean_confidence_pct(logits_BC: np.ndarray, row_maxima_B: np.ndarray) -> float:
    """Mean of the largest softmax probability: 1 / sum(exp(logit - largest logit))."""
    exponents_BC = logits_BC - row_maxima_B[:, None]
    return 100 * float(mean(1.0 / np.add.reduce(np.exp(exponents_BC, out=exponents_BC), axis=1)))


def initial_loss_ratio(loss: float, num_classes: int) -> float | None:
    """The loss before the first update over ln C, that of a model which says nothing; healthy near 1.

    Args:
        loss: mean cross-entropy in nats.
        num_classes: C >= 2.
    """
    return ratio(loss, math.log(num_classes))


def recall_signals(recalls_C: Sequence[float], supports_C: Sequence[int]) -> dict:
    """How evenly the classes are recognised.

    Args:
        recalls_C: fractions in [0, 1].
        supports_C: samples per class; classes without any are left out of what is said about all.
    Returns:
        ``recall_min``, ``recall_median``, ``recall_min_class`` (an index), ``num_zero_recall_classes``, and
        ``recall_per_class`` (None for a class without samples; None as a whole above 100 classes).
    """
    known = [(recall, index) for index, (recall, support) in enumerate(zip(recalls_C, supports_C, strict=True))
             if support > 0]  # fmt: skip
    lowest = min(known, default=(None, None))
    return {
        "recall_min": lowest[0],
        "recall_min_class": lowest[1],
        "recall_median": median(recall for recall, _ in known) if known else None,
        "num_zero_recall_classes": sum(recall == 0.0 for recall, _ in known),
        "recall_per_class": [recall if support > 0 else None
                             for recall, support in zip(recalls_C, supports_C, strict=True)]
        if len(recalls_C) <= _LISTED_CLASSES else None,
    }  # fmt: skip
