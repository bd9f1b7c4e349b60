"""ResNets are torchvision's: names, sizes, and what they compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from common.exits import UsageError
from common.models import build_model, count_parameters

# name: convolutions per block, blocks per stage, width of a block's output over its middle
LAYOUTS = {"resnet18": (2, (2, 2, 2, 2), 1), "resnet34": (2, (3, 4, 6, 3), 1), "resnet50": (3, (3, 4, 6, 3), 4)}
NUM_PARAMETERS = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032}
NUM_KEYS = {"resnet18": 122, "resnet34": 218, "resnet50": 320}


def torchvision_keys(architecture: str) -> list[str]:
    convolutions, depths, expansion = LAYOUTS[architecture]

    def pair(conv: str, norm: str) -> list[str]:
        norm_parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return [f"{conv}.weight", *(f"{norm}.{part}" for part in norm_parts)]

    keys = pair("conv1", "bn1")
    for stage, depth in enumerate(depths, 1):
        for index in range(depth):
            prefix = f"layer{stage}.{index}"
            for number in range(1, convolutions + 1):
                keys += pair(f"{prefix}.conv{number}", f"{prefix}.bn{number}")
            if index == 0 and (stage > 1 or expansion > 1):
                keys += pair(f"{prefix}.downsample.0", f"{prefix}.downsample.1")
    return [*keys, "fc.weight", "fc.bias"]


def reference_forward(state: dict[str, torch.Tensor], architecture: str, x: torch.Tensor) -> torch.Tensor:
    """A ResNet in eval mode, written with functions over a state dict."""
    convolutions, depths, _ = LAYOUTS[architecture]

    def conv_norm(x, conv, norm, stride):
        weight = state[f"{conv}.weight"]
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        parts = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *parts)

    x = functional.max_pool2d(conv_norm(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
    for stage, depth in enumerate(depths, 1):
        for index in range(depth):
            prefix, out = f"layer{stage}.{index}", x
            stage_stride = 2 if stage > 1 and index == 0 else 1
            strided = 1 if convolutions == 2 else 2
            for number in range(1, convolutions + 1):
                stride = stage_stride if number == strided else 1
                out = conv_norm(out, f"{prefix}.conv{number}", f"{prefix}.bn{number}", stride)
                out = out.relu() if number < convolutions else out
            if f"{prefix}.downsample.0.weight" in state:
                x = conv_norm(x, f"{prefix}.downsample.0", f"{prefix}.downsample.1", stage_stride)
            x = (out + x).relu()
    return functional.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("architecture", LAYOUTS)
def test_names_and_sizes_are_torchvisions(architecture):
    model = build_model(architecture, input_shape=(3, 224, 224), num_classes=1000, dropout=0.2)
    assert count_parameters(model) == NUM_PARAMETERS[architecture]
    assert list(model.state_dict()) == torchvision_keys(architecture)
    assert len(model.state_dict()) == NUM_KEYS[architecture]


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_they_compute_what_the_paper_says(architecture):
    torch.manual_seed(0)
    model = build_model(architecture, input_shape=(3, 64, 64), num_classes=10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference_forward(model.state_dict(), architecture, images))


def test_small_images_get_a_stem_that_keeps_them():
    small = build_model("resnet18", input_shape=(3, 63, 200), num_classes=10)
    large = build_model("resnet18", input_shape=(3, 64, 64), num_classes=10)
    assert small.conv1.weight.shape == (64, 3, 3, 3)
    assert large.conv1.weight.shape == (64, 3, 7, 7)
    assert list(small.state_dict()) == list(large.state_dict())
    features = nn.Sequential(small.conv1, small.bn1, small.maxpool)(torch.zeros(1, 3, 32, 32))
    assert features.shape == (1, 64, 32, 32)


def test_the_stem_can_be_chosen():
    def build(side: int, stem: str) -> nn.Module:
        arguments = {"stem": stem}
        return build_model("resnet18", input_shape=(3, side, side), num_classes=10, architecture_args=arguments)

    assert build(64, "small").conv1.kernel_size == (3, 3)
    assert build(32, "imagenet").conv1.kernel_size == (7, 7)
    with pytest.raises(UsageError, match="at least 32 x 32 pixels, and these are 31 x 31"):
        build(31, "imagenet")
    with pytest.raises(UsageError, match=r"unknown stem `imagnet`; did you mean `imagenet`\?"):
        build(64, "imagnet")
