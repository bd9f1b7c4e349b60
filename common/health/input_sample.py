"""A few of a split's samples, as a model is fed them, to measure on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from common.data import Dataset, Normalizer, make_batches
from common.data.counter_random import derive_key, hash_indices, permutation

_KEY = derive_key("samples to measure on")
_PROJECTION_KEY = derive_key("random projection")
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class InputSample:
    """``indices`` int64 (n,), ascending; ``inputs`` float32 (n, *input_shape), normalised; ``scaled`` the same before
    normalisation: images of bytes on the scale 0 to 1, others as they are."""

    indices: Tensor
    inputs: Tensor
    scaled: Tensor
    labels: Tensor


def chosen_indices(num_samples: int, most: int) -> Tensor:
    """``most`` sample numbers at random, or all; ascending. A function of the arguments alone."""
    if num_samples <= most:
        return torch.arange(num_samples)
    return permutation(num_samples, _KEY)[:most].sort().values


def draw_sample(dataset: Dataset, split_name: str, most: int) -> InputSample:
    """At most ``most`` samples of a split, from memory or decoded from disk.

    Raises:
        InputFileError: an image can no longer be read.
    """
    split, shape = dataset.splits[split_name], dataset.input_shape
    indices = chosen_indices(split.num_samples, most)
    identity = Normalizer([0.0] * shape[0], [1.0] * shape[0], num_dims=len(shape))
    with make_batches(split, "cpu", normalizer=identity) as source:
        scaled = torch.cat([batch.inputs for batch in source.batches(indices.split(_ROWS_AT_ONCE))])
    return InputSample(indices, dataset.normalizer().normalize_(scaled.clone()), scaled, split.labels[indices])


class Projection:
    """Inputs to at most ``most`` numbers each: where they are more, sums of every ``most``-th one with random signs.

    Distances stay about the same, at the cost of one look at each number.
    Source: Weinberger et al. 2009, "Feature hashing for large scale multitask learning", arXiv:0902.2206.
    """

    def __init__(self, num_features: int, most: int) -> None:
        self._most = most
        self._signs_F: Tensor | None = None
        if num_features > most:
            bits_F = hash_indices(torch.arange(num_features), _PROJECTION_KEY) & 1
            self._signs_F = bits_F.float() * 2 - 1

    def __call__(self, inputs: Tensor) -> Tensor:
        """float32 (n, ...) to (n, K) in a new tensor; what is not finite counts as 0."""
        flat = inputs.flatten(1).nan_to_num(0.0, 0.0, 0.0)
        if self._signs_F is None:
            return flat
        signed = functional.pad(flat.mul_(self._signs_F), (0, -flat.shape[1] % self._most))
        return signed.reshape(len(flat), -1, self._most).sum(dim=1)

    def of_rows(self, raw: Tensor, indices: Tensor, normalizer: Normalizer) -> Tensor:
        """Of the named rows of raw samples held in memory, (N, ...), a few at a time."""
        return torch.cat([self(normalizer(raw[rows])) for rows in indices.split(_ROWS_AT_ONCE)])
