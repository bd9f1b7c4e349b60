"""Data and networks with a fault in them, plugged into a training by import path; and faults of the loop itself.

Which fault is in force is held here, in this process, and nowhere in the run: config.yaml names the same plug-ins
whatever they do, so that whoever reads the run folder learns of the fault by its effects only.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from common.data import load_dataset
from common.models import build_model
from common.models.layers import SpatialMean, make_activation

Arrays = dict[str, np.ndarray]
# Changes the arrays of the three splits; the generator's seed is the run's.
DataFault = Callable[[Arrays, np.random.Generator], Arrays]
NetworkFault = Callable[[nn.Module], nn.Module]
LoopFault = Callable[[], contextlib.AbstractContextManager]

DATA = "benchmarks.faults.injected:data"
NETWORK = "benchmarks.faults.injected:network"


@dataclass(frozen=True)
class Injection:
    """What is in force: on which real data, around which built-in network, and what is wrong with each."""

    source: str = "digits"
    architecture: str = "simple_mlp"
    seed: int = 0
    data: DataFault | None = None
    network: NetworkFault | None = None


_in_force = Injection()


@contextlib.contextmanager
def in_force(injection: Injection, loop: LoopFault | None = None) -> Iterator[None]:
    """Let ``data`` and ``network``, and the training loop of this process, have the fault while the block runs."""
    global _in_force
    before, _in_force = _in_force, injection
    try:
        with loop() if loop else contextlib.nullcontext():
            yield
    finally:
        _in_force = before


def data() -> Arrays:
    """The splits in force, as arrays. No fault touches the test labels: repairs are measured on them."""
    arrays = {name: values.copy() for name, values in _splits(_in_force.source).items()}
    return arrays if _in_force.data is None else _in_force.data(arrays, np.random.default_rng(_in_force.seed))


def network(
    *,
    input_shape: tuple[int, ...],
    num_classes: int,
    dropout: float = 0.0,
    hidden_dims: list[int] | None = None,
    activation: str = "relu",
) -> nn.Module:
    """The built-in network in force, with its fault."""
    model = build_model(
        _in_force.architecture,
        input_shape=input_shape,
        num_classes=num_classes,
        dropout=dropout,
        hidden_dims=hidden_dims,
        activation=activation,
    )
    return model if _in_force.network is None else _in_force.network(model)


@functools.cache
def _splits(source: str) -> Arrays:
    dataset = load_dataset(source, write_files=False)
    arrays = {}
    for name, split in dataset.splits.items():
        inputs = split.inputs.float() / 255 if split.inputs.dtype == torch.uint8 else split.inputs
        arrays[f"x_{name}"], arrays[f"y_{name}"] = inputs.numpy(), split.labels.numpy()
    return arrays


# Networks


def scaled_parameters(factor: float) -> NetworkFault:
    """Every initial parameter ``factor`` times as large as it should be."""

    def change(model: nn.Module) -> nn.Module:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)
        return model

    return change


def low_biases(model: nn.Module) -> nn.Module:
    """Biases of all layers but the last at -10, so that no unit is ever open."""
    *hidden, _ = [module for module in model.modules() if getattr(module, "bias", None) is not None]
    with torch.no_grad():
        for module in hidden:
            module.bias.fill_(-10.0)
    return model


def zero_weights(model: nn.Module) -> nn.Module:
    """All weights and biases of layers 0 at the start; the scales of normalising layers stay 1."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.MultiheadAttention)):
                for parameter in module.parameters():
                    parameter.zero_()
    return model


def frozen_first_layer(model: nn.Module) -> nn.Module:
    """The first dense or convolutional layer takes no part in the training."""
    first = next(module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d)))
    first.requires_grad_(False)
    return model


def softmax_at_the_end(model: nn.Module) -> nn.Module:
    """Probabilities instead of logits."""
    return nn.Sequential(model, nn.Softmax(dim=1))


class InfiniteOnce(nn.Module):
    """Says infinity in one training pass, the 40th, and never again, restarts included."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.passes = 0

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.model(inputs)
        self.passes += self.training
        return logits * float("inf") if self.training and self.passes == 40 else logits


def deep_network(activation: str, *, normalised: bool = False) -> NetworkFault:
    """Ten layers with that activation in place of the built-in network's own: convolutions for images, else dense."""

    def change(model: nn.Module) -> nn.Module:
        layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
        first, last = layers[0], layers[-1]
        body: list[nn.Module] = [] if isinstance(first, nn.Conv2d) else [nn.Flatten()]
        for number in range(10):
            body += _layer(first, is_first=number == 0)
            if normalised:
                body.append(nn.BatchNorm2d(16) if isinstance(first, nn.Conv2d) else nn.BatchNorm1d(64))
            body.append(make_activation(activation))
        if isinstance(first, nn.Conv2d):
            return nn.Sequential(*body, SpatialMean(), nn.Linear(16, last.out_features))
        return nn.Sequential(*body, nn.Linear(64, last.out_features))

    return change


def _layer(like: nn.Module, *, is_first: bool) -> list[nn.Module]:
    if isinstance(like, nn.Conv2d):
        return [nn.Conv2d(like.in_channels if is_first else 16, 16, kernel_size=3, padding=1)]
    # Whose first dense layer sees tokens: the width is taken from the first batch, before any training.
    return [nn.LazyLinear(64) if is_first else nn.Linear(64, 64)]


# Data


def with_nan_rows(arrays: Arrays, generator: np.random.Generator) -> Arrays:
    """A missing value in 5% of the training rows."""
    x_train = arrays["x_train"]
    rows = generator.choice(len(x_train), max(3, len(x_train) // 20), replace=False)
    x_train.reshape(len(x_train), -1)[rows, 0] = np.nan
    return arrays


def unscaled(arrays: Arrays, generator: np.random.Generator) -> Arrays:
    """Columns on scales from 1 to 10,000, each its own, or images on one of 100 to 10,000, in every split."""
    shape = arrays["x_train"].shape[1:]
    scales = 10.0 ** (generator.uniform(0, 4, size=shape) if len(shape) == 1 else generator.uniform(2, 4))
    names = [f"x_{split}" for split in ("train", "val", "test")]
    return arrays | {name: (arrays[name] * scales).astype(np.float32) for name in names}


def validation_unlike_training(arrays: Arrays, generator: np.random.Generator) -> Arrays:
    """Training data standardised in advance, validation data as it came."""
    train = arrays["x_train"]
    mean, std = train.mean(axis=0), train.std(axis=0) + 1e-3
    prepared = {f"x_{name}": ((arrays[f"x_{name}"] - mean) / std).astype(np.float32) for name in ("train", "test")}
    return arrays | prepared


def flipped_labels(share: float) -> DataFault:
    """That share of the training and validation labels replaced by another class."""

    def change(arrays: Arrays, generator: np.random.Generator) -> Arrays:
        num_classes = int(arrays["y_train"].max()) + 1
        for name in ("y_train", "y_val"):
            labels = arrays[name]
            rows = generator.random(len(labels)) < share
            labels[rows] = (labels[rows] + generator.integers(1, num_classes, rows.sum())) % num_classes
        return arrays

    return change


def shuffled_labels(arrays: Arrays, generator: np.random.Generator) -> Arrays:
    """Labels that belong to other samples, in training and validation."""
    return arrays | {name: generator.permutation(arrays[name]) for name in ("y_train", "y_val")}


def unequal_classes(arrays: Arrays, generator: np.random.Generator) -> Arrays:
    """Half of the classes with a hundredth of the others' training samples and a tenth of their validation samples."""
    rare = np.arange(int(arrays["y_train"].max()) + 1) % 2 == 0
    for name, divisor in (("train", 100), ("val", 10)):
        labels = arrays[f"y_{name}"]
        kept = []
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            kept.append(rows[: max(1, len(rows) // divisor)] if rare[label] else rows)
        rows = np.sort(np.concatenate(kept))
        arrays[f"x_{name}"], arrays[f"y_{name}"] = arrays[f"x_{name}"][rows], labels[rows]
    return arrays


def leaking(arrays: Arrays, generator: np.random.Generator) -> Arrays:
    """A third of the validation samples are copies of training samples."""
    num_val = len(arrays["y_val"])
    rows = generator.choice(num_val, num_val // 3, replace=False)
    copied = generator.choice(len(arrays["y_train"]), len(rows), replace=False)
    arrays["x_val"][rows], arrays["y_val"][rows] = arrays["x_train"][copied], arrays["y_train"][copied]
    return arrays


def few_samples(arrays: Arrays, generator: np.random.Generator) -> Arrays:
    """Four training samples of each class."""
    labels = arrays["y_train"]
    rows = np.concatenate([generator.permutation(np.flatnonzero(labels == c))[:4] for c in np.unique(labels)])
    return arrays | {"x_train": arrays["x_train"][rows], "y_train": labels[rows]}


def small_validation(num_samples: int) -> DataFault:
    """So many validation samples; the others join the training set."""

    def change(arrays: Arrays, generator: np.random.Generator) -> Arrays:
        order = generator.permutation(len(arrays["y_val"]))
        kept, moved = order[:num_samples], order[num_samples:]
        parts = {}
        for axis in ("x", "y"):
            parts[f"{axis}_train"] = np.concatenate([arrays[f"{axis}_train"], arrays[f"{axis}_val"][moved]])
            parts[f"{axis}_val"] = arrays[f"{axis}_val"][kept]
        return arrays | parts

    return change


def sorted_by_class(arrays: Arrays, generator: np.random.Generator) -> Arrays:
    """The training samples in order of their classes."""
    order = np.argsort(arrays["y_train"], kind="stable")
    return arrays | {"x_train": arrays["x_train"][order], "y_train": arrays["y_train"][order]}


# The loop


def gradients_never_cleared() -> contextlib.AbstractContextManager:
    """Optimizers that add every gradient to those before."""
    return mock.patch.object(torch.optim.Optimizer, "zero_grad", lambda self, set_to_none=True: None)


def never_shuffled() -> contextlib.AbstractContextManager:
    """Every epoch in the order of the data."""
    return mock.patch("common.engine.trainer.epoch_order", lambda num_samples, seed, epoch: torch.arange(num_samples))


def warm_restarts() -> contextlib.AbstractContextManager:
    """No fault: a rate that falls along a cosine and starts again from the top every 100 steps."""
    from common.schedulers import Scheduler

    rate = Scheduler._rate

    def restarting(self, peak: float, step: int) -> float:
        return rate(self, peak, step) * (0.505 + 0.495 * math.cos(math.pi * (step % 100) / 100))

    return mock.patch.object(Scheduler, "_rate", restarting)


def slow_loader() -> contextlib.AbstractContextManager:
    """Five milliseconds for every batch, many times what a step takes."""
    from common.data.batches import TensorBatches

    batches = TensorBatches.batches

    def slowly(self, index_batches):
        for batch in batches(self, index_batches):
            time.sleep(0.005)
            yield batch

    return mock.patch.object(TensorBatches, "batches", slowly)
