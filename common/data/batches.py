"""Feeding a model: batches of given samples, in a given order, ready on the device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.data import counter_random
from common.data.dataset import Split
from common.data.normalization import Normalizer

_SHARE_OF_DEVICE_MEMORY = 0.4
# Up to this size a split is normalised once and for all, as float32; beyond, batch by batch.
_MAX_NORMALIZED_BYTES = 256 * 2**20


class Batch(NamedTuple):
    """``indices`` int64 (B,) on the CPU say which samples of the split these are; ``inputs`` float32, normalised, and
    ``labels`` int64 (B,) are on the device."""

    indices: Tensor
    inputs: Tensor
    labels: Tensor


def epoch_order(num_samples: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch, int64 (num_samples,) on the CPU: a function of the arguments alone."""
    return counter_random.permutation(num_samples, counter_random.derive_key("order of an epoch", seed, epoch))


def split_into_batches(order: Tensor, batch_size: int, drop_last: bool = False) -> list[Tensor]:
    """``order`` in pieces of ``batch_size``; the last may be smaller, or is left out with ``drop_last``."""
    batches = list(order.split(batch_size)) if len(order) else []
    if drop_last and batches and len(batches[-1]) < batch_size:
        batches.pop()
    return batches


class BatchSource(ABC):
    """Delivers batches of one split. Used from one thread; ``close`` ends what it started, and may be called twice."""

    @abstractmethod
    def batches(self, index_batches: Sequence[Tensor]) -> Iterator[Batch]:
        """One batch for each int64 tensor of sample numbers, in this order. A batch not asked for costs nothing."""

    def close(self) -> None:  # noqa: B027  (most sources have nothing to end)
        """End what was started."""

    def __enter__(self) -> BatchSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class TensorBatches(BatchSource):
    """Batches cut out of tensors in memory: on the device where they fit, else on the CPU."""

    def __init__(self, split: Split, device: torch.device, *, normalizer: Normalizer, pin_memory: bool = False) -> None:
        assert split.inputs is not None
        resident = _fits(split.inputs.nbytes, device)
        normalized_bytes = 4 * split.inputs.numel()
        at_once = normalized_bytes <= _MAX_NORMALIZED_BYTES and _fits(normalized_bytes, device)
        if at_once:
            self._inputs = split.normalized_on(device, normalizer)
        else:
            self._inputs = split.inputs_on(device) if resident else split.inputs
        self._labels = split.labels.to(device)
        self._device = device
        self._resident = resident
        self._normalizer = None if at_once else normalizer
        self._pin_memory = pin_memory and not resident

    def batches(self, index_batches: Sequence[Tensor]) -> Iterator[Batch]:
        for indices, device_indices in zip(index_batches, _on_device(index_batches, self._device), strict=True):
            inputs = self._inputs.index_select(0, device_indices if self._resident else indices)
            if self._normalizer is not None:
                raw = inputs.pin_memory() if self._pin_memory else inputs
                inputs = self._normalizer(raw.to(self._device, non_blocking=True))
            yield Batch(indices, inputs, self._labels.index_select(0, device_indices))


def make_batches(
    split: Split,
    device: torch.device | str,
    *,
    normalizer: Normalizer,
    num_workers: int = 0,
    pin_memory: bool = False,
    persistent_workers: bool = False,
    prefetch_factor: int = 2,
) -> BatchSource:
    """The source of batches that suits a split. What it delivers depends on neither the kind nor the workers.

    Args:
        normalizer: the data set's, on ``device``.
        num_workers, persistent_workers, prefetch_factor: of the processes that decode images that stay on disk; with
            0 they are decoded in this one.
        pin_memory: page-locked memory for what is copied to a GPU.
    """
    device = torch.device(device)
    pin_memory = pin_memory and device.type == "cuda"
    if not split.is_streamed:
        return TensorBatches(split, device, normalizer=normalizer, pin_memory=pin_memory)
    from common.data.streaming import StreamedBatches

    return StreamedBatches(
        split,
        device,
        normalizer=normalizer,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=persistent_workers,
        prefetch_factor=prefetch_factor,
    )


def _fits(num_bytes: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return num_bytes <= _SHARE_OF_DEVICE_MEMORY * free_bytes


def _on_device(index_batches: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    if device.type == "cpu" or not index_batches:
        return index_batches
    # One copy for all of them: a copy per batch would be a wait per batch.
    return torch.cat(list(index_batches)).to(device).split([len(indices) for indices in index_batches])
