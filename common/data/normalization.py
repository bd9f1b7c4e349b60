"""From raw inputs to what a model is fed, on the device; and the numbers for it, from the training split alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_PIXEL_MAX = 255
_ROWS_AT_ONCE = 1024


class Normalizer:
    """Raw inputs (B, C, H, W) or (B, F) to float32 with mean 0 and standard deviation 1 on the training split.

    uint8 is first scaled to 0..1; float32 is taken as it is. The one place where this is done, for training,
    evaluation and inference alike.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], *, num_dims: int, device: torch.device | str = "cpu"
    ) -> None:
        """``num_dims`` is that of one sample: 3 for images, 1 for table rows."""
        self.num_dims = num_dims
        # Two with the same key do the same.
        self.key = (num_dims, tuple(mean), tuple(std))
        shape = (len(mean),) + (1,) * (num_dims - 1)
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device).reshape(shape)
        self._std = torch.tensor(std, dtype=torch.float32, device=device).reshape(shape)

    def __call__(self, raw: Tensor) -> Tensor:
        """float32 in a new tensor; ``raw`` is left as it is."""
        scaled = raw.to(torch.float32, copy=True)
        if raw.dtype == torch.uint8:
            scaled.div_(_PIXEL_MAX)
        return self.normalize_(scaled)

    def normalize_(self, scaled: Tensor) -> Tensor:
        """In place, from the scale 0..1 (images) or the column's unit (tables)."""
        return scaled.sub_(self._mean).div_(self._std)

    def denormalize(self, normalized: Tensor) -> Tensor:
        """Back to the scale 0..1 or the column's unit, in a new tensor."""
        return torch.addcmul(self._mean, normalized, self._std)


def pixel_sums(images: np.ndarray) -> np.ndarray:
    """Sum and sum of squares of every image and channel: uint8 (N, C, H, W) to int64 (N, C, 2).

    Whole numbers, so that statistics made of them are exact, whatever the order they are added in.
    """
    sums = np.empty((*images.shape[:2], 2), dtype=np.int64)
    flat = images.reshape(*images.shape[:2], -1)
    for start in range(0, len(flat), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        sums[rows, :, 0] = flat[rows].sum(axis=2, dtype=np.int64)
        sums[rows, :, 1] = np.square(flat[rows], dtype=np.uint32).sum(axis=2, dtype=np.int64)
    return sums


def statistics_of_pixels(sums: np.ndarray, pixels_per_channel: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel on the scale 0..1, from ``pixel_sums``. A constant channel has std 1."""
    mean, std = [], []
    count = len(sums) * pixels_per_channel
    # In Python's whole numbers, which do not overflow: int64 would, for more than a terabyte of pixels.
    for total, squares in sums.sum(axis=0).tolist():
        mean.append(total / (count * _PIXEL_MAX))
        variance = (count * squares - total * total) / (count * count)
        std.append(variance**0.5 / _PIXEL_MAX or 1.0)
    return mean, std


def statistics_of_values(values: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel or column of float32 (N, C, H, W) or (N, F). Constant ones have std 1."""
    axes = (0, *range(2, values.ndim))
    mean = values.mean(axis=axes, dtype=np.float64)
    std = values.std(axis=axes, dtype=np.float64)
    # The rounding of a mean leaves a constant column with a tiny deviation that would be blown up to 1.
    std[std <= np.abs(mean) * 1e-7] = 1.0
    return mean.tolist(), std.tolist()
