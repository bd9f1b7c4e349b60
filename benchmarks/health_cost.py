#!/usr/bin/env python3
"""What the health signals cost: trainings with all of them beside the same trainings with none.

Both are this trainer with everything else on, in processes of their own that take turns epoch by epoch, so that what
else the machine does hits both alike. The cost is how much longer the training loop takes with signals, evaluations,
records and checkpoints included, plus what is done once, before the loop and after it: measuring the data and writing
the samples' history. That signals change nothing is checked: both have the same weights after every epoch.

    python -m benchmarks.health_cost                       # the cases of train_throughput.py
    python -m benchmarks.health_cost --case digits --rounds 61
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import statistics
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch

from benchmarks.train_throughput import CASES, ROOT, Case, write_images
from benchmarks.turns import LoopTime, train_in_turns
from common.config import LoadedConfig, load_config
from common.data import Dataset
from common.engine import assembly, epoch_record, trainer
from common.engine.assembly import load_data
from common.engine.session import RunRequest
from common.health import SampleHistory, measure_data
from common.metrics_file import read_metrics

LIMIT_PCT = 2.0
EPOCHS = {"digits": 20, "resnet": 2}
# The default is a second; where two trainings take turns, half of two seconds is the other one's.
USUAL = "checkpointing.min_seconds_between_saves=2.0"


class NoHistory:
    """Stands in for SampleHistory."""

    def __init__(self, labels_N: torch.Tensor) -> None:
        pass

    def add(self, *batch: torch.Tensor) -> None:
        pass

    def close_epoch(self, sum_over_processes: object) -> None:
        pass

    def state_dict(self, sum_over_processes: object) -> dict:
        return {}

    def write(self, path: Path) -> None:
        pass


def without_signals() -> None:
    """Take out of this process's trainer all that is there for the signals alone."""
    assembly.SampleHistory = NoHistory
    trainer.WeightProbe = lambda model: None
    epoch_record.watch_activations = lambda *args, **kwargs: nullcontext(SimpleNamespace(summary=lambda: None))
    epoch_record._health = lambda *args: {}


@dataclass(frozen=True)
class Round:
    """The loops of two trainings, and the seconds of processor time that signals take once."""

    plain: LoopTime
    watched: LoopTime
    once_s: float

    def every_epoch_pct(self, clock: str) -> float:
        return 100 * (getattr(self.watched, clock) / getattr(self.plain, clock) - 1)

    def once_pct(self, clock: str) -> float:
        return 100 * self.once_s / getattr(self.plain, clock)


def measure(name: str, rounds: int) -> bool:
    """Train in pairs, print what the signals cost, and return whether that is within the limit."""
    case, epochs = CASES[name], EPOCHS[name]
    torch.set_num_threads(case.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        loaded = load_case(case, epochs)
        dataset = load_data(loaded.config, write_files=False)
        # The first round pays for what happens once in a process, and is not counted.
        measured = [train_pair(loaded, dataset, number) for number in range(rounds + 1)][1:]
        os.chdir(ROOT)
    epoch_ms = 1000 * statistics.median(pair.plain.clock_s for pair in measured) / epochs
    print(f"{case.name}; torch {torch.__version__}, {case.threads} threads, {epochs} epochs of {epoch_ms:.0f} ms "
          f"without signals, {rounds} rounds")  # fmt: skip
    return report("clock_s", measured) & report("processor_s", measured)


def load_case(case: Case, epochs: int) -> LoadedConfig:
    overrides = [*case.overrides, USUAL, f"training.num_threads={case.threads}", f"training.epochs={epochs}"]
    if "data.source=npz" in overrides:
        write_images(Path("images.npz"))
        overrides.append("data.root=images.npz")
    return load_config(ROOT / "configs/training_config.yaml", mode="baseline", overrides=overrides)


def train_pair(loaded: LoadedConfig, dataset: Dataset, number: int) -> Round:
    """One training with signals and one without, each as often the first."""
    requests = [RunRequest(loaded, "baseline", Path(kind), ["benchmark"], publish=False, dataset=dataset)
                for kind in ("plain", "watched")]  # fmt: skip
    changes = [without_signals, lambda: None]
    order = 1 if number % 2 else -1
    plain, watched = train_in_turns(requests[::order], changes[::order])[::order]
    require_same_weights(*(request.output_dir for request in requests))
    for request in requests:
        shutil.rmtree(request.output_dir)
    return Round(plain, watched, seconds_once(dataset))


def require_same_weights(*folders: Path) -> None:
    hashes = [[epoch["weights_sha256"] for epoch in read_metrics(folder)["epochs"]] for folder in folders]
    assert hashes[0] == hashes[1], "watching changed the training"


def seconds_once(dataset: Dataset) -> float:
    """Of the processor, for what is done once in a training."""
    started = time.process_time()
    measure_data(dataset).as_dict()
    SampleHistory(dataset.splits["train"].labels).write("samples.npz")
    return time.process_time() - started


def report(clock: str, measured: list[Round]) -> bool:
    every_epoch = [pair.every_epoch_pct(clock) for pair in measured]
    once = [pair.once_pct(clock) for pair in measured]
    together = [a + b for a, b in zip(every_epoch, once, strict=True)]
    print(f"  by {'the clock' if clock == 'clock_s' else 'processor time'}: "
          f"in the loop {in_words(every_epoch)}, once {statistics.median(once):+.2f}%, together {in_words(together)}, "
          f"quartiles {' and '.join(f'{value:+.2f}%' for value in statistics.quantiles(together, n=4)[::2])}",
          flush=True)  # fmt: skip
    return statistics.median(together) <= LIMIT_PCT


def in_words(costs_pct: list[float]) -> str:
    low, high = median_interval(costs_pct)
    return f"{statistics.median(costs_pct):+.2f}% (95% interval {low:+.2f}% to {high:+.2f}%)"


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
    parser.add_argument("--case", choices=sorted(EPOCHS), nargs="+", default=sorted(EPOCHS))
    parser.add_argument("--rounds", type=int, default=41, help="pairs of trainings (2 or more)")
    args = parser.parse_args()
    kept = [measure(name, args.rounds) for name in args.case]
    print(f"the limit of {LIMIT_PCT}% is {'kept' if all(kept) else 'exceeded'}")


if __name__ == "__main__":
    main()
