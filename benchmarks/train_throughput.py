#!/usr/bin/env python3
"""Training speed: this trainer with everything on, against a hand-written PyTorch loop with a DataLoader.

Both train the same model on the same data with the same batch size and number of threads, validate and save a
checkpoint after every epoch, and take turns in one process, so that what else the machine does hits both alike. A
sample counts once it was trained on; the time is that of the whole loop, evaluation and checkpoints included. On a
machine with other work the ratio by processor time means more than that by the clock.

    python benchmarks/train_throughput.py                 # both cases; the small one on 1 thread, as configured
    python benchmarks/train_throughput.py --case digits --rounds 9 --threads 2
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.config import load_config
from common.console import Console
from common.data import Dataset
from common.engine.assembly import load_data
from common.engine.run import train
from common.engine.session import RunRequest
from common.engine.trainer import Trainer
from common.models import build_model
from common.signals import StopSignals

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Case:
    """What is trained, and for how many epochs in a round."""

    name: str
    epochs: int
    threads: int
    overrides: tuple[str, ...]


CASES = {
    "digits": Case("digits, simple_cnn, batch 32", 10, 1, ("training.batch_size=32", "training.channels_last=true")),
    "resnet": Case(
        "3x32x32 images, a ResNet-18 of a quarter of the width, batch 128",
        1,
        os.cpu_count() or 1,
        (
            "training.batch_size=128",
            "model.architecture=resnet18",
            "model.hidden_dims=[16, 32, 64, 128]",
            "data.source=npz",
            "training.channels_last=true",
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=sorted(CASES), nargs="+", default=sorted(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of both; by default 1 for the digits, else one per core")
    args = parser.parse_args()
    for name in args.case:
        threads = args.threads or CASES[name].threads
        print(f"{CASES[name].name}; torch {torch.__version__}, {threads} threads, {args.rounds} rounds")
        measure(CASES[name], args.rounds, threads)


def measure(case: Case, rounds: int, threads: int) -> None:
    """Run both loops in turns and print samples per second and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        overrides = [*case.overrides, f"training.num_threads={threads}", f"training.epochs={case.epochs}"]
        if "data.source=npz" in overrides:
            write_images(Path("images.npz"))
            overrides.append("data.root=images.npz")
        loaded = load_config(ROOT / "configs/training_config.yaml", mode="baseline", overrides=overrides)
        dataset = load_data(loaded.config, write_files=False)
        ours: list[Rate] = []
        theirs: list[Rate] = []
        # The first round of each pays for what happens once in a process, and is not counted.
        for number in range(rounds + 1):
            ours.append(our_rate(loaded, number))
            theirs.append(hand_written_rate(loaded.config, dataset, case.epochs))
        report(ours[1:], theirs[1:])


class Stopwatch:
    """Seconds by the clock and of the processor while a block runs."""

    def __enter__(self) -> Stopwatch:
        self.wall_s, self.cpu_s = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *exception: object) -> None:
        self.wall_s += time.perf_counter()
        self.cpu_s += time.process_time()

    def rate(self, samples: int) -> Rate:
        return Rate(samples / self.wall_s, samples / self.cpu_s)


@dataclass(frozen=True)
class Rate:
    """Samples per second, by the clock and of processor time."""

    by_clock: float
    by_processor: float


def report(ours: list[Rate], theirs: list[Rate]) -> None:
    for name in ("by_clock", "by_processor"):
        report_rates(name.replace("_", " "), [getattr(r, name) for r in ours], [getattr(r, name) for r in theirs])


def report_rates(title: str, ours: list[float], theirs: list[float]) -> None:
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    print(f"  {title}: trainer {statistics.median(ours):,.0f}, loop {statistics.median(theirs):,.0f} samples/s; "
          f"ratio median {statistics.median(ratios):.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f})")  # fmt: skip


def our_rate(loaded, number: int) -> Rate:
    """Of the training loop of a whole run of this trainer, with metrics, checkpoints, checks and logs."""
    request = RunRequest(loaded, "baseline", Path("runs") / str(number), ["benchmark"])
    stopwatch, run = Stopwatch(), Trainer.run

    def timed_run(trainer: Trainer) -> None:
        with stopwatch:
            run(trainer)

    with StopSignals() as stop, mock.patch.object(Trainer, "run", timed_run):
        metrics = train(request, Console(quiet=True), stop)
    return stopwatch.rate(metrics["run"]["dataset"]["num_train"] * len(metrics["epochs"]))


def hand_written_rate(config, dataset: Dataset, epochs: int) -> Rate:
    """Of the loop that tutorials show, on data that is normalised beforehand."""
    torch.manual_seed(config.reproducibility.seed)
    normalize = dataset.normalizer()
    sets = {name: TensorDataset(normalize(split.inputs), split.labels) for name, split in dataset.splits.items()}
    train_loader = DataLoader(sets["train"], batch_size=config.training.batch_size, shuffle=True)
    val_loader = DataLoader(sets["val"], batch_size=512)
    model = build_model(
        config.model.architecture,
        input_shape=dataset.input_shape,
        num_classes=dataset.num_classes,
        dropout=config.model.dropout,
        hidden_dims=config.model.hidden_dims,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=config.optimizer.learning_rate)
    criterion = nn.CrossEntropyLoss()
    best = float("inf")
    with Stopwatch() as stopwatch:
        for _ in range(epochs):
            train_epoch(model, train_loader, criterion, optimizer)
            val_loss = validate(model, val_loader, criterion)
            if val_loss < best:
                best = val_loss
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "best.pt")
    return stopwatch.rate(len(sets["train"]) * epochs)


def train_epoch(model: nn.Module, loader: DataLoader, criterion: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    for inputs, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()


@torch.no_grad()
def validate(model: nn.Module, loader: DataLoader, criterion: nn.Module) -> float:
    model.eval()
    total, correct, count = 0.0, 0, 0
    for inputs, labels in loader:
        logits = model(inputs)
        total += criterion(logits, labels).item() * len(labels)
        correct += (logits.argmax(1) == labels).sum().item()
        count += len(labels)
    return total / count


def write_images(path: Path) -> None:
    """3,840 training and 256 validation images of noise around one pattern per class: only their shape matters here."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, size=3840 + 256)
    patterns = generator.integers(60, 190, size=(10, 3, 32, 32))
    images = (patterns[labels] + generator.integers(-60, 60, size=(len(labels), 3, 32, 32))).clip(0, 255)
    images = images.astype(np.uint8)
    np.savez(path, x_train=images[:3840], y_train=labels[:3840], x_val=images[3840:], y_val=labels[3840:])


if __name__ == "__main__":
    main()
