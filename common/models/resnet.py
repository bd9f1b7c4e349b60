"""``resnet18/34/50`` with torchvision's parameter names, so that weights made for those load here.

Source: He et al. 2016, arXiv:1512.03385; in the bottleneck the stride is on the 3 x 3 convolution, as in torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from common.choices import unknown_name
from common.exits import UsageError
from common.models.layers import SpatialMean, require_image, widths

# Below this many pixels a side, ImageNet's stem (which divides by 4 at once) leaves too little of the image.
SMALL_INPUT_SIDE = 64
STEM_MIN_SIDE = {"imagenet": 32, "small": 8}
DEFAULT_WIDTHS = (64, 128, 256, 512)


def build_resnet18(
    *,
    input_shape: Sequence[int],
    num_classes: int,
    dropout: float = 0.0,
    hidden_dims: Sequence[int] | None = None,
    stem: str | None = None,
) -> nn.Module:
    """ResNet-18. Input (B, C, H, W), output logits (B, num_classes); dropout comes before ``fc``.

    Args:
        hidden_dims: channels of the four stages, and of the stem those of the first; 64, 128, 256 and 512 as in the
            paper where not given. A quarter of that trains on a laptop.
        stem: ``imagenet`` (7 x 7 convolution of stride 2 and max pooling, torchvision's) or ``small`` (3 x 3 of
            stride 1, no pooling, as is usual on CIFAR). By default ``small`` where a side is below 64 pixels. The
            parameter names are the same; only the shape of ``conv1.weight`` differs.
    Raises:
        UsageError: not an image, too small for the stem, or no such stem.
    """
    stem, channels = _checked_stem("resnet18", input_shape, stem)
    return ResNet(BasicBlock, (2, 2, 2, 2), stage_widths("resnet18", hidden_dims), stem, channels, num_classes, dropout)


def build_resnet34(
    *,
    input_shape: Sequence[int],
    num_classes: int,
    dropout: float = 0.0,
    hidden_dims: Sequence[int] | None = None,
    stem: str | None = None,
) -> nn.Module:
    """ResNet-34, otherwise as ``build_resnet18``."""
    stem, channels = _checked_stem("resnet34", input_shape, stem)
    return ResNet(BasicBlock, (3, 4, 6, 3), stage_widths("resnet34", hidden_dims), stem, channels, num_classes, dropout)


def build_resnet50(
    *,
    input_shape: Sequence[int],
    num_classes: int,
    dropout: float = 0.0,
    hidden_dims: Sequence[int] | None = None,
    stem: str | None = None,
) -> nn.Module:
    """ResNet-50, otherwise as ``build_resnet18``."""
    stem, channels = _checked_stem("resnet50", input_shape, stem)
    return ResNet(Bottleneck, (3, 4, 6, 3), stage_widths("resnet50", hidden_dims), stem, channels, num_classes, dropout)


class ResNet(nn.Module):
    """The network of the paper: stem, four stages of residual blocks, mean over the map, ``fc``."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks_per_stage: Sequence[int],
        widths: Sequence[int],
        stem: str,
        channels: int,
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(channels, widths[0], kernel_size=7, stride=2, padding=3, bias=False)
            # These windows overlap, but the CUDA backward gathers over them, without atomic additions whose order
            # would vary (ATen's DilatedMaxPool2d.cu).
            self.maxpool: nn.Module = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        else:
            self.conv1 = nn.Conv2d(channels, widths[0], kernel_size=3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        in_channels = widths[0]
        for number, (depth, stage_channels) in enumerate(zip(blocks_per_stage, widths, strict=True), 1):
            stride = 1 if number == 1 else 2
            self.add_module(f"layer{number}", _stage(block, in_channels, stage_channels, depth, stride))
            in_channels = stage_channels * block.expansion
        self.avgpool = SpatialMean()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels, num_classes)
        self._initialise()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x_BCHW))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.dropout(self.avgpool(x)))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + shortcut)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut; the output is four times as wide as the middle."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + shortcut)


def _stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, channels: int, depth: int, stride: int
) -> nn.Sequential:
    out_channels = channels * block.expansion
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )
    first = block(in_channels, channels, stride, downsample)
    return nn.Sequential(first, *(block(out_channels, channels, 1, None) for _ in range(depth - 1)))


def stage_widths(architecture: str, hidden_dims: Sequence[int] | None) -> Sequence[int]:
    """Channels of the four stages.

    Raises:
        UsageError: ``hidden_dims`` are not four.
    """
    chosen = widths(hidden_dims, DEFAULT_WIDTHS)
    if len(chosen) != len(DEFAULT_WIDTHS):
        raise UsageError(f"{architecture} has four stages, so give four widths, not {len(chosen)}",
                         field="model.hidden_dims")  # fmt: skip
    return chosen


def _checked_stem(architecture: str, input_shape: Sequence[int], stem: str | None) -> tuple[str, int]:
    if stem is not None and stem not in STEM_MIN_SIDE:
        raise unknown_name("stem", stem, STEM_MIN_SIDE, field="model.architecture_args")
    if stem is None:
        stem = "small" if min(input_shape[-2:]) < SMALL_INPUT_SIDE else "imagenet"
    channels, _, _ = require_image(architecture, input_shape, STEM_MIN_SIDE[stem])
    return stem, channels
