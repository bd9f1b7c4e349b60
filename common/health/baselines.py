"""What can be predicted with next to nothing: the yardsticks for a network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from common.health.numbers import column_stds

# Of the mean variance of a feature: enough for as many features as samples, too little to matter for many samples.
_RIDGE = 0.1


class LinearClassifier:
    """Ridge regression on the labels' indicators, over standardised features, in closed form.

    Source: Hastie, Tibshirani and Friedman 2009, "The Elements of Statistical Learning", 4.2 and 3.4.
    """

    def __init__(self, features_NK: Tensor, labels_N: Tensor, num_classes: int) -> None:
        self._mean_K = features_NK.mean(dim=0)
        std_K = column_stds(features_NK)
        # A feature that hardly varied in training says nothing, and would say anything when it varies later.
        self._scale_K = torch.where(std_K > 1e-4 * std_K.amax(), 1 / std_K, 0.0)
        x_NK = self._standardised(features_NK)
        targets_NC = functional.one_hot(labels_N, num_classes).to(x_NK.dtype)
        self._offset_C = targets_NC.mean(dim=0)
        gram_KK = (x_NK.T @ x_NK / len(x_NK)).double()
        gram_KK.diagonal().add_(_RIDGE)
        moments_KC = (x_NK.T @ (targets_NC - self._offset_C) / len(x_NK)).double()
        self._weights_KC = torch.cholesky_solve(moments_KC, torch.linalg.cholesky(gram_KK)).float()

    def accuracy_pct(self, features_NK: Tensor, labels_N: Tensor) -> float:
        """Percent of the samples that are given their label."""
        scores_NC = self._standardised(features_NK) @ self._weights_KC + self._offset_C
        return agreement_pct(scores_NC.argmax(dim=1), labels_N)

    def _standardised(self, features_NK: Tensor) -> Tensor:
        return ((features_NK - self._mean_K) * self._scale_K).nan_to_num(0.0, 0.0, 0.0)


def agreement_pct(predicted_N: Tensor, labels_N: Tensor) -> float:
    """Percent of equal entries."""
    return 100 * int((predicted_N == labels_N).sum()) / len(labels_N)
