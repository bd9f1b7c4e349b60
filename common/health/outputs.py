"""What a model's outputs say: whether they are logits at all, how large, how varied, and how each class fares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

import torch
from torch import Tensor

from common.health.numbers import finite, ratio

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
        return asdict(self)


def output_signals(logits_BC: Tensor) -> OutputSignals:
    """Signals of ``logits_BC``, any floating type, B >= 1."""
    logits_BC = logits_BC.detach().float()
    row_sums_B = logits_BC.sum(dim=1)
    counts_C = torch.bincount(logits_BC.argmax(dim=1), minlength=logits_BC.shape[1])
    low, high = logits_BC.aminmax()
    mean, std, low, high, row_sum, off_one, top, confidence = torch.stack(
        [
            logits_BC.mean(),
            logits_BC.std(correction=0),
            low,
            high,
            row_sums_B.mean(),
            (row_sums_B - 1).abs().max(),
            counts_C.max().float() / len(logits_BC),
            logits_BC.softmax(dim=1).amax(dim=1).mean(),
        ]
    ).tolist()  # fmt: skip
    is_finite = math.isfinite(mean)  # the largest of NaNs would count as a prediction
    return OutputSignals(
        logits_mean=finite(mean),
        logits_std=finite(std),
        logits_min=finite(low),
        logits_max=finite(high),
        row_sum_mean=finite(row_sum),
        looks_like_probabilities=low >= 0 and high <= 1 + _SUM_TOLERANCE and off_one <= _SUM_TOLERANCE,
        top_class_share_pct=100 * top if is_finite else None,
        confidence_mean_pct=finite(100 * confidence),
    )


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
