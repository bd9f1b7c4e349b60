"""What only a GPU can show: deterministic backward of every architecture, precision, and random streams on CUDA."""

from __future__ import annotations

import os

import pytest
import torch

from common.device import autocast_for, configure_determinism, select_device
from common.ema import ExponentialMovingAverage
from common.exits import EnvironmentLackError
from common.losses import build_loss
from common.models import ARCHITECTURES, build_model
from common.optimizers import OPTIMIZERS, build_optimizer
from common.seeding import capture_rng_state, preserve_rng, restore_rng_state, seed_everything

# Read by cuBLAS when it starts, which is with the first test here.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]


@pytest.fixture(autouse=True)
def deterministic():
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    with preserve_rng():
        configure_determinism(True)
        yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


def bytes_after_steps(architecture: str, optimizer_type: str, shape: tuple[int, ...], precision: str) -> list[bytes]:
    seed_everything(5)
    device = select_device("cuda")
    model = build_model(architecture, input_shape=shape, num_classes=5, dropout=0.2).to(device)
    optimizer = build_optimizer(model, optimizer_type, 1e-2, 1e-3)
    ema = ExponentialMovingAverage(model, 0.9)
    loss = build_loss(0.1, [1.0, 2.0, 1.0, 1.0, 3.0]).to(device)
    autocast = autocast_for(device, precision)
    for _ in range(3):
        optimizer.zero_grad()
        with autocast.context():
            logits_BC = model(torch.rand(16, *shape, device=device))
        loss(logits_BC, torch.randint(5, (16,), device=device)).backward()
        optimizer.step()
        ema.update(model)
    states = [*model.state_dict().values(), *ema.state_dict()["model_state_dict"].values()]
    return [tensor.cpu().numpy().tobytes() for tensor in states]


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 64, 64)], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_repeats_to_the_bit(architecture, precision, shape):
    if precision == "bf16" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no bf16")
    first = bytes_after_steps(architecture, "adam", shape, precision)
    assert first == bytes_after_steps(architecture, "adam", shape, precision)


@pytest.mark.parametrize("optimizer_type", OPTIMIZERS)
def test_every_optimizer_repeats_to_the_bit(optimizer_type):
    first = bytes_after_steps("simple_cnn", optimizer_type, (3, 32, 32), "fp32")
    assert first == bytes_after_steps("simple_cnn", optimizer_type, (3, 32, 32), "fp32")


def test_the_cuda_stream_survives_a_checkpoint():
    seed_everything(1)
    torch.rand(3, device="cuda")
    saved = capture_rng_state()
    expected = torch.rand(3, device="cuda")
    seed_everything(2)
    restore_rng_state(saved)
    assert torch.equal(torch.rand(3, device="cuda"), expected)


def test_fp16_needs_a_grad_scaler():
    assert autocast_for(select_device("cuda:0"), "fp16").needs_grad_scaler


def test_a_gpu_that_is_not_there_is_named():
    number = torch.cuda.device_count()
    with pytest.raises(EnvironmentLackError, match=f"there is no cuda:{number}"):
        select_device(f"cuda:{number}")
