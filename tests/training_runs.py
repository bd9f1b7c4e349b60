"""Tiny trainings for tests: configs, a run in this process, what it left behind, and a model that stops on demand."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

import training_orchestrator
from common.data import Dataset, load_dataset

ROOT = Path(__file__).resolve().parents[1]
STOPPABLE = "tests.training_runs:StoppableMlp"
# What differs between two equal runs: when they ran, for how long, and how busy the machine was.
TIMES = ("time_s", "data_time_s", "samples_per_s", "cpu_util", "started_at", "finished_at", "duration_s", "elapsed_s")

BASE: dict[str, dict[str, Any]] = {
    "model": {"architecture": "simple_mlp", "dropout": 0.1, "hidden_dims": [24]},
    "optimizer": {"type": "adam", "learning_rate": 0.003, "weight_decay": 0.0},
    "training": {"epochs": 2, "batch_size": 64, "device": "cpu", "num_threads": 1},
    "early_stopping": {"enabled": True, "patience": 10, "metric": "val_loss"},
    "reproducibility": {"seed": 42, "deterministic": True},
    "data": {"source": "wine"},
    "checkpointing": {"min_seconds_between_saves": 0.0},  # a clock would decide how often these short epochs save
    "logging": {"tensorboard": False},
}
# No clock decides either: what may wait does so until something else calls for a save.
WAITING = {"checkpointing__min_seconds_between_saves": 1e9}


def config_mapping(**changes: Any) -> dict[str, dict[str, Any]]:
    """The smallest training there is, two epochs on the wines, with ``section__field=value`` changed or added."""
    mapping = copy.deepcopy(BASE)
    for key, value in changes.items():
        section, field = key.split("__")
        mapping.setdefault(section, {})[field] = value
    return mapping


def write_config(path: str | Path = "config.yaml", **changes: Any) -> Path:
    """``config_mapping`` as a file."""
    path = Path(path)
    path.write_text(yaml.safe_dump(config_mapping(**changes), sort_keys=False), encoding="utf-8")
    return path


def orchestrate(*arguments: object) -> int:
    """``python training_orchestrator.py ARGUMENTS`` in this process, in the working directory; the exit code."""
    with _torch_settings_kept():
        return training_orchestrator.main([str(argument) for argument in arguments])


@contextlib.contextmanager
def _torch_settings_kept() -> Iterator[None]:
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def train(name: str = "run", *arguments: object, expect: int = 0, **changes: Any) -> Run:
    """Train ``config_mapping(**changes)`` quietly into the folder ``name``; any other exit code fails the test."""
    config = write_config(f"{name.replace('/', '_')}.yaml", **changes)
    code = orchestrate("--config", config, "--output-dir", name, "--quiet", *arguments)
    assert code == expect, f"exit code {code}, not {expect}"
    return Run(Path(name).absolute())


@dataclass(frozen=True)
class Run:
    """What a run left in its folder, read without the code that wrote it wherever that is possible."""

    path: Path

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.path / "metrics.json").read_text(encoding="utf-8"))

    @property
    def epochs(self) -> list[dict[str, Any]]:
        return self.metrics["epochs"]

    @property
    def environment(self) -> dict[str, Any]:
        return json.loads((self.path / "environment.json").read_text(encoding="utf-8"))

    @property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))

    @property
    def log(self) -> list[str]:
        """The lines of training.log without their times."""
        lines = (self.path / "training.log").read_text(encoding="utf-8").splitlines()
        return [line.split(" | ", 1)[1] for line in lines]

    @property
    def checkpoint_names(self) -> set[str]:
        return {path.name for path in (self.path / "checkpoints").glob("*.pt")}

    def checkpoint(self, name: str = "last_model.pt") -> dict[str, Any]:
        return torch.load(self.path / "checkpoints" / name, weights_only=True)

    def checkpoint_without_times(self, name: str = "last_model.pt") -> dict[str, Any]:
        """The checkpoint as far as two equal runs agree on it, with what it holds as JSON text spelt out."""
        checkpoint = self.checkpoint(name)
        progress = checkpoint["progress"]
        progress |= {key: json.loads(progress[key]) for key in ("history", "events", "grad_norms", "best")}
        return without_times(checkpoint)

    def predictions(self, split: str = "val") -> dict[str, np.ndarray]:
        with np.load(self.path / f"predictions_{split}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    def weight_hashes(self) -> list[str]:
        return [epoch["weights_sha256"] for epoch in self.epochs]


@dataclass(frozen=True)
class Measured:
    """What a model says about a split: ``loss`` in nats, ``accuracy_pct`` from 0 to 100, logits and labels."""

    loss: float
    accuracy_pct: float
    logits_BC: Tensor
    labels_B: Tensor


def measured_again(model: nn.Module, dataset: Dataset, split: str) -> Measured:
    """A whole split in one batch, apart from any code that training measures with."""
    samples = dataset.splits[split]
    with torch.no_grad():
        logits_BC = model(dataset.normalizer()(samples.inputs)).float()
    losses_B = functional.cross_entropy(logits_BC, samples.labels, reduction="none")
    right = (logits_BC.argmax(dim=1) == samples.labels).sum()
    return Measured(float(losses_B.double().mean()), 100 * int(right) / len(losses_B), logits_BC, samples.labels)


def wines() -> Dataset:
    return load_dataset("wine")


def without_times(value: Any) -> Any:
    """The same nested value without what differs between two equal runs."""
    if isinstance(value, Mapping):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [without_times(inner) for inner in value]
    return value


def assert_same(first: Any, second: Any, where: str = "") -> None:
    """Two nested values are equal to the last bit of every tensor."""
    assert type(first) is type(second), where
    if isinstance(first, Mapping):
        assert list(first) == list(second), where
        for key in first:
            assert_same(first[key], second[key], f"{where}/{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f"{where}[{number}]")
    elif isinstance(first, Tensor):
        assert first.dtype == second.dtype and first.shape == second.shape, where
        assert first.numpy().tobytes() == second.numpy().tobytes(), where
    else:
        assert first == second, where


def leaves(value: Any) -> Iterator[Any]:
    """Everything in a nested value that is neither a dict nor a list (torch's optimizers keep a pair as a tuple)."""
    if isinstance(value, dict):
        assert all(isinstance(key, (str, int)) for key in value)
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def tree(folder: str | Path) -> dict[str, tuple[int, int]]:
    """Every path under ``folder`` with its size and time of change."""
    folder = Path(folder)
    return {str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
            for path in folder.rglob("*")}  # fmt: skip


def flip_byte(path: Path) -> None:
    """Damage a file in its middle, where nothing but a checksum can tell."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def wait_until(condition, what: str, deadline_s: float = 120.0) -> None:
    """Wait for ``condition`` to hold, for as long as a starved machine may need."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"waited {deadline_s:.0f} s in vain for {what}"
        time.sleep(0.01)


class StoppableMlp(nn.Module):
    """A small network with dropout and batch norm that, at a given forward pass, signals its own process or waits.

    ``TEST_STOP_AT=train:17:SIGTERM`` sends the signal in the 17th forward pass in training mode (``eval:2:...`` counts
    those in evaluation mode, past the first that tries the model out); ``train:17:PATH`` waits until the file exists.
    ``TEST_FITTING_SAMPLES=20`` makes a larger training batch run out of memory.
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(int(np.prod(input_shape)), 24),
            nn.BatchNorm1d(24),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(24, num_classes),
        )
        self._passes = {True: 0, False: -1}
        mode, number, self._action = os.environ.get("TEST_STOP_AT", "never:0:").split(":", 2)
        self._when = (mode == "train", int(number))
        self._fitting_samples = int(os.environ.get("TEST_FITTING_SAMPLES", "1000000"))

    def forward(self, inputs: Tensor) -> Tensor:
        self._passes[self.training] += 1
        if self._when == (self.training, self._passes[self.training]) and self._action:
            if self._action.startswith("SIG"):
                os.kill(os.getpid(), getattr(signal, self._action))
            else:
                wait_until(Path(self._action).exists, self._action)
        if self.training and len(inputs) > self._fitting_samples:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self.layers(inputs)
