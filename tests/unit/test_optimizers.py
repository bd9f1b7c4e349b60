"""Optimizers: what they compute, what decays, and that they resume to the same bits."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from common.exits import UsageError
from common.optimizers import OPTIMIZERS, build_optimizer


def small_net() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.ReLU(), nn.Linear(9, 3))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    optimizer.step()


def weights(model: nn.Module) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in model.state_dict().values()]


def through_a_file(state: dict) -> dict:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("saved_after", [0, 3])
@pytest.mark.parametrize("type", OPTIMIZERS)
def test_a_resumed_optimizer_goes_on_to_the_same_bits(type, saved_after):
    model = small_net()
    optimizer = build_optimizer(model, type, 1e-2, 1e-3)
    for number in range(saved_after):
        step(model, optimizer, number)
    saved = through_a_file({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    for number in range(saved_after, saved_after + 4):
        step(model, optimizer, number)

    resumed_model = nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.ReLU(), nn.Linear(9, 3))
    resumed = build_optimizer(resumed_model, type, 1e-2, 1e-3)
    resumed_model.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    for number in range(saved_after, saved_after + 4):
        step(resumed_model, resumed, number)
    assert weights(resumed_model) == weights(model)


REFERENCES = {
    "adam": lambda groups: torch.optim.Adam(groups, lr=1e-2, betas=(0.8, 0.99), foreach=False, fused=False),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-2, betas=(0.8, 0.99), foreach=False, fused=False),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.7, nesterov=True, foreach=False, fused=False),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=1e-2, foreach=False),
}


@pytest.mark.parametrize("type", OPTIMIZERS)
def test_fast_implementations_compute_what_the_plain_ones_do(type):
    model, reference_model = small_net(), small_net()
    optimizer = build_optimizer(model, type, 1e-2, 0.1, momentum=0.7, betas=(0.8, 0.99), nesterov=True)
    parameters = list(reference_model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    reference = REFERENCES[type](groups)
    for number in range(5):
        step(model, optimizer, number)
        step(reference_model, reference, number)
    for own, expected in zip(model.parameters(), parameters, strict=True):
        torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("type", OPTIMIZERS)
def test_weight_decay_pulls_at_weights_only(type):
    model = small_net()
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    optimizer = build_optimizer(model, type, 1e-2, 0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    assert moved == {"0.weight", "3.weight"}


def test_frozen_parameters_are_left_alone():
    model = small_net()
    model[0].requires_grad_(False)
    optimizer = build_optimizer(model, "ADAM", 1e-2)
    handled = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert handled == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def test_what_cannot_be_built_is_said():
    with pytest.raises(UsageError, match=r"unknown optimizer `adamx`; did you mean `adamw?`\?"):
        build_optimizer(small_net(), "adamx", 1e-2)
    with pytest.raises(UsageError, match="nesterov needs a momentum above 0"):
        build_optimizer(small_net(), "sgd", 1e-2, momentum=0.0, nesterov=True)
    with pytest.raises(UsageError, match="no trainable parameter"):
        build_optimizer(nn.Flatten(), "sgd", 1e-2)
