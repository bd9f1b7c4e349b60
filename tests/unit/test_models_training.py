"""Models in training: the same bits twice for every architecture and optimizer, and the small CNN learns digits."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

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


def state_bytes(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def train_briefly(architecture: str, optimizer_type: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """State before and after two steps."""
    torch.manual_seed(11)
    model = build_model(architecture, input_shape=(1, 8, 8), num_classes=5, dropout=0.2)
    optimizer = build_optimizer(model, optimizer_type, 1e-2, 1e-3)
    loss = build_loss(label_smoothing=0.1)
    before = state_bytes(model)
    for _ in range(2):
        optimizer.zero_grad()
        loss(model(torch.rand(4, 1, 8, 8)), torch.randint(5, (4,))).backward()
        optimizer.step()
    return before, state_bytes(model)


@pytest.mark.parametrize("optimizer_type", OPTIMIZERS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_two_trainings_give_the_same_bytes(architecture, optimizer_type):
    before, after = train_briefly(architecture, optimizer_type)
    assert (before, after) == train_briefly(architecture, optimizer_type)
    assert all(after[name] != before[name] for name in before)


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
