"""Measuring a model on a split, without leaving a trace in the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.classification_metrics import ClassificationMetrics, classification_metrics
from common.data import BatchSource
from common.seeding import preserve_rng


@dataclass(frozen=True)
class Evaluation:
    """What a model says about a split.

    ``loss`` is the mean cross-entropy in nats, without smoothing or class weights, so that it can be compared across
    configurations and with ln C. ``logits_BC`` is float32, ``labels_B`` int64, both in the split's order.
    """

    loss: float
    labels_B: np.ndarray
    logits_BC: np.ndarray
    metrics: ClassificationMetrics

    @property
    def predictions_B(self) -> np.ndarray:
        return self.logits_BC.argmax(axis=1)


def evaluate(
    model: nn.Module,
    source: BatchSource,
    index_batches: list[Tensor],
    *,
    num_classes: int,
    autocast: Callable,
    check_stop: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Run ``model`` in eval mode over the given samples. Its mode and every random stream are as before afterwards.

    Args:
        autocast: returns the precision context to predict under.
        check_stop: called after every batch; may raise to end early.
    """
    was_training = model.training
    model.eval()
    all_logits, all_labels = [], []
    try:
        with preserve_rng(), torch.inference_mode():
            for batch in source.batches(index_batches):
                with autocast():
                    logits_BC = model(batch.inputs)
                all_logits.append(logits_BC.float())
                all_labels.append(batch.labels)
                check_stop()
            return _summary(torch.cat(all_logits), torch.cat(all_labels), num_classes)
    finally:
        model.train(was_training)


def _summary(logits_BC: Tensor, labels_B: Tensor, num_classes: int) -> Evaluation:
    # Summed in float64: the mean then depends on neither the batch size nor the order of large and small terms.
    losses_B = functional.cross_entropy(logits_BC, labels_B, reduction="none")
    logits, labels = logits_BC.cpu().numpy(), labels_B.cpu().numpy()
    return Evaluation(
        loss=float(losses_B.double().mean()),
        labels_B=labels,
        logits_BC=logits,
        metrics=classification_metrics(labels, logits.argmax(axis=1), num_classes),
    )
