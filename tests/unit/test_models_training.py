"""Models in training: the same bits twice for every architecture and optimizer, and the small CNN learns digits."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from common.losses import build_loss
from common.models import ARCHITECTURES, build_model
from common.optimizers import OPTIMIZERS, build_optimizer


@pytest.fixture(autouse=True)
def deterministic():
    """Deterministic algorithms, as a training has them; afterwards as before."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


def same_bytes(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))


def new_model(architecture: str) -> nn.Module:
    torch.manual_seed(11)
    return build_model(architecture, input_shape=(1, 8, 8), num_classes=5, dropout=0.2)


@functools.cache
def model_to_copy(architecture: str) -> nn.Module:
    return new_model(architecture)


def state_after_two_steps(architecture: str, optimizer_type: str) -> dict[str, Tensor]:
    model = copy.deepcopy(model_to_copy(architecture))
    optimizer = build_optimizer(model, optimizer_type, 1e-2, 1e-3)
    loss = build_loss(label_smoothing=0.1)
    torch.manual_seed(12)
    for _ in range(2):
        optimizer.zero_grad()
        loss(model(torch.rand(3, 1, 8, 8)), torch.randint(5, (3,))).backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_initialisation_repeats_to_the_bit(architecture):
    first, second = (new_model(architecture).state_dict() for _ in range(2))
    assert all(same_bytes(first[name], second[name]) for name in first)


@pytest.mark.parametrize("optimizer_type", OPTIMIZERS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_repeats_to_the_bit(architecture, optimizer_type):
    before = model_to_copy(architecture).state_dict()
    first = state_after_two_steps(architecture, optimizer_type)
    second = state_after_two_steps(architecture, optimizer_type)
    for name in before:
        assert same_bytes(first[name], second[name])
        assert not same_bytes(first[name], before[name])


def test_the_small_cnn_learns_the_digits():
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    labels = torch.tensor(labels)
    train, val = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=42)
    torch.manual_seed(42)
    model = build_model("simple_cnn", input_shape=(1, 8, 8), num_classes=10)
    optimizer = build_optimizer(model, "adam", 1e-3)
    loss = build_loss()
    for _ in range(20):
        for batch in torch.tensor(train)[torch.randperm(len(train))].split(32):
            optimizer.zero_grad()
            loss(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        correct = model.eval()(images[val]).argmax(1) == labels[val]
    assert correct.float().mean() > 0.975
