"""``simple_mlp``: fully connected layers, for tables and for images seen as one row of pixels."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from common.models.layers import LayerStack, make_activation, widths

DEFAULT_HIDDEN_DIMS = (128, 64)


def build_mlp(
    *,
    input_shape: Sequence[int],
    num_classes: int,
    dropout: float = 0.0,
    hidden_dims: Sequence[int] | None = None,
    activation: str = "relu",
) -> nn.Module:
    """Linear layers of the given widths with an activation and dropout after each, and a linear classifier.

    Input (B, *input_shape), output logits (B, num_classes).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    features = math.prod(input_shape)
    for number, width in enumerate(widths(hidden_dims, DEFAULT_HIDDEN_DIMS), 1):
        layers[f"hidden{number}"] = nn.Linear(features, width)
        layers[f"activation{number}"] = make_activation(activation)
        layers[f"dropout{number}"] = nn.Dropout(dropout)
        features = width
    layers["head"] = nn.Linear(features, num_classes)
    return LayerStack(layers)
