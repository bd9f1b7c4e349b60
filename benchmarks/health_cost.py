#!/usr/bin/env python3
"""What the health signals cost: the same training with all of them and with none.

Both train simple_cnn on the digits with the same numbers, evaluate after every epoch and serialise a checkpoint; the
one with signals also measures the data, probes the first step and the last of every epoch, watches activations,
follows every sample and writes its history. They take turns epoch by epoch, each going first as often as the other,
so that what else the machine does hits both alike. A round is one whole training of each; its cost is that of the
lower quartile of its epochs, plus a share of what is done once.

    python benchmarks/health_cost.py
    python benchmarks/health_cost.py --rounds 15 --epochs 20 --threads 2
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.checkpoints import state_sha256, to_bytes
from common.data import Dataset, epoch_order, load_dataset, make_batches, split_into_batches
from common.health import (
    BatchMixing,
    SampleHistory,
    WeightProbe,
    initial_loss_ratio,
    measure_data,
    series_signals,
    watch_activations,
)
from common.losses import build_loss
from common.models import build_model

LIMIT_PCT = 2.0


class Training:
    """Trains as the engine does, without its files and reports."""

    def __init__(self, dataset: Dataset, batch_size: int) -> None:
        torch.manual_seed(0)
        self.dataset = dataset
        self.batch_size = batch_size
        self.model = build_model("simple_cnn", input_shape=dataset.input_shape, num_classes=dataset.num_classes)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.loss = build_loss()
        self.parameters = list(self.model.parameters())
        normalizer = dataset.normalizer()
        self.sources = {
            name: make_batches(split, "cpu", normalizer=normalizer) for name, split in dataset.splits.items()
        }
        self.epoch_s: list[float] = []
        self.once_s = 0.0

    def start(self) -> None:
        """What is done once before the first epoch."""

    def finish(self, folder: Path) -> None:
        """What is done once after the last epoch."""

    def timed_epoch(self, number: int) -> None:
        self.epoch_s.append(processor_time_s(lambda: self.epoch(number)))

    def epoch(self, number: int) -> None:
        order = epoch_order(self.dataset.splits["train"].num_samples, 0, number)
        self.index_batches = split_into_batches(order, self.batch_size)
        last = len(self.index_batches) - 1
        self.model.train()
        for index, batch in enumerate(self.sources["train"].batches(self.index_batches)):
            self.step(batch, is_first=number == 1 and index == 0, is_last=index == last)
        self.model.eval()
        with torch.inference_mode():
            self.evaluate()
        to_bytes(self.state())

    def step(self, batch, *, is_first: bool, is_last: bool) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        losses_B = self.loss.per_sample(self.model(batch.inputs), batch.labels)
        (losses_B.sum() / len(losses_B)).backward()
        self.check_finite(losses_B)
        self.optimizer.step()

    def check_finite(self, losses_B: Tensor) -> tuple[float, float]:
        norm = nn.utils.get_total_norm([parameter.grad for parameter in self.parameters])
        loss, grad_norm = torch.stack([losses_B.detach().double().mean(), norm.double()]).tolist()
        assert math.isfinite(loss) and math.isfinite(grad_norm)
        return loss, grad_norm

    def evaluate(self) -> None:
        """Look at 512 training samples and at the validation split."""
        self.evaluate_split("train")
        self.evaluate_split("val")

    def evaluate_split(self, name: str) -> list[Tensor]:
        indices = torch.arange(min(512, self.dataset.splits[name].num_samples))
        return [self.model(batch.inputs) for batch in self.sources[name].batches([indices])]

    def state(self) -> dict:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


class WatchedTraining(Training):
    """The same with every signal."""

    def start(self) -> None:
        self.data = measure_data(self.dataset).as_dict()
        self.probe = WeightProbe(self.model)
        train = self.dataset.splits["train"]
        self.history = SampleHistory(train.labels)
        self.mixing = BatchMixing(train.labels, self.dataset.num_classes)
        self.records: list[dict] = []

    def epoch(self, number: int) -> None:
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        super().epoch(number)

    def step(self, batch, *, is_first: bool, is_last: bool) -> None:
        probe = self.probe if is_first or is_last else None
        self.optimizer.zero_grad(set_to_none=True)
        if probe:
            probe.before_backward()
        logits_BC = self.model(batch.inputs)
        losses_B = self.loss.per_sample(logits_BC, batch.labels)
        (losses_B.sum() / len(losses_B)).backward()
        loss, grad_norm = self.check_finite(losses_B)
        self.losses.append(loss)
        self.grad_norms.append(grad_norm)
        self.history.add(batch.indices, losses_B, logits_BC)
        if probe:
            probe.before_update()
        self.optimizer.step()
        if probe:
            self.weights = probe.after_update().as_dict()
        if is_first:
            self.initial = {"loss_ratio": initial_loss_ratio(loss, self.dataset.num_classes), **self.weights}

    def evaluate(self) -> None:
        self.evaluate_split("train")
        with watch_activations(self.model) as watch:
            self.evaluate_split("val")
        self.activations = watch.summary().as_dict()

    def state(self) -> dict:
        self.history.close_epoch()
        self.records.append(
            {
                "weights": self.weights,
                "activations": self.activations,
                "samples": self.history.signals().as_dict(),
                "grad_norm": series_signals(self.grad_norms),
                "loss": series_signals(self.losses),
                "batch_label_entropy": self.mixing.label_entropy_ratio(self.index_batches),
            }
        )
        return super().state() | {"history": self.history.state_dict()}

    def finish(self, folder: Path) -> None:
        self.history.write(folder / "samples.npz")


def processor_time_s(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def measure_round(dataset: Dataset, epochs: int, batch_size: int, folder: Path) -> tuple[Training, Training]:
    """One training of each kind, in turns."""
    pair = (Training(dataset, batch_size), WatchedTraining(dataset, batch_size))
    for training in pair:
        training.once_s += processor_time_s(training.start)
    for number in range(1, epochs + 1):
        for training in pair if number % 2 else pair[::-1]:
            training.timed_epoch(number)
    for training in pair:
        training.once_s += processor_time_s(partial(training.finish, folder))
    hashes = {state_sha256(training.model.state_dict()) for training in pair}
    assert len(hashes) == 1, "watching changed the training"
    return pair


def cost_pct(plain: Training, watched: Training) -> tuple[float, float]:
    """What the signals cost in every epoch and what they cost once, as percent of a plain training."""
    plain_epoch_s, watched_epoch_s = undisturbed_s(plain.epoch_s), undisturbed_s(watched.epoch_s)
    once_s = (watched.once_s - plain.once_s) / len(plain.epoch_s)
    return 100 * (watched_epoch_s / plain_epoch_s - 1), 100 * once_s / plain_epoch_s


def undisturbed_s(times_s: list[float]) -> float:
    """The lower quartile: what else a machine does only ever makes an epoch longer."""
    return statistics.quantiles(times_s, n=4)[0]


def report(name: str, costs_pct: list[float]) -> None:
    low, middle, high = statistics.quantiles(costs_pct, n=4)
    print(f"{name}: median {middle:+.2f}%, quartiles {low:+.2f}% to {high:+.2f}%, "
          f"from {min(costs_pct):+.2f}% to {max(costs_pct):+.2f}%")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="trainings of each kind (2 or more)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of a training")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dataset = load_dataset("digits", write_files=False)
    print(f"torch {torch.__version__}, {args.threads} threads, digits, simple_cnn, batch {args.batch_size}, "
          f"{args.epochs} epochs, {args.rounds} rounds, processor time")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        # The first round pays for what happens once in a process, and is not counted.
        measure_round(dataset, 2, args.batch_size, Path(folder))
        pairs = [measure_round(dataset, args.epochs, args.batch_size, Path(folder)) for _ in range(args.rounds)]
    epochs_pct, once_pct = zip(*(cost_pct(*pair) for pair in pairs), strict=True)
    plain_s = statistics.median(undisturbed_s(plain.epoch_s) for plain, _ in pairs)
    print(f"a plain epoch takes {1e3 * plain_s:.1f} ms")
    report("every epoch", list(epochs_pct))
    report("once", list(once_pct))
    totals_pct = [each + once for each, once in zip(epochs_pct, once_pct, strict=True)]
    report("together", totals_pct)
    kept = statistics.median(totals_pct) <= LIMIT_PCT
    print(f"the limit of {LIMIT_PCT}% is {'kept' if kept else 'exceeded'}")


if __name__ == "__main__":
    main()
