"""The moving average: its formula, swapping it in and out, and resuming."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from common.ema import ExponentialMovingAverage


def small_net() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def disturb(model: nn.Module, seed: int) -> None:
    """As a training step would: other weights, other batch statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
        model(torch.randn(5, 3, generator=generator))


def copy_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("decay", [0.999, 0.3])
def test_the_average_follows_its_formula(decay):
    model = small_net()
    ema = ExponentialMovingAverage(model, decay)
    expected = model[0].weight.detach().double()
    for update in range(1, 6):
        disturb(model, update)
        ema.update(model)
        d = min(decay, (1 + update) / (10 + update))
        expected = d * expected + (1 - d) * model[0].weight.detach().double()
    torch.testing.assert_close(ema.state_dict()["model_state_dict"]["0.weight"], expected.float())


def test_buffers_are_the_latest():
    model = small_net()
    ema = ExponentialMovingAverage(model, 0.9)
    disturb(model, 1)
    ema.update(model)
    averaged, live = ema.state_dict()["model_state_dict"], model.state_dict()
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(averaged[name], live[name])
    assert not torch.equal(averaged["0.weight"], live["0.weight"])


def test_the_models_own_weights_come_back_to_the_bit_even_after_an_error():
    model = small_net()
    ema = ExponentialMovingAverage(model, 0.9)
    disturb(model, 1)
    ema.update(model)
    own, averaged = copy_of(model), {k: v.clone() for k, v in ema.state_dict()["model_state_dict"].items()}

    def evaluate_and_fail() -> None:
        with ema.apply_to(model):
            assert same(copy_of(model), averaged)
            disturb(model, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_and_fail()
    assert same(copy_of(model), own)
    assert same(ema.state_dict()["model_state_dict"], averaged)


def test_a_resumed_average_goes_on_to_the_same_bits():
    model = small_net()
    ema = ExponentialMovingAverage(model, 0.999)
    for seed in (1, 2):
        disturb(model, seed)
        ema.update(model)
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "ema": ema.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    disturb(model, 3)
    ema.update(model)

    resumed_model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    resumed_ema = ExponentialMovingAverage(resumed_model, 0.999)
    resumed_model.load_state_dict(saved["model"])
    resumed_ema.load_state_dict(saved["ema"])
    disturb(resumed_model, 3)
    resumed_ema.update(resumed_model)
    assert resumed_ema.num_updates == 3
    assert same(resumed_ema.state_dict()["model_state_dict"], ema.state_dict()["model_state_dict"])


def test_the_averaged_state_loads_into_a_model_with_shared_weights():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    ema = ExponentialMovingAverage(model, 0.5)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    ema.update(model)
    averaged = ema.state_dict()["model_state_dict"]
    assert averaged.keys() == model.state_dict().keys()
    assert torch.equal(averaged["0.weight"], averaged["1.weight"])
    model.load_state_dict(averaged)


def test_another_models_average_is_refused():
    ema = ExponentialMovingAverage(small_net(), 0.9)
    other = ExponentialMovingAverage(nn.Linear(3, 4), 0.9)
    with pytest.raises(KeyError, match="another model's average"):
        ema.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="decay must be in"):
        ExponentialMovingAverage(small_net(), 1.0)
