#!/usr/bin/env python3
"""What the health signals cost: a training with all of them beside the same with none.

A training of simple_cnn on the digits evaluates after every epoch on the engine's samples and in its batches, and makes
the content of a checkpoint and of metrics.json. One epoch of two is done with all signals: it also probes its last step
(and the very first), watches activations, follows every sample, and has what it records in checkpoint and metrics.json.
Both kinds use the same memory, and each comes first as often as the other, so that what else the machine does hits both
alike. Done once are measuring the data and writing the samples' history.

A round is one training. Its cost is the median over its pairs of epochs of how much longer the one with signals took,
plus a share of what is done once; the result is the median over the rounds, with the interval that holds the true
median in 95 of 100 cases. That the signals change no weight is checked against a training without any.

    python benchmarks/health_cost.py
    python benchmarks/health_cost.py --rounds 15 --threads 2
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.checkpoints import state_sha256, to_bytes
from common.classification_metrics import ClassificationMetrics, classification_metrics
from common.data import Dataset, epoch_order, load_dataset, make_batches, split_into_batches
from common.engine.assembly import EVALUATION_BATCH_SIZE, TRAIN_SAMPLE_SIZES
from common.health import (
    BatchMixing,
    SampleHistory,
    WeightProbe,
    initial_loss_ratio,
    measure_data,
    recall_signals,
    series_signals,
    watch_activations,
)
from common.losses import build_loss
from common.models import build_model
from common.record_texts import RecordTexts

LIMIT_PCT = 2.0


class Books:
    """The records of the epochs, and what is written of them."""

    def __init__(self) -> None:
        self.records: list[dict] = []
        self.checkpoint_texts = RecordTexts(json.dumps)
        self.metrics_texts = RecordTexts(json.dumps)

    def write(self, state: dict) -> None:
        to_bytes(state | {"history": ", ".join(self.checkpoint_texts.of(self.records))})
        ",\n".join(self.metrics_texts.of(self.records)).encode()


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
        self.evaluated = {name: self.evaluation_batches(name) for name in ("train", "val")}
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        self.books = Books()

    def evaluation_batches(self, name: str) -> list[Tensor]:
        """The engine's: the validation split, and as many samples of the training split within bounds."""
        num_samples = num_evaluated = self.dataset.splits[name].num_samples
        if name == "train":
            fewest, most = TRAIN_SAMPLE_SIZES
            num_evaluated = min(num_samples, max(fewest, min(most, self.dataset.splits["val"].num_samples)))
        indices = torch.arange(num_evaluated) * num_samples // num_evaluated
        return split_into_batches(indices, max(self.batch_size, EVALUATION_BATCH_SIZE))

    def epoch(self, number: int) -> None:
        order = epoch_order(self.dataset.splits["train"].num_samples, 0, number)
        self.index_batches = split_into_batches(order, self.batch_size)
        self.losses, self.grad_norms = [], []
        last = len(self.index_batches) - 1
        self.model.train()
        for index, batch in enumerate(self.sources["train"].batches(self.index_batches)):
            self.step(batch, is_first=number == 1 and index == 0, is_last=index == last)
        self.model.eval()
        with torch.inference_mode():
            train, val = self.evaluate()
        self.close(number, train, val)
        self.books.write(self.state())

    def step(self, batch, *, is_first: bool, is_last: bool) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        losses_B = self.loss.per_sample(self.model(batch.inputs), batch.labels)
        (losses_B.sum() / len(losses_B)).backward()
        self.check_finite(losses_B)
        self.optimizer.step()

    def check_finite(self, losses_B: Tensor) -> float:
        norm = nn.utils.get_total_norm([parameter.grad for parameter in self.parameters])
        loss, grad_norm = torch.stack([losses_B.detach().double().mean(), norm.double()]).tolist()
        assert math.isfinite(loss) and math.isfinite(grad_norm)
        self.losses.append(loss)
        self.grad_norms.append(grad_norm)
        return loss

    def evaluate(self) -> tuple[ClassificationMetrics, ClassificationMetrics]:
        return self.evaluate_split("train"), self.evaluate_split("val")

    def evaluate_split(self, name: str) -> ClassificationMetrics:
        batches = [
            (self.model(batch.inputs), batch.labels) for batch in self.sources[name].batches(self.evaluated[name])
        ]
        logits_BC, labels_B = (torch.cat(column) for column in zip(*batches, strict=True))
        return classification_metrics(labels_B.numpy(), logits_BC.argmax(dim=1).numpy(), self.dataset.num_classes)

    def close(self, number: int, train: ClassificationMetrics, val: ClassificationMetrics) -> None:
        """Append the epoch's record."""
        self.books.records.append(
            {
                "num": number,
                "train_loss": statistics.fmean(self.losses),
                "train_acc": train.accuracy_pct,
                "val_acc": val.accuracy_pct,
                "val_f1": val.f1,
                "val_precision": val.precision,
                "val_recall": val.recall,
                "grad_norm": {"median": statistics.median(self.grad_norms), "max": max(self.grad_norms)},
            }
        )

    def state(self) -> dict:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


class WatchedTraining(Training):
    """The same with every signal, in the epochs that are watched."""

    def start(self) -> None:
        """What is done once before the first epoch."""
        self.data = measure_data(self.dataset).as_dict()
        self.probe = WeightProbe(self.model)
        train = self.dataset.splits["train"]
        self.history = SampleHistory(train.labels)
        self.mixing = BatchMixing(train.labels, self.dataset.num_classes)

    def finish(self, folder: Path) -> None:
        """What is done once after the last epoch."""
        self.history.write(folder / "samples.npz")

    def timed_epoch_s(self, number: int, books: Books, *, watched: bool) -> float:
        self.books, self.is_watched = books, watched
        return processor_time_s(lambda: self.epoch(number))

    def step(self, batch, *, is_first: bool, is_last: bool) -> None:
        if not self.is_watched:
            super().step(batch, is_first=is_first, is_last=is_last)
            return
        probe = self.probe if is_first or is_last else None
        self.optimizer.zero_grad(set_to_none=True)
        if probe:
            probe.before_backward()
        logits_BC = self.model(batch.inputs)
        losses_B = self.loss.per_sample(logits_BC, batch.labels)
        (losses_B.sum() / len(losses_B)).backward()
        loss = self.check_finite(losses_B)
        self.history.add(batch.indices, losses_B, logits_BC)
        if probe:
            probe.before_update()
        self.optimizer.step()
        if probe:
            self.weights = probe.after_update().as_dict()
        if is_first:
            self.initial = {"loss_ratio": initial_loss_ratio(loss, self.dataset.num_classes), **self.weights}

    def evaluate(self) -> tuple[ClassificationMetrics, ClassificationMetrics]:
        if not self.is_watched:
            return super().evaluate()
        train = self.evaluate_split("train")
        with watch_activations(self.model, num_passes=len(self.evaluated["val"])) as watch:
            val = self.evaluate_split("val")
        self.activations = watch.summary().as_dict()
        return train, val

    def close(self, number: int, train: ClassificationMetrics, val: ClassificationMetrics) -> None:
        super().close(number, train, val)
        if not self.is_watched:
            return
        self.history.close_epoch()
        recalls = [row.recall for row in val.per_class]
        self.books.records[-1]["health"] = {
            "weights": self.weights,
            "activations": self.activations,
            "samples": self.history.signals().as_dict(),
            "recall": recall_signals(recalls, [row.support for row in val.per_class]),
            "grad_norm_series": series_signals(self.grad_norms),
            "loss_series": series_signals(self.losses),
            "batch_label_entropy": self.mixing.label_entropy_ratio(self.index_batches),
        }

    def state(self) -> dict:
        return super().state() | ({"samples": self.history.state_dict()} if self.is_watched else {})


def processor_time_s(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def measure_round(dataset: Dataset, epochs: int, batch_size: int, folder: Path) -> Round:
    """A training of so many pairs of epochs."""
    training = WatchedTraining(dataset, batch_size)
    once_s = processor_time_s(training.start)
    books = {True: Books(), False: Books()}
    times_s: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(epochs):
        for place, watched in enumerate((True, False) if pair % 2 == 0 else (False, True)):
            times_s[watched].append(training.timed_epoch_s(2 * pair + place + 1, books[watched], watched=watched))
    once_s += processor_time_s(partial(training.finish, folder))
    return Round(times_s[False], times_s[True], once_s, state_sha256(training.model.state_dict()))


def unwatched_sha256(dataset: Dataset, epochs: int, batch_size: int) -> str:
    """The weights after as many epochs without any signal."""
    training = Training(dataset, batch_size)
    for number in range(1, 2 * epochs + 1):
        training.epoch(number)
    return state_sha256(training.model.state_dict())


@dataclass(frozen=True)
class Round:
    """Seconds of the epochs of either kind, pair by pair, and of what is done once."""

    plain_s: list[float]
    watched_s: list[float]
    once_s: float
    weights_sha256: str

    @property
    def every_epoch_pct(self) -> float:
        ratios = [watched_s / plain_s for watched_s, plain_s in zip(self.watched_s, self.plain_s, strict=True)]
        return 100 * (statistics.median(ratios) - 1)

    @property
    def once_pct(self) -> float:
        return 100 * self.once_s / len(self.plain_s) / statistics.median(self.plain_s)


def report(name: str, costs_pct: list[float]) -> None:
    low, middle, high = statistics.quantiles(costs_pct, n=4)
    sure_low, sure_high = median_interval(costs_pct)
    print(f"{name}: median {middle:+.2f}% (95% interval {sure_low:+.2f}% to {sure_high:+.2f}%), "
          f"quartiles {low:+.2f}% to {high:+.2f}%, from {min(costs_pct):+.2f}% to {max(costs_pct):+.2f}%")  # fmt: skip


def median_interval(values: list[float]) -> tuple[float, float]:
    """The narrowest pair of symmetric order statistics that holds the true median with at least 95% probability.

    Source: Conover 1999, "Practical nonparametric statistics", 3.2: how many values lie below the median is binomial.
    """
    count, outside, rank = len(values), 0.0, 0
    while rank < (count - 1) // 2 and outside + math.comb(count, rank) / 2**count <= 0.025:
        outside += math.comb(count, rank) / 2**count
        rank += 1
    rank = max(rank - 1, 0)
    ordered = sorted(values)
    return ordered[rank], ordered[count - 1 - rank]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="trainings (2 or more)")
    parser.add_argument("--epochs", type=int, default=20, help="pairs of epochs of a training")
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
        rounds = [measure_round(dataset, args.epochs, args.batch_size, Path(folder)) for _ in range(args.rounds)]
    hashes = {unwatched_sha256(dataset, args.epochs, args.batch_size), *(one.weights_sha256 for one in rounds)}
    assert len(hashes) == 1, "watching changed the training"
    plain_s = statistics.median(second for one in rounds for second in one.plain_s)
    print(f"a plain epoch takes {1e3 * plain_s:.1f} ms")
    totals_pct = [one.every_epoch_pct + one.once_pct for one in rounds]
    report("every epoch", [one.every_epoch_pct for one in rounds])
    report("once", [one.once_pct for one in rounds])
    report("together", totals_pct)
    kept = statistics.median(totals_pct) <= LIMIT_PCT
    print(f"the limit of {LIMIT_PCT}% is {'kept' if kept else 'exceeded'}")


if __name__ == "__main__":
    main()
