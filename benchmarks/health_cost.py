#!/usr/bin/env python3
"""What the health signals cost: epochs with all of them beside epochs with none, in one training of this trainer.

Everything else is on, metrics, checkpoints and logs included. Epochs come in blocks, as many as there are between two
saves (a second's worth), since what is worked out of the signals then belongs to them. Of every four blocks the first
and the last have the signals, so that all use the same memory and what else the machine does hits both kinds alike.
Done once are measuring the data and writing the samples' history, shared by the epochs that the config trains.

A round is one training of four blocks. Its cost is how much longer those with signals took, plus a share of what is
done once; the result is the median over the rounds, with the interval that holds the true median in 95 of 100 cases.
That the signals change nothing is checked: the weights are the same after every epoch as in a training that has them
in all.

    python -m benchmarks.health_cost                       # the cases of train_throughput.py
    python -m benchmarks.health_cost --case digits --batch-size 8 --rounds 20      # longer epochs
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import torch

from benchmarks.train_throughput import CASES, ROOT, Case, write_images
from common.config import LoadedConfig, load_config
from common.console import Console
from common.data import Dataset
from common.engine import epoch_record
from common.engine.assembly import load_data
from common.engine.run import train
from common.engine.session import RunRequest
from common.engine.trainer import Trainer
from common.health import SampleHistory, measure_data
from common.signals import StopSignals

LIMIT_PCT = 2.0
ROUNDS = {"digits": 40, "resnet": 6}
BLOCKS_WATCHED = (True, False, False, True)

_WATCH, _HEALTH = epoch_record.watch_activations, epoch_record.late_health


class Signals:
    """Turns all signals of one training off and on again."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._probe = trainer._probe
        self._history = trainer._parts.state.sample_history

    def off(self) -> None:
        self._trainer._probe = None
        for name in ("add", "close_epoch"):
            setattr(self._history, name, lambda *args: None)
        self._history.late_state_dict = lambda *args: {}
        epoch_record.watch_activations = lambda *args, **kwargs: nullcontext()
        epoch_record.late_health = lambda *args: {}

    def on(self) -> None:
        self._trainer._probe = self._probe
        for name in ("add", "close_epoch", "late_state_dict"):
            self._history.__dict__.pop(name, None)
        epoch_record.watch_activations, epoch_record.late_health = _WATCH, _HEALTH


@dataclass
class Round:
    """Seconds of the epochs without signals and with them, block by block, and of what is done once."""

    epochs_per_block: int
    plain_s: list[float] = field(default_factory=list)
    watched_s: list[float] = field(default_factory=list)
    once_s: float = 0.0

    @property
    def epoch_s(self) -> float:
        return sum(self.plain_s) / len(self.plain_s) / self.epochs_per_block

    @property
    def every_epoch_pct(self) -> float:
        return 100 * (sum(self.watched_s) / sum(self.plain_s) - 1)

    def once_pct(self, num_epochs: int) -> float:
        return 100 * self.once_s / num_epochs / self.epoch_s


class Alternation:
    """Asked between epochs whether to give up: at the end of a block, saves and sets the kind of the next one."""

    def __init__(self, measured: Round) -> None:
        self._measured = measured

    def begin(self, trainer: Trainer) -> None:
        self._trainer, self._signals = trainer, Signals(trainer)

    def __call__(self, history: Sequence[Mapping]) -> bool:
        blocks, epochs = divmod(len(history), self._measured.epochs_per_block)
        if epochs == 0:
            if blocks:
                self.end_block(BLOCKS_WATCHED[blocks - 1])
            (self._signals.on if BLOCKS_WATCHED[blocks] else self._signals.off)()
            self._began_s = time.process_time()
        return False

    def end_block(self, is_watched: bool) -> None:
        self._trainer._saver.write_held()
        self._trainer._recorder.publish(self._trainer._progress)
        times = self._measured.watched_s if is_watched else self._measured.plain_s
        times.append(time.process_time() - self._began_s)


def measure(name: str, rounds: int, changes: list[str]) -> bool:
    """Print what the signals cost, with some settings changed, and return whether that is within the limit."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        loaded = load_case(case, changes)
        num_epochs = loaded.config.training.epochs
        request = RunRequest(loaded, "baseline", Path("first"), ["benchmark"], publish=False, reports=False,
                             dataset=load_data(loaded.config, write_files=False))  # fmt: skip
        epochs_per_block = max(1, round(1.0 / usual_epoch_s(request)))
        length = [f"training.epochs={len(BLOCKS_WATCHED) * epochs_per_block}"]
        request = replace(request, loaded=load_case(case, [*changes, *length]))
        expected = weights_of(train(replace(request, output_dir=Path("whole")), Console(quiet=True), StopSignals()))
        measured = [measure_round(request, number, epochs_per_block, expected) for number in range(rounds)]
        os.chdir(ROOT)
    epoch_ms = 1000 * statistics.median(one.epoch_s for one in measured)
    print(
        f"{' '.join([case.name, *changes])}; torch {torch.__version__}, {case.threads} threads, {rounds} trainings, "
        f"{epochs_per_block} epochs between two saves, processor time: {epoch_ms:.1f} ms an epoch without signals"
    )
    report("every epoch", [one.every_epoch_pct for one in measured])
    report(f"once in {num_epochs} epochs", [one.once_pct(num_epochs) for one in measured])
    return report("together", [one.every_epoch_pct + one.once_pct(num_epochs) for one in measured]) <= LIMIT_PCT


def load_case(case: Case, changes: list[str]) -> LoadedConfig:
    # The blocks decide when a training saves.
    overrides = [*case.overrides, f"training.num_threads={case.threads}", "early_stopping.enabled=false",
                 "checkpointing.min_seconds_between_saves=3600", "checkpointing.checkpoint_every_n_epochs=null",
                 *changes]  # fmt: skip
    if "data.source=npz" in overrides:
        write_images(Path("images.npz"))
        overrides.append("data.root=images.npz")
    return load_config(ROOT / "configs/training_config.yaml", mode="baseline", overrides=overrides)


def usual_epoch_s(request: RunRequest) -> float:
    """Of the second epoch: the first pays for what happens once in a process."""
    metrics = train(replace(request, stop_after_epochs=2), Console(quiet=True), StopSignals())
    return metrics["epochs"][1]["time_s"]


def measure_round(request: RunRequest, number: int, epochs_per_block: int, expected: list[str]) -> Round:
    measured = Round(epochs_per_block)
    alternation, run = Alternation(measured), Trainer.run

    def begun_run(trainer: Trainer) -> None:
        alternation.begin(trainer)
        run(trainer)
        # Nobody asks after the last epoch, whose block has the signals like the trainings to come.
        alternation.end_block(BLOCKS_WATCHED[-1])

    with StopSignals() as stop, mock.patch.object(Trainer, "run", begun_run):
        mine = replace(request, output_dir=Path(str(number)), give_up=alternation)
        metrics = train(mine, Console(quiet=True), stop)
    assert weights_of(metrics) == expected, "watching changed the training"
    measured.once_s = processor_time_s(lambda: do_once(request.dataset))
    return measured


def weights_of(metrics: Mapping) -> list[str]:
    return [epoch["weights_sha256"] for epoch in metrics["epochs"]]


def do_once(dataset: Dataset) -> None:
    measure_data(dataset).as_dict()
    SampleHistory(dataset.splits["train"].labels).write("samples.npz")


def processor_time_s(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def report(name: str, costs_pct: list[float]) -> float:
    """Print the median with its interval and the quartiles, and return it."""
    middle = statistics.median(costs_pct)
    (low, high), quartiles = median_interval(costs_pct), statistics.quantiles(costs_pct, n=4)
    print(f"  {name}: {middle:+.2f}% (95% interval {low:+.2f}% to {high:+.2f}%), "
          f"quartiles {quartiles[0]:+.2f}% to {quartiles[2]:+.2f}%", flush=True)  # fmt: skip
    return middle


def median_interval(values: list[float]) -> tuple[float, float]:
    """The narrowest pair of symmetric order statistics that holds the true median with at least 95% probability.

    Of fewer than 6 values there is none.

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
    parser.add_argument("--case", choices=sorted(ROUNDS), nargs="+", default=sorted(ROUNDS))
    parser.add_argument("--rounds", type=int, help="trainings (6 or more); by default 40, of the images 6")
    parser.add_argument("--batch-size", type=int, help="another one than the case's")
    args = parser.parse_args()
    if args.rounds is not None and args.rounds < 6:
        parser.error("--rounds: of fewer than 6 there is no interval")
    changes = [f"training.batch_size={args.batch_size}"] if args.batch_size else []
    kept = [measure(name, args.rounds or ROUNDS[name], changes) for name in args.case]
    print(f"the limit of {LIMIT_PCT}% is {'kept' if all(kept) else 'exceeded'}")


if __name__ == "__main__":
    main()
