"""Which architectures there are, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from common.models.cnn import build_cnn
from common.models.mlp import build_mlp
from common.models.resnet import build_resnet18, build_resnet34, build_resnet50
from common.models.transformer import build_transformer

# A builder takes keyword arguments: input_shape, num_classes, and as many as it can use of dropout, hidden_dims and
# activation, and arguments of its own. A new architecture is its file and one line here.
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "simple_mlp": build_mlp,
    "simple_cnn": build_cnn,
    "resnet18": build_resnet18,
    "resnet34": build_resnet34,
    "resnet50": build_resnet50,
    "small_transformer": build_transformer,
}
