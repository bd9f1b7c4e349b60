"""What the probe says of one step: against numbers worked out by hand, and for real faults."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from common.checkpoints import state_sha256
from common.health import WeightProbe
from common.models import build_model

RATE = 0.1


def mlp(activation: type[nn.Module] = nn.ReLU, depth: int = 2, width: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    features = 8
    for _ in range(depth):
        layers += [nn.Linear(features, width), activation()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, 3))


def samples(count: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 8, generator=generator), torch.randint(0, 3, (count,), generator=generator)


def probed_step(model: nn.Module, optimizer: torch.optim.Optimizer | None = None, *, clear: bool = True):
    """One step of ``model`` on ``samples`` under a probe: its signals."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=RATE)
    probe = WeightProbe(model)
    if clear:
        optimizer.zero_grad()
    probe.before_backward()
    inputs, labels = samples()
    functional.cross_entropy(model(inputs), labels).backward()
    probe.before_update()
    optimizer.step()
    return probe.after_update()


def test_numbers_of_a_step_worked_out_by_hand():
    model = mlp()
    weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.ndim == 2}
    signals = probed_step(model)
    grads = {name: dict(model.named_parameters())[name].grad for name in weights}
    ratios = sorted(float(RATE * grads[name].norm() / weights[name].norm()) for name in weights)
    assert signals.update_to_weight_min == pytest.approx(ratios[0], rel=1e-4)
    assert signals.update_to_weight_median == pytest.approx(ratios[1], rel=1e-4)
    assert signals.update_to_weight_max == pytest.approx(ratios[2], rel=1e-4)
    assert signals.first_layer_grad_norm == pytest.approx(float(grads["0.weight"].norm()), rel=1e-5)
    assert signals.last_layer_grad_norm == pytest.approx(float(grads["4.weight"].norm()), rel=1e-5)
    assert signals.first_to_last_grad_ratio == pytest.approx(
        float(grads["0.weight"].norm() / grads["4.weight"].norm()), rel=1e-5
    )
    after = torch.cat([dict(model.named_parameters())[name].detach().flatten() for name in weights])
    before = torch.cat([weight.flatten() for weight in weights.values()])
    assert signals.weight_norm == pytest.approx(float(after.norm()), rel=1e-6)
    assert signals.weight_norm_growth == pytest.approx(float(after.norm() / before.norm()) - 1, abs=1e-6)
    assert signals.update_gradient_cosine == pytest.approx(1.0, abs=1e-5), "plain descent follows the gradient"
    assert (signals.num_layers, signals.narrowest_units, signals.num_zero_update_layers) == (3, 16, 0)
    assert signals.gradients_cleared is True and signals.num_non_finite_layers == 0


def test_layers_are_named():
    model = mlp()
    with torch.no_grad():
        model[2].weight.mul_(1000.0)
    signals = probed_step(model)
    assert signals.update_to_weight_min_layer == "2.weight"
    narrow = nn.Sequential(nn.Linear(8, 30), nn.ReLU(), nn.Linear(30, 2), nn.ReLU(), nn.Linear(2, 3))
    assert (probed_step(narrow).narrowest_units, probed_step(narrow).narrowest_layer) == (2, "2.weight")


def test_all_values_are_plain():
    signals = probed_step(mlp())
    assert json.loads(json.dumps(signals.as_dict(), allow_nan=False)) == signals.as_dict()


@pytest.mark.parametrize("how", ["requires_grad", "left out of the optimizer"])
def test_a_frozen_layer_shows_as_a_zero_update(how):
    model = mlp()
    optimizer = torch.optim.SGD([p for name, p in model.named_parameters() if name != "2.weight"], lr=RATE)
    if how == "requires_grad":
        model[2].weight.requires_grad_(False)
    signals = probed_step(model, optimizer)
    assert signals.num_zero_update_layers == 1 and signals.zero_update_layers == ["2.weight"]
    assert signals.update_to_weight_min == 0.0 and signals.update_to_weight_max > 0.0


def test_ten_sigmoid_layers_starve_the_first():
    assert probed_step(mlp(nn.Sigmoid, depth=10)).first_to_last_grad_ratio < 1e-3
    assert probed_step(mlp(nn.ReLU, depth=2)).first_to_last_grad_ratio > 0.05


@pytest.mark.parametrize("value", [0.0, 0.01])
def test_units_that_start_alike_are_seen(value):
    model = mlp()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    signals = probed_step(model)
    assert signals.num_identical_unit_layers >= 2
    healthy = probed_step(mlp())
    assert healthy.num_identical_unit_layers == 0 and healthy.unit_spread_min > 0.8


def test_gradients_that_were_never_cleared_are_seen():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    probed_step(model, optimizer)
    assert probed_step(model, optimizer, clear=False).gradients_cleared is False
    assert probed_step(model, optimizer).gradients_cleared is True
    optimizer.zero_grad(set_to_none=False)
    assert probed_step(model, optimizer, clear=False).gradients_cleared is True, "zeros are clear too"


@pytest.mark.parametrize(("rate", "low", "high"), [(1.0, 1.0, 1e3), (1e-6, 0.0, 1e-4), (1e-3, 1e-4, 1e-1)])
def test_the_learning_rate_shows(rate, low, high):
    model = mlp()
    signals = probed_step(model, torch.optim.Adam(model.parameters(), lr=rate))
    assert low < signals.update_to_weight_median < high


def test_weight_decay_alone_shrinks_by_rate_times_strength():
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, weight_decay=3e7)
    assert probed_step(model, optimizer).weight_norm_growth == pytest.approx(-0.03, rel=1e-2)


def test_momentum_that_carries_the_weights_uphill():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.99)
    probed_step(model, optimizer)
    with torch.no_grad():
        for state in optimizer.state.values():
            state["momentum_buffer"].mul_(-100.0)
    assert probed_step(model, optimizer).update_gradient_cosine < -0.5


def test_non_finite_numbers_are_counted_and_become_none():
    model = mlp()
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    signals = probed_step(model)
    assert signals.num_non_finite_layers >= 1 and signals.weight_norm is None
    json.dumps(signals.as_dict(), allow_nan=False)


class Odd(nn.Module):
    """Shared, normed, scaled, half and unused parameters, and one with a sparse gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 8, sparse=True)
        self.first = nn.Linear(8, 8, bias=False)
        self.second = nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight
        self.norm = nn.LayerNorm([2, 8])
        self.scale = nn.Parameter(torch.ones(8, 1))
        self.positions = nn.Parameter(torch.zeros(1, 4, 8))
        self.unused = nn.Linear(8, 8)
        self.empty = nn.Parameter(torch.zeros(2, 0))
        self.head = nn.Linear(8, 3).to(torch.bfloat16)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = self.second(self.first(inputs)) * self.scale[:, 0] + self.table(torch.tensor(1))
        features = self.norm(features.reshape(-1, 2, 8)).reshape(-1, 8)
        return self.head(features.bfloat16()).float()


def test_any_model_will_do():
    torch.manual_seed(0)
    signals = probed_step(Odd())
    assert signals.num_layers == 4, "the table, the shared weight once, the unused one, the head"
    assert signals.zero_update_layers == ["unused.weight"]
    assert signals.num_identical_unit_layers == 0


def test_a_model_without_matrices_has_no_signals():
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs[:, :3] * self.scale

    assert probed_step(Scale()) is None


@pytest.mark.parametrize("shape", [(2000, 300), (2, 400_000)])
def test_a_large_layer_is_sampled_and_tells_the_same(shape):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape))
    holder = nn.ParameterList([weight])
    probe = WeightProbe(holder)
    weight.grad = weight.detach().clone()
    probe.before_update()
    assert sum(copy.nbytes for copy in probe._before) <= 2 * weight.nbytes // shape[0] + (1 << 20)
    with torch.no_grad():
        weight.mul_(0.99)
    signals = probe.after_update()
    assert signals.update_to_weight_median == pytest.approx(0.01, rel=1e-3)
    assert signals.update_gradient_cosine == pytest.approx(1.0, abs=1e-3)
    assert signals.unit_spread_min > 0.5
    assert signals.first_layer_grad_norm == pytest.approx(float(weight.grad.norm()), rel=1e-4)


@pytest.mark.parametrize("architecture", ["simple_mlp", "simple_cnn", "resnet18", "small_transformer"])
def test_watching_changes_no_bit_of_a_training(architecture):
    def trained(watched: bool) -> tuple[str, torch.Tensor]:
        torch.manual_seed(0)
        model = build_model(architecture, input_shape=(1, 8, 8), num_classes=3, dropout=0.3)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        inputs = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(2))
        for _ in range(3):
            probe = WeightProbe(model) if watched else None
            optimizer.zero_grad()
            if probe:
                probe.before_backward()
            functional.cross_entropy(model(inputs), torch.arange(8) % 3).backward()
            if probe:
                probe.before_update()
            optimizer.step()
            if probe:
                assert probe.after_update().num_zero_update_layers == 0
        return state_sha256(model.state_dict()), torch.get_rng_state()

    (plain_hash, plain_rng), (watched_hash, watched_rng) = trained(False), trained(True)
    assert plain_hash == watched_hash and torch.equal(plain_rng, watched_rng)
