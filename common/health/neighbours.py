"""How near the samples of a split are to the training samples, and whether neighbours have the same label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.data import Dataset
from common.health.baselines import agreement_pct
from common.health.input_sample import InputSample, Projection, chosen_indices
from common.health.numbers import column_stds

_NUM_QUERIES = 256
_MAX_CANDIDATES = 50_000
_NUM_FEATURES = 64
_QUERIES_AT_ONCE = 128
# Two samples are nearly equal if their distance is within both: this share of the root mean square distance from the
# mean (a pixel more or less, another compression), and this share of what most samples keep from their nearest.
_SHARE_OF_SPREAD = 0.1
_SHARE_OF_USUAL_DISTANCE = 0.25
_USUAL_QUANTILE = 0.75


@dataclass(frozen=True)
class NeighbourSignals:
    """``num_near`` of ``num_compared`` samples are nearly or exactly equal to a training sample (another one, for the
    training split itself); ``agreement_pct`` of them have the label of the nearest."""

    num_compared: int
    num_near: int
    agreement_pct: float


class TrainingNeighbours:
    """The training samples to be near to: those in memory (at most 50,000), or those that were decoded.

    The nearest is found by random projections to 64 numbers; whether it is near is told from all of them.
    """

    def __init__(self, dataset: Dataset, sample: InputSample) -> None:
        self._split, self._sample, self._normalizer = dataset.splits["train"], sample, dataset.normalizer()
        self._project = Projection(sample.inputs[0].numel(), _NUM_FEATURES)
        self._spread = float(column_stds(_finite_rows(sample.inputs)).norm())
        if self._split.is_streamed:
            self._indices, self._features_NK = sample.indices, self._project(sample.inputs)
        else:
            self._indices = chosen_indices(self._split.num_samples, _MAX_CANDIDATES)
            self._features_NK = self._project.of_rows(self._split.inputs, self._indices, self._normalizer)
        # Small differences of large squares would be lost in rounding.
        self._centre_K = self._features_NK.mean(dim=0)
        self._features_NK -= self._centre_K

    def compare(self, sample: InputSample, *, is_train: bool) -> NeighbourSignals:
        """Look for the nearest training sample of at most 256 of ``sample``."""
        chosen = chosen_indices(len(sample.indices), _NUM_QUERIES)
        queries_M = sample.inputs[chosen]
        # The training samples looked at are among the candidates, which are as many or more in the same order.
        itself_M = torch.searchsorted(self._indices, sample.indices[chosen]) if is_train else None
        nearest_M = _nearest(self._project(queries_M) - self._centre_K, self._features_NK, itself_M)
        distances_M = (_finite_rows(queries_M) - _finite_rows(self._inputs(nearest_M))).norm(dim=1)
        limit = min(
            _SHARE_OF_SPREAD * self._spread,
            _SHARE_OF_USUAL_DISTANCE * _quantile(distances_M, _USUAL_QUANTILE),
        )
        neighbour_labels_M = self._split.labels[self._indices[nearest_M]]
        return NeighbourSignals(
            num_compared=len(chosen),
            num_near=int((distances_M <= limit).sum()),
            agreement_pct=agreement_pct(neighbour_labels_M, sample.labels[chosen]),
        )

    def _inputs(self, candidates_M: Tensor) -> Tensor:
        if self._split.is_streamed:
            return self._sample.inputs[candidates_M]
        return self._normalizer(self._split.inputs[self._indices[candidates_M]])


def _finite_rows(inputs: Tensor) -> Tensor:
    return inputs.flatten(1).nan_to_num(0.0, 0.0, 0.0)


def _quantile(values_M: Tensor, share: float) -> float:
    """As ``values_M.quantile(share)``, several times faster."""
    ordered, place = values_M.sort().values.tolist(), share * (len(values_M) - 1)
    below = int(place)
    return ordered[below] + (place - below) * (ordered[min(below + 1, len(ordered) - 1)] - ordered[below])


def _nearest(queries_MK: Tensor, candidates_NK: Tensor, excluded_M: Tensor | None) -> Tensor:
    """The number of the candidate nearest to each query, int64 (M,), other than the excluded one."""
    squares_N = candidates_NK.square().sum(dim=1)
    found = []
    for rows in torch.arange(len(queries_MK)).split(_QUERIES_AT_ONCE):
        # Without the query's own square, which is the same for all candidates.
        distances_MN = torch.addmm(squares_N, queries_MK[rows], candidates_NK.T, alpha=-2)
        if excluded_M is not None:
            distances_MN.scatter_(1, excluded_M[rows, None], torch.inf)
        # NumPy's argmin is many times faster than PyTorch's on the CPU.
        found.append(torch.from_numpy(distances_MN.numpy().argmin(axis=1)))
    return torch.cat(found)
