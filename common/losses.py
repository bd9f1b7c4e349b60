"""The training loss: cross-entropy with label smoothing, class weights and mixed labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.exits import UsageError

_WEIGHTS_FIELD = "training.class_weights"


class ClassificationLoss(nn.Module):
    """Cross-entropy of logits in nats, computed in fp32 whatever precision they come in.

    With class weights w, the loss of a sample of class y is w_y times as large, and the mean divides by the number of
    samples. (PyTorch divides by the sum of the w_y of the batch, so that a rare class weighs less in the very batches
    it is in, and micro-batches or processes add up to another gradient than the whole batch.)

    Label smoothing e: the target is 1 - e + e / C for the label and e / C elsewhere (Szegedy et al. 2016,
    arXiv:1512.00567). Mixed samples (Zhang et al. 2018, arXiv:1710.09412): the loss is lambda times that for
    ``labels_B`` plus 1 - lambda times that for ``mix_labels_B``.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        # A buffer, so that .to(device) takes it along; the config says it, so no checkpoint has to.
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(
        self,
        logits_BC: Tensor,
        labels_B: Tensor,
        mix_labels_B: Tensor | None = None,
        mix_lambda_B: Tensor | None = None,
    ) -> Tensor:
        """The mean over the batch, a scalar."""
        return self.per_sample(logits_BC, labels_B, mix_labels_B, mix_lambda_B).mean()

    def per_sample(
        self,
        logits_BC: Tensor,
        labels_B: Tensor,
        mix_labels_B: Tensor | None = None,
        mix_lambda_B: Tensor | None = None,
    ) -> Tensor:
        """The (weighted) loss of each sample, float32 (B,).

        Args:
            logits_BC: raw scores, any floating type.
            labels_B: class index, int64, in [0, C).
            mix_labels_B: the second label of mixed samples, or None.
            mix_lambda_B: share of the first label, in [0, 1], (B,) or a scalar tensor; given with ``mix_labels_B``.
        """
        logits_BC = logits_BC.float()
        losses_B = self._cross_entropy(logits_BC, labels_B)
        if mix_labels_B is None:
            return losses_B
        return _mix(losses_B, self._cross_entropy(logits_BC, mix_labels_B), mix_lambda_B)

    def _cross_entropy(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        return functional.cross_entropy(
            logits_BC, labels_B, self.class_weights, reduction="none", label_smoothing=self.label_smoothing
        )


def build_loss(
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | str | None = None,
    *,
    train_label_counts: Sequence[int] | None = None,
) -> ClassificationLoss:
    """The loss that a configuration asks for.

    Args:
        label_smoothing: in [0, 1).
        class_weights: None; one positive weight per class, of which only the ratios matter: they are scaled to a mean
            of 1 over the training samples, so that the learning rate keeps its meaning; or ``balanced``: inverse to
            the class's share, so that every class weighs as much as any other (King and Zeng 2001).
        train_label_counts: training samples per class, needed with class weights.
    Raises:
        UsageError: weights of the wrong number or not positive, or a class without a training sample to balance.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise UsageError(f"must be in [0, 1), not {label_smoothing}", field="training.label_smoothing")
    if class_weights is None:
        return ClassificationLoss(label_smoothing)
    if train_label_counts is None:
        raise ValueError("class weights need train_label_counts")
    counts_C = torch.as_tensor(train_label_counts, dtype=torch.float64)
    if isinstance(class_weights, str):
        weights_C = _balanced_weights(class_weights, counts_C)
    else:
        weights_C = torch.tensor(class_weights, dtype=torch.float64)
    if not bool((weights_C.isfinite() & (weights_C > 0)).all()):
        raise UsageError("every weight must be a positive number", field=_WEIGHTS_FIELD)
    if len(weights_C) != len(counts_C):
        raise UsageError(f"there are {len(weights_C)} weights for {len(counts_C)} classes", field=_WEIGHTS_FIELD)
    mean_weight = (weights_C * counts_C).sum() / counts_C.sum()
    return ClassificationLoss(label_smoothing, (weights_C / mean_weight).float())


def _balanced_weights(kind: str, counts_C: Tensor) -> Tensor:
    if kind.lower() != "balanced":
        raise UsageError(f"`{kind}` is no way to weigh classes", field=_WEIGHTS_FIELD, hint="give a list or `balanced`")
    empty = (counts_C == 0).nonzero().flatten().tolist()
    if empty:
        raise UsageError(
            f"class {empty[0]} has no training sample, so no weight can balance it",
            field=_WEIGHTS_FIELD,
            hint="add samples of it, or give a list of weights",
        )
    return 1.0 / counts_C


def _mix(first_B: Tensor, second_B: Tensor, lambda_B: Tensor | None) -> Tensor:
    assert lambda_B is not None, "mixed labels come with their share"
    return lambda_B * first_B + (1.0 - lambda_B) * second_B
