"""Random changes to training samples, a whole batch at a time, on the device where the batch is.

What happens to a sample is a function of (seed, epoch, sample index) alone: nothing is drawn from any random stream.
So it depends neither on who loaded the sample, nor on what else is in the batch, nor on an interruption. Mixup alone
looks at the batch: a sample's partner is its neighbour there, its weight again a function of those three.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from common.data import Normalizer
from common.data.counter_random import derive_key, uniforms
from common.exits import UsageError

_FIELD = "data_augmentation.transforms"
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


class ImageTransform(Protocol):
    """Changes images float32 (B, C, H, W) on the scale 0 to 1, given ``num_draws`` uniform numbers in [0, 1) each."""

    num_draws: ClassVar[int]

    def __call__(self, images_BCHW: Tensor, draws_BD: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class RandomCrop:
    """Shift by up to ``padding`` pixels each way; what comes in from outside is black."""

    padding: int = 4
    num_draws: ClassVar[int] = 2

    def __call__(self, images_BCHW: Tensor, draws_BD: Tensor) -> Tensor:
        offsets_B2 = (draws_BD * (2 * self.padding + 1)).floor().long()
        padded = functional.pad(images_BCHW, [self.padding] * 4)
        batch, channels, height, width = images_BCHW.shape
        rows_BH = offsets_B2[:, :1] + torch.arange(height, device=images_BCHW.device)
        columns_BW = offsets_B2[:, 1:] + torch.arange(width, device=images_BCHW.device)
        rows = rows_BH[:, None, :, None].expand(batch, channels, height, padded.shape[3])
        columns = columns_BW[:, None, None, :].expand(batch, channels, height, width)
        return padded.gather(2, rows).gather(3, columns)


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirror left to right with probability ``p``."""

    p: float = 0.5
    num_draws: ClassVar[int] = 1

    def __call__(self, images_BCHW: Tensor, draws_BD: Tensor) -> Tensor:
        flipped_B = draws_BD[:, 0] < self.p
        return torch.where(flipped_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)


@dataclass(frozen=True)
class Rotation:
    """Turn about the centre by up to ``degrees`` either way, bilinear; what comes in from outside is black."""

    degrees: float = 10.0
    num_draws: ClassVar[int] = 1

    def __call__(self, images_BCHW: Tensor, draws_BD: Tensor) -> Tensor:
        angles_B11 = ((2 * draws_BD[:, :1, None] - 1) * math.radians(self.degrees)).float()
        height, width = images_BCHW.shape[2:]
        # Pixel centres as distances from the middle of the image, in pixels.
        y_H1 = torch.arange(height, device=images_BCHW.device)[:, None] - (height - 1) / 2
        x_W = torch.arange(width, device=images_BCHW.device) - (width - 1) / 2
        cos, sin = angles_B11.cos(), angles_B11.sin()
        grid_BHW2 = torch.stack(
            [(cos * x_W - sin * y_H1) * (2 / width), (sin * x_W + cos * y_H1) * (2 / height)], dim=3
        )
        return functional.grid_sample(images_BCHW, grid_BHW2, "bilinear", "zeros", align_corners=False)


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast and saturation by factors uniform in 1 ± the given shares, in this order."""

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    num_draws: ClassVar[int] = 3

    def __call__(self, images_BCHW: Tensor, draws_BD: Tensor) -> Tensor:
        shares = torch.tensor([self.brightness, self.contrast, self.saturation], device=draws_BD.device)
        factors = (1 + (2 * draws_BD - 1) * shares).float()[:, :, None, None, None]
        brightness, contrast, saturation = factors.unbind(1)
        images = (images_BCHW * brightness).clamp_(0, 1)
        # In float64, so that the sum's order, which depends on the batch, stays below what float32 shows.
        mean_B111 = _grey(images).mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float64).float()
        images = torch.lerp(mean_B111, images, contrast).clamp_(0, 1)
        if images.shape[1] == 3:
            images = torch.lerp(_grey(images).expand_as(images), images, saturation).clamp_(0, 1)
        return images


@dataclass(frozen=True)
class Cutout:
    """Blacken a square of ``size`` pixels whose centre is anywhere in the image (DeVries and Taylor 2017,
    arXiv:1708.04552): near the edge, part of it falls outside."""

    size: int = 8
    num_draws: ClassVar[int] = 2

    def __call__(self, images_BCHW: Tensor, draws_BD: Tensor) -> Tensor:
        height, width = images_BCHW.shape[2:]
        inside_BH = self._inside(draws_BD[:, :1], height)
        inside_BW = self._inside(draws_BD[:, 1:], width)
        return images_BCHW.masked_fill(inside_BH[:, None, :, None] & inside_BW[:, None, None, :], 0.0)

    def _inside(self, draws_B1: Tensor, side: int) -> Tensor:
        start_B1 = (draws_B1 * side).floor().long() - self.size // 2
        position = torch.arange(side, device=draws_B1.device)
        return (position >= start_B1) & (position < start_B1 + self.size)


class Mixup:
    """Weights for mixing pairs of samples and their labels (Zhang et al. 2018, arXiv:1710.09412).

    The weights are Beta(alpha, alpha), from uniform numbers by its inverse distribution function: a table, exact at
    its knots and linear between them.
    """

    num_draws: ClassVar[int] = 1
    _NUM_KNOTS = 4097

    def __init__(self, alpha: float = 0.2) -> None:
        if alpha <= 0:
            raise ValueError(f"alpha must be positive, not {alpha}")
        # The lower half; the upper one is its mirror image. In s = t ** power the density has no pole at 0.
        power = min(alpha, 1.0)
        s = np.linspace(0.0, 0.5**power, self._NUM_KNOTS)
        t = s ** (1 / power)
        density = t ** (alpha - power) * (1 - t) ** (alpha - 1)
        cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
        self._power = power
        self._s = torch.from_numpy(s)
        self._cumulative = torch.from_numpy(cumulative / cumulative[-1])

    def weights(self, u_B: Tensor) -> Tensor:
        """Mixing weights float32 (B,) in [0, 1], from uniform numbers."""
        probability_B = 1 - (2 * u_B - 1).abs()
        cumulative, s = self._cumulative.to(u_B.device), self._s.to(u_B.device)
        right_B = torch.searchsorted(cumulative, probability_B).clamp_(1, len(s) - 1)
        left_B = right_B - 1
        share_B = (probability_B - cumulative[left_B]) / (cumulative[right_B] - cumulative[left_B])
        t_B = torch.lerp(s[left_B], s[right_B], share_B) ** (1 / self._power)
        return torch.where(u_B < 0.5, t_B, 1 - t_B).float()


class Augmentation:
    """Image transforms in order, then mixup. Built by ``build_augmentation``."""

    def __init__(
        self,
        transforms: Sequence[ImageTransform],
        mixup: Mixup | None,
        *,
        seed: int,
        normalizer: Normalizer,
    ) -> None:
        self._transforms = transforms
        self._mixup = mixup
        self._seed = seed
        self._normalizer = normalizer
        self._streams_D = _streams([*transforms, *([mixup] if mixup else [])])

    def __call__(
        self, inputs: Tensor, labels_B: Tensor, indices_B: Tensor, epoch: int
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """A changed copy of a batch.

        Args:
            inputs: float32 (B, C, H, W) or (B, F), normalised.
            labels_B: int64 class indices.
            indices_B: int64 sample numbers in the split, on any device.
            epoch: from 1.

        Returns:
            inputs, ``labels_B``, and with mixup the partners' labels int64 (B,) and the weight of ``labels_B``,
            float32 (B,): the loss of a sample is ``weight * loss(labels) + (1 - weight) * loss(partner's labels)``.
        """
        key = derive_key("augmentation", self._seed, epoch)
        draws_BD = uniforms(indices_B, key, self._streams_D.to(indices_B.device))
        if self._transforms:
            inputs = self._transform_images(inputs, draws_BD.to(inputs.device, non_blocking=True))
        if self._mixup is None:
            return inputs, labels_B, None, None
        weights_B = self._mixup.weights(draws_BD[:, -1]).to(inputs.device, non_blocking=True)
        weights = weights_B.reshape(-1, *[1] * (inputs.dim() - 1))
        return torch.lerp(inputs.roll(1, 0), inputs, weights), labels_B, labels_B.roll(1, 0), weights_B

    def _transform_images(self, inputs: Tensor, draws_BD: Tensor) -> Tensor:
        images, start = self._normalizer.denormalize(inputs), 0
        for transform in self._transforms:
            stop = start + transform.num_draws
            images = transform(images, draws_BD[:, start:stop])
            start = stop
        return self._normalizer.normalize_(images)


TRANSFORMS: dict[str, type] = {
    "random_crop": RandomCrop,
    "horizontal_flip": HorizontalFlip,
    "rotation": Rotation,
    "color_jitter": ColorJitter,
    "cutout": Cutout,
    "mixup": Mixup,
}


def build_augmentation(transforms: Iterable[Any], *, seed: int, normalizer: Normalizer) -> Augmentation:
    """The augmentation made of ``transforms``, in this order; mixup, wherever it stands, comes last.

    Args:
        transforms: each a name, ``{name: {argument: value}}``, or an object whose ``model_dump()`` is one.
        seed: the run's.
        normalizer: the data set's, on the device of the batches, which come normalised.

    Raises:
        UsageError: an unknown name or argument, mixup named twice, or an image transform for a table.
    """
    chosen = [_build(*_name_and_arguments(entry)) for entry in transforms]
    image_transforms = [transform for transform in chosen if not isinstance(transform, Mixup)]
    mixups = [transform for transform in chosen if isinstance(transform, Mixup)]
    if len(mixups) > 1:
        raise UsageError("mixup is named twice", field=_FIELD)
    if image_transforms and normalizer.num_dims != 3:
        raise UsageError("the data is a table, for which there is mixup only", field=_FIELD)
    return Augmentation(image_transforms, mixups[0] if mixups else None, seed=seed, normalizer=normalizer)


def _name_and_arguments(entry: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    form = entry if isinstance(entry, Mapping) else entry.model_dump()
    ((name, arguments),) = form.items()
    return name, arguments or {}


def _build(name: str, arguments: Mapping[str, Any]) -> Any:
    kind = TRANSFORMS.get(name.lower())
    if kind is None:
        raise UsageError(f"unknown transform {name!r}", field=_FIELD, hint=f"one of {', '.join(TRANSFORMS)}")
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: {error}", field=_FIELD) from error


def _streams(transforms: Sequence[Any]) -> Tensor:
    """One number for each draw, made of what it is for: a transform more or less leaves the others' draws alone."""
    streams, seen = [], Counter()
    for transform in transforms:
        name = type(transform).__name__
        # Half of the 64 bits are plenty, and fit into int64 without regard to sign.
        streams += [derive_key(name, seen[name], draw) >> 32 for draw in range(transform.num_draws)]
        seen[name] += 1
    return torch.tensor(streams, dtype=torch.int64)


def _grey(images_BCHW: Tensor) -> Tensor:
    if images_BCHW.shape[1] != 3:
        return images_BCHW.mean(dim=1, keepdim=True)
    red, green, blue = images_BCHW.split(1, dim=1)
    return red * _LUMINANCE[0] + green * _LUMINANCE[1] + blue * _LUMINANCE[2]
