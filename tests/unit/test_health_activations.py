"""Dead and saturated units of real models, and that watching leaves nothing behind."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from common.health import watch_activations
from common.models import build_model

SMOOTH = [nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh]


def mlp(activation: type[nn.Module] = nn.ReLU, bias: float | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), activation(), nn.Linear(32, 16), activation(), nn.Linear(16, 3)).eval()
    if bias is not None:
        with torch.no_grad():
            model[0].bias.fill_(bias)
            model[2].bias.fill_(bias)
    return model


def inputs(count: int = 64, *shape: int) -> torch.Tensor:
    return torch.randn(count, *(shape or (8,)), generator=torch.Generator().manual_seed(1))


def seen(model: nn.Module, batch: torch.Tensor):
    with torch.inference_mode(), watch_activations(model) as watch:
        model(batch)
    return watch.summary()


@pytest.mark.parametrize("activation", SMOOTH)
def test_biases_at_minus_ten_leave_all_units_dead(activation):
    signals = seen(mlp(activation, bias=-10.0), inputs() * 0.2)
    assert signals.dead_share == signals.dead_share_max == 1.0
    assert signals.num_activation_layers == 2


@pytest.mark.parametrize("activation", SMOOTH)
def test_a_healthy_network_has_no_dead_units(activation):
    signals = seen(mlp(activation), inputs())
    assert signals.dead_share_max == 0.0 and signals.num_non_finite_layers == 0


def test_the_share_and_the_layer_of_some_dead_units():
    model = mlp()
    with torch.no_grad():
        model[2].bias[:4] = -100.0
    signals = seen(model, inputs())
    assert signals.dead_share == pytest.approx(4 / 48)
    assert (signals.dead_share_max, signals.dead_share_max_layer) == (0.25, "3")


def test_small_activations_are_not_dead_ones():
    model = mlp()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1e-6 if name.endswith("weight") else 0.0)
    assert seen(model, inputs()).dead_share == 0.0


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_units_of_an_image_network_are_channels(inplace, memory_format):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=inplace), nn.Flatten(), nn.LazyLinear(2)).eval()
    with torch.no_grad():
        model[0].bias[2:5] = -50.0
        model(torch.zeros(1, 3, 9, 9))
    model = model.to(memory_format=memory_format)
    signals = seen(model, inputs(20, 3, 9, 9).to(memory_format=memory_format))
    assert signals.dead_share == pytest.approx(3 / 8)


def test_units_of_a_transformer_are_features():
    torch.manual_seed(0)
    model = build_model("small_transformer", input_shape=(1, 8, 8), num_classes=3, hidden_dims=[12, 12]).eval()
    linear = next(module for name, module in model.named_modules() if name.endswith("mlp.0"))
    with torch.no_grad():
        linear.bias[:6] = -50.0
    signals = seen(model, inputs(8, 1, 8, 8))
    assert signals.num_activation_layers == 2 and signals.dead_share == pytest.approx(6 / 24)


def test_a_module_that_is_called_twice_counts_twice():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.activation = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.activation(self.activation(x) - 100.0)

    signals = seen(Shared(), inputs())
    assert (signals.num_activation_layers, signals.dead_share) == (2, 0.5)


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Tanh])
def test_saturation_of_bounded_activations(activation):
    low, high = mlp(activation), mlp(activation)
    with torch.no_grad():
        high[0].weight.mul_(1000.0)
    assert seen(low, inputs()).saturated_share_max < 0.1
    signals = seen(high, inputs())
    assert signals.saturated_share_max > 0.9 and signals.saturated_share_max_layer == "1"
    assert seen(mlp(nn.ReLU), inputs()).saturated_share is None


def test_what_the_model_was_fed():
    batch = inputs() * 3 + 5
    signals = seen(mlp(), batch)
    assert signals.input_mean == pytest.approx(float(batch.mean()), rel=1e-5)
    assert signals.input_std == pytest.approx(float(batch.std(correction=0)), rel=1e-5)
    assert (signals.input_min, signals.input_max) == (float(batch.min()), float(batch.max()))


def test_units_are_dead_only_if_they_are_in_all_passes():
    model = mlp()
    on, off = torch.ones(20, 8) * torch.rand(20, 1), -torch.ones(20, 8) * torch.rand(20, 1)
    both = seen(model, torch.cat([on, off]))
    with torch.inference_mode(), watch_activations(model, num_passes=2) as watch:
        model(on)
        model(off)
    assert watch.summary().dead_share == both.dead_share < seen(model, on).dead_share
    assert watch.summary().num_activation_layers == 2


def test_passes_after_those_announced_are_left_alone():
    model = mlp()
    with torch.inference_mode(), watch_activations(model) as watch:
        first = model(inputs())
        assert num_hooks(model) == 0
        model(inputs() * 1000)
    assert watch.summary().outputs.logits_max == float(first.max())


@pytest.mark.parametrize(("num_passes", "num_seen"), [(1, 1), (3, 3), (16, 16), (17, 8), (100, 14)])
def test_many_passes_are_looked_at_in_part(num_passes, num_seen):
    model = mlp(nn.Tanh)
    with torch.inference_mode(), watch_activations(model, num_passes) as watch:
        for number in range(num_passes):
            model(torch.full((40, 8), float(number)))
    assert {len(calls) for calls in watch._calls.values()} == {num_seen}
    assert watch.summary().input_min <= 0.1 * num_passes and watch.summary().input_max >= 0.9 * num_passes - 1
    assert sum(map(len, watch._inputs)) <= 160 and num_hooks(model) == 0


def test_samples_of_a_sorted_batch_are_spread_over_it():
    batch = torch.linspace(-1, 1, 600)[:, None].expand(600, 8)
    signals = seen(mlp(), batch)
    assert signals.input_min == -1.0 and signals.input_max > 0.98


def test_nothing_but_the_samples_looked_at_is_kept_in_memory():
    model = nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))
    with watch_activations(model) as watch, torch.inference_mode():
        model(torch.randn(2560, 100))
    kept = [*watch._inputs, *watch._outputs, *(part for calls in watch._calls.values() for part in calls[0].limits)]
    assert [part.untyped_storage().nbytes() for part in kept] == [part.numel() * 4 for part in kept]
    assert watch.summary().num_activation_layers == 1


def test_functional_activations_cannot_be_seen():
    class Functional(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x)

    signals = seen(Functional(), inputs())
    assert signals.num_activation_layers == 0 and signals.dead_share is None and signals.input_mean is not None


def test_activations_called_by_keyword_or_on_a_vector_do_no_harm():
    class Unusual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.gelu, self.tanh = nn.ReLU(), nn.GELU(), nn.Tanh()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(input=x) + self.gelu(input=x) + self.tanh(x.mean())

    signals = seen(Unusual(), inputs())
    assert signals.num_activation_layers == 1 and signals.dead_share == 0.0


def test_a_model_that_was_not_called_has_no_signals():
    with watch_activations(mlp()) as watch:
        pass
    assert watch.summary() is None


def test_non_finite_values_are_counted_and_all_values_plain():
    batch = inputs()
    batch[0, 0] = math.nan
    signals = seen(mlp(), batch)
    assert signals.num_non_finite_layers == 2 and signals.input_mean is None
    values = signals.as_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["looks_like_probabilities"] is False and "outputs" not in values


def num_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_hooks_are_gone_afterwards_and_after_an_error():
    model = mlp(nn.GELU)
    with torch.inference_mode(), watch_activations(model):
        assert num_hooks(model) == 5
    assert num_hooks(model) == 0
    with pytest.raises(RuntimeError), watch_activations(model):
        model(torch.zeros(2, 5))
    assert num_hooks(model) == 0


class Wrapped(nn.Module):
    """A module of one's own: PyTorch leaves a bare Sequential uncompiled."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_a_compiled_model_is_seen_and_stays_compiled():
    calls = []

    def backend(graph, example_inputs):
        def run(*args):
            calls.append(1)
            return graph.forward(*args)

        return run

    model = Wrapped().eval()
    expected = model(inputs())
    model.compile(backend=backend)
    with torch.no_grad():
        model(inputs())
        assert len(calls) == 1
        with watch_activations(model) as watch:
            assert torch.equal(model(inputs()), expected)
            assert len(calls) == 1, "the watched pass runs without compilation"
            model(inputs())
        assert len(calls) == 2, "and the next one with it"
    assert watch.summary().num_activation_layers == 2


@pytest.mark.parametrize("architecture", ["simple_cnn", "resnet18", "small_transformer"])
def test_watching_changes_no_output_and_no_random_stream(architecture):
    torch.manual_seed(0)
    model = build_model(architecture, input_shape=(1, 8, 8), num_classes=3, dropout=0.3).eval()
    batch = inputs(10, 1, 8, 8)
    before = torch.get_rng_state()
    with torch.inference_mode():
        plain = model(batch)
        with watch_activations(model) as watch:
            watched = model(batch)
    assert watch.summary().num_activation_layers > 0
    assert torch.equal(plain, watched) and torch.equal(before, torch.get_rng_state())
