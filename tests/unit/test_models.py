"""Architectures by name: shapes, sizes, what dropout does, and what is said when something does not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.exits import Exit, UsageError
from common.models import ARCHITECTURES, build_model, count_parameters
from common.models.cnn import ActivationAndPooling, default_widths
from common.models.transformer import default_patch_size

IMAGE_SHAPES = [(1, 8, 8), (3, 9, 14), (1, 28, 28), (3, 33, 40), (3, 64, 64)]
TABLE_ARCHITECTURES = ["simple_mlp", "small_transformer"]
IMAGE_ONLY = sorted(set(ARCHITECTURES) - set(TABLE_ARCHITECTURES))


def logits_of(model: nn.Module, shape: tuple[int, ...], batch: int = 2) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.linspace(-1, 1, batch * torch.Size(shape).numel()).reshape(batch, *shape))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", IMAGE_SHAPES, ids=str)
def test_every_architecture_maps_every_image_size_to_logits(architecture, shape):
    model = build_model(architecture, input_shape=shape, num_classes=7).eval()
    logits_BC = logits_of(model, shape)
    assert logits_BC.shape == (2, 7)
    assert logits_BC.dtype == torch.float32
    assert logits_BC.isfinite().all()
    assert not torch.equal(logits_BC[0], logits_BC[1])


@pytest.mark.parametrize("architecture", TABLE_ARCHITECTURES)
def test_tables_are_taken_too(architecture):
    model = build_model(architecture, input_shape=(13,), num_classes=3)
    assert logits_of(model, (13,)).shape == (2, 3)


@pytest.mark.parametrize("architecture", IMAGE_ONLY)
def test_image_networks_refuse_tables(architecture):
    with pytest.raises(UsageError, match=f"{architecture} needs images, and the data has 13 features") as caught:
        build_model(architecture, input_shape=(13,), num_classes=3)
    assert caught.value.exit == Exit.USAGE
    assert caught.value.field == "model.architecture"


@pytest.mark.parametrize("architecture", [*IMAGE_ONLY, "small_transformer"])
def test_images_below_8_pixels_are_refused(architecture):
    with pytest.raises(UsageError, match=r"at least 8 x 8 pixels, and these are 8 x 7"):
        build_model(architecture, input_shape=(1, 8, 7), num_classes=3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_acts_in_training_only(architecture):
    def outputs(dropout: float, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        model = build_model(architecture, input_shape=(1, 16, 16), num_classes=4, dropout=dropout).train(training)
        return logits_of(model, (1, 16, 16), 4), logits_of(model, (1, 16, 16), 4)

    assert not torch.equal(*outputs(0.5, training=True))
    assert torch.equal(*outputs(0.5, training=False))
    assert torch.equal(*outputs(0.0, training=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_learns(architecture):
    model = build_model(architecture, input_shape=(1, 8, 8), num_classes=4)
    model(torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))).logsumexp(1).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_names_match_in_any_case():
    torch.manual_seed(0)
    upper = build_model("Simple_MLP", input_shape=(4,), num_classes=3, activation="GELU")
    torch.manual_seed(0)
    lower = build_model("simple_mlp", input_shape=(4,), num_classes=3, activation="gelu")
    assert torch.equal(logits_of(upper, (4,)), logits_of(lower, (4,)))


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(UsageError, match=r"unknown architecture `resnet81`; did you mean `resnet18`\?"):
        build_model("resnet81", input_shape=(3, 64, 64), num_classes=3)
    with pytest.raises(UsageError, match=r"unknown architecture `vgg`; known are simple_mlp, simple_cnn, resnet18"):
        build_model("vgg", input_shape=(3, 64, 64), num_classes=3)
    with pytest.raises(UsageError, match=r"unknown activation `rely`; did you mean `relu`\?"):
        build_model("simple_mlp", input_shape=(4,), num_classes=3, activation="rely")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"input_shape": (3, 4)}, "data.source"),
        ({"input_shape": (0,)}, "data.source"),
        ({"num_classes": 1}, "model.num_classes"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"dropout": -0.1}, "model.dropout"),
        ({"hidden_dims": []}, "model.hidden_dims"),
        ({"hidden_dims": [8, 0]}, "model.hidden_dims"),
        ({"architecture_args": {"depth": 3}}, "model.architecture_args"),
        ({"architecture_args": {"dropout": 0.3}}, "model.architecture_args"),
    ],
)
def test_arguments_out_of_range_name_their_field(changes, field):
    with pytest.raises(UsageError) as caught:
        build_model("simple_mlp", **{"input_shape": (4,), "num_classes": 3, **changes})
    assert caught.value.field == field


def test_a_setting_that_would_do_nothing_is_refused():
    with pytest.raises(UsageError, match="`resnet18` takes no activation; leave it out"):
        build_model("resnet18", input_shape=(3, 32, 32), num_classes=3, activation="gelu")


def test_hidden_dims_shape_the_networks():
    mlp = build_model("simple_mlp", input_shape=(4,), num_classes=3, hidden_dims=[5, 6])
    assert count_parameters(mlp) == (4 + 1) * 5 + (5 + 1) * 6 + (6 + 1) * 3
    cnn = build_model("simple_cnn", input_shape=(1, 8, 8), num_classes=3, hidden_dims=[2, 4, 8, 16])
    assert [module.out_channels for module in cnn.modules() if isinstance(module, nn.Conv2d)] == [2, 4, 8, 16]
    transformer = build_model("small_transformer", input_shape=(4,), num_classes=3, hidden_dims=[10, 20, 30])
    assert [block.mlp[0].out_features for block in transformer.blocks] == [10, 20, 30]


def test_a_resnet_as_wide_as_asked_for():
    narrow = build_model("resnet50", input_shape=(3, 16, 16), num_classes=3, hidden_dims=[2, 3, 4, 5])
    stages = [narrow.layer1, narrow.layer2, narrow.layer3, narrow.layer4]
    assert [narrow.conv1.out_channels, *(stage[-1].conv1.out_channels for stage in stages)] == [2, 2, 3, 4, 5]
    assert narrow.fc.in_features == 20
    with pytest.raises(UsageError, match="four stages, so give four widths, not 1"):
        build_model("resnet18", input_shape=(3, 32, 32), num_classes=3, hidden_dims=[64])


def test_the_small_cnn_is_small():
    assert count_parameters(build_model("simple_cnn", input_shape=(1, 8, 8), num_classes=10)) == 6_138
    assert [default_widths(side) for side in (8, 15, 16, 63, 64)] == [
        [16, 32],
        [16, 32],
        [32, 64, 128],
        [32, 64, 128],
        [32, 64, 128, 256],
    ]


@pytest.mark.parametrize(("side", "patch"), [(8, 2), (16, 2), (17, 4), (64, 4), (65, 16), (224, 16)])
def test_patches_grow_with_the_image(side, patch):
    assert default_patch_size(side) == patch
    model = build_model("small_transformer", input_shape=(1, side, side), num_classes=3)
    assert model.tokens.positions.shape[1] == (-(-side // patch)) ** 2


def test_pixels_beyond_the_last_whole_patch_are_seen():
    model = build_model("small_transformer", input_shape=(1, 9, 9), num_classes=3).eval()
    image = torch.zeros(1, 1, 9, 9)
    changed = image.clone()
    changed[0, 0, 8, 8] = 1.0
    assert not torch.equal(model(image), model(changed))


def test_transformer_arguments_are_checked():
    def build(**arguments):
        return build_model("small_transformer", input_shape=(1, 8, 8), num_classes=3, architecture_args=arguments)

    assert build(width=48, heads=6, patch_size=8).tokens.positions.shape == (1, 1, 48)
    with pytest.raises(UsageError, match="width must be a multiple of heads, not 50 and 4"):
        build(width=50)
    with pytest.raises(UsageError, match="patch_size must be between 1 and the image's shorter side 8, not 9"):
        build(patch_size=9)


def test_attention_is_that_of_pytorch():
    model = build_model(
        "small_transformer", input_shape=(5,), num_classes=3, architecture_args={"width": 8, "heads": 2}
    )
    attention = model.eval().blocks[0].attention
    reference = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    reference.load_state_dict(
        {
            "in_proj_weight": attention.qkv.weight,
            "in_proj_bias": attention.qkv.bias,
            "out_proj.weight": attention.projection.weight,
            "out_proj.bias": attention.projection.bias,
        }
    )
    tokens = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attention(tokens), reference(tokens, tokens, tokens)[0])


@pytest.mark.parametrize("architecture", ["simple_mlp", "simple_cnn"])
def test_compiling_reaches_the_layers(architecture):
    model, graphs = build_model(architecture, input_shape=(1, 8, 8), num_classes=3, dropout=0.0), []

    def counted(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model.compile(backend=counted)
    model(torch.zeros(2, 1, 8, 8))
    assert graphs


def test_pooling_before_or_after_the_activation_is_the_same_to_the_bit():
    block = ActivationAndPooling(nn.ReLU())
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    results = []
    for is_training in (True, False):
        output = block.train(is_training)(x)
        (gradient,) = torch.autograd.grad((output * weights).sum(), x)
        results.append((output, gradient))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
