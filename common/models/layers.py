"""What several architectures are built from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from common.choices import unknown_name
from common.exits import UsageError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}


class LayerStack(nn.Sequential):
    """Layers one after the other. ``Module.compile()`` compiles it; of a bare ``nn.Sequential`` it compiles nothing."""

    def forward(self, input: Tensor) -> Tensor:
        for layer in self:
            input = layer(input)
        return input


class SpatialMean(nn.Module):
    """Global average pooling, BCHW to BC: a plain mean, whose backward on CUDA is deterministic.

    (That of AdaptiveAvgPool2d raises under deterministic algorithms.)
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW.mean(dim=(2, 3))


def make_activation(name: str) -> nn.Module:
    """A new activation module by name, in any case.

    Raises:
        UsageError: no such activation.
    """
    if name.lower() not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS, field="model.activation")
    return ACTIVATIONS[name.lower()]()


def require_image(architecture: str, input_shape: Sequence[int], min_side: int) -> tuple[int, int, int]:
    """``input_shape`` as (channels, height, width).

    Raises:
        UsageError: the input is no image, or has a side below ``min_side`` pixels.
    """
    if len(input_shape) != 3:
        raise UsageError(
            f"{architecture} needs images, and the data has {input_shape[0]} features a sample",
            field="model.architecture",
            hint="use simple_mlp or small_transformer",
        )
    channels, height, width = input_shape
    if min(height, width) < min_side:
        raise UsageError(
            f"{architecture} needs images of at least {min_side} x {min_side} pixels, and these are {height} x {width}",
            field="model.architecture",
            hint="set data.image_size, or use simple_mlp",
        )
    return channels, height, width


def widths(hidden_dims: Sequence[int] | None, default: Sequence[int]) -> list[int]:
    """The widths to use: the given ones, else the default.

    Raises:
        UsageError: empty, or a width below 1.
    """
    chosen = list(default if hidden_dims is None else hidden_dims)
    if not chosen or min(chosen) < 1:
        raise UsageError(
            f"hidden_dims must be one width or more, each at least 1, not {chosen}", field="model.hidden_dims"
        )
    return chosen
