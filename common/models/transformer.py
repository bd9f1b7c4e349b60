"""``small_transformer``: a pre-norm transformer encoder over image patches or over the columns of a table."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.exits import UsageError
from common.models.layers import make_activation, require_image, widths

# One entry per block: the hidden width of its MLP.
DEFAULT_HIDDEN_DIMS = (128, 128, 128, 128)
MIN_SIDE = 8


def build_transformer(
    *,
    input_shape: Sequence[int],
    num_classes: int,
    dropout: float = 0.0,
    hidden_dims: Sequence[int] | None = None,
    activation: str = "relu",
    width: int = 64,
    heads: int = 4,
    patch_size: int | None = None,
) -> nn.Module:
    """As many blocks as ``hidden_dims`` has entries, each entry being the hidden width of that block's MLP.

    Input (B, C, H, W) or (B, F), output logits (B, num_classes). Dropout acts on the tokens, the attention weights
    and both residual branches.

    Args:
        width: size of a token, a multiple of ``heads``.
        patch_size: side of a patch in pixels; by default 2 up to 16 pixels of image, 4 up to 64, else 16.
    Raises:
        UsageError: an image below 8 x 8 pixels, or arguments that do not fit together.
    """
    if width < 1 or heads < 1 or width % heads:
        raise UsageError(f"width must be a multiple of heads, not {width} and {heads}", field="model.architecture_args")
    tokens: nn.Module
    if len(input_shape) == 1:
        tokens = FeatureTokens(input_shape[0], width)
    else:
        channels, height, image_width = require_image("small_transformer", input_shape, MIN_SIDE)
        patch_size = default_patch_size(min(height, image_width)) if patch_size is None else patch_size
        tokens = PatchTokens(channels, height, image_width, patch_size, width)
    blocks = [
        Block(width, heads, hidden_width, dropout, activation)
        for hidden_width in widths(hidden_dims, DEFAULT_HIDDEN_DIMS)
    ]
    return Transformer(tokens, blocks, width, num_classes, dropout)


def default_patch_size(side: int) -> int:
    """Pixels per side of a patch for images whose shorter side has ``side`` pixels."""
    if side <= 16:
        return 2
    return 4 if side <= 64 else 16


class Transformer(nn.Module):
    """Tokens, encoder blocks, the mean over the tokens, a linear classifier.

    The mean takes the place of a class token: as good on small data and one token less (Beyer et al. 2022,
    arXiv:2205.01580).
    """

    def __init__(
        self, tokens: nn.Module, blocks: list[nn.Module], width: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x_BTD = self.blocks(self.dropout(self.tokens(x)))
        return self.head(self.norm(x_BTD).mean(dim=1))


class PatchTokens(nn.Module):
    """Image (B, C, H, W) to one token per patch, plus its learned position (Dosovitskiy et al. 2021, arXiv:2010.11929).

    A side that is no multiple of the patch size is padded with zeros at its end.
    """

    def __init__(self, channels: int, height: int, width: int, patch_size: int, token_width: int) -> None:
        super().__init__()
        if not 1 <= patch_size <= min(height, width):
            raise UsageError(
                f"patch_size must be between 1 and the image's shorter side {min(height, width)}, not {patch_size}",
                field="model.architecture_args",
            )
        self.padding = (0, -width % patch_size, 0, -height % patch_size)
        num_tokens = -(-height // patch_size) * -(-width // patch_size)
        self.projection = nn.Conv2d(channels, token_width, kernel_size=patch_size, stride=patch_size)
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, num_tokens, token_width), std=0.02))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if any(self.padding):
            x_BCHW = functional.pad(x_BCHW, self.padding)
        return self.projection(x_BCHW).flatten(2).transpose(1, 2) + self.positions


class FeatureTokens(nn.Module):
    """Table row (B, F) to one token per column: a learned direction times the value, plus the column's position.

    Source: the feature tokenizer of Gorishniy et al. 2021, arXiv:2106.11959.
    """

    def __init__(self, features: int, token_width: int) -> None:
        super().__init__()
        bound = token_width**-0.5
        self.directions = nn.Parameter(torch.empty(1, features, token_width).uniform_(-bound, bound))
        self.positions = nn.Parameter(torch.empty(1, features, token_width).uniform_(-bound, bound))

    def forward(self, x_BF: Tensor) -> Tensor:
        return x_BF.unsqueeze(-1) * self.directions + self.positions


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (pre-norm: Xiong et al. 2020, arXiv:2002.04745)."""

    def __init__(self, width: int, heads: int, hidden_width: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden_width),
            make_activation(activation),
            nn.Dropout(dropout),
            nn.Linear(hidden_width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.norm1(x_BTD))
        return x_BTD + self.mlp(self.norm2(x_BTD))


class Attention(nn.Module):
    """Multi-head self-attention over (B, T, D), written out.

    The fused kernels' backward is not deterministic on every GPU, and ONNX opset 13 has no operator for them; at some
    hundred tokens the plain product costs little.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(width, width)
        self.output_dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        batch, tokens, width = x_BTD.shape
        qkv = self.qkv(x_BTD).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights_BHTT = (query * self.scale @ key.transpose(-2, -1)).softmax(dim=-1)
        mixed = self.attention_dropout(weights_BHTT) @ value
        return self.output_dropout(self.projection(mixed.transpose(1, 2).reshape(batch, tokens, width)))
