#!/usr/bin/env python3
"""What the health signals cost: epochs with all of them beside epochs with none, in one training of this trainer.

Everything else is on, metrics, checkpoints and logs included. Of every two epochs one has the signals, and each kind
comes first as often as the other, so that both use the same memory and what else the machine does hits both alike.
Much of the work on signals waits for the next save. So epochs are saved in blocks, and saving a block in which every
second epoch has signals is timed beside saving one in which none has; of those with signals a block has as many as the
config lets wait for a save. Done once are measuring the data and writing the samples' history, shared by the epochs
that the config trains.

A round is one training. Its cost is the median over its pairs of epochs of how much longer the one with signals took,
plus what saving its signals takes and a share of what is done once; the result is the median over the rounds, with the
interval that holds the true median in 95 of 100 cases. That the signals change nothing is checked: the weights are the
same after every epoch as in a training that has them in all.

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
from common.engine.saver import MOST_WAITING_EPOCHS
from common.engine.session import RunRequest
from common.engine.trainer import Trainer
from common.health import SampleHistory, measure_data
from common.signals import StopSignals

LIMIT_PCT = 2.0
ROUNDS = {"digits": 40, "resnet": 6}
# Of a training, an even number: every second one is without signals.
BLOCKS = {"digits": 10, "resnet": 2}

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
    """Seconds of the epochs of mixed blocks, of saving blocks, and of what is done once.

    ``saved_together`` epochs are saved at once.
    """

    saved_together: int
    plain_s: list[float] = field(default_factory=list)
    watched_s: list[float] = field(default_factory=list)
    save_plain_s: list[float] = field(default_factory=list)
    save_mixed_s: list[float] = field(default_factory=list)
    once_s: float = 0.0

    @property
    def epoch_s(self) -> float:
        return statistics.median(self.plain_s) + statistics.fmean(self.save_plain_s) / self.saved_together

    @property
    def training_pct(self) -> float:
        ratios = [watched_s / plain_s for watched_s, plain_s in zip(self.watched_s, self.plain_s, strict=True)]
        return 100 * (statistics.median(ratios) - 1)

    @property
    def saving_pct(self) -> float:
        num_watched = self.saved_together // 2
        longer_s = statistics.fmean(self.save_mixed_s) - statistics.fmean(self.save_plain_s)
        return 100 * longer_s / num_watched / self.epoch_s

    def once_pct(self, num_epochs: int) -> float:
        return 100 * self.once_s / num_epochs / self.epoch_s


class Alternation:
    """Asked between epochs whether to give up: times the epoch that has ended, and sets the kind of the next one."""

    def __init__(self, measured: Round, number: int, num_epochs: int) -> None:
        self._measured = measured
        self._number = number
        self._num_epochs = num_epochs

    def begin(self, trainer: Trainer) -> None:
        self._trainer, self._signals = trainer, Signals(trainer)

    def __call__(self, history: Sequence[Mapping]) -> bool:
        if history:
            self.end_epoch(len(history) - 1)
        (self._signals.on if self._is_watched(len(history)) else self._signals.off)()
        self._began_s = time.process_time()
        return len(history) == self._num_epochs

    def end_epoch(self, index: int) -> None:
        """Note the time of the epoch, counted from 0, and save where its block ends."""
        measured, took_s = self._measured, time.process_time() - self._began_s
        if self._is_mixed(index):
            (measured.watched_s if self._is_watched(index) else measured.plain_s).append(took_s)
        if (index + 1) % measured.saved_together == 0:
            saved_s = processor_time_s(self._save)
            (measured.save_mixed_s if self._is_mixed(index) else measured.save_plain_s).append(saved_s)

    def end(self) -> None:
        """Leave the engine as it was."""
        self._signals.on()

    def _save(self) -> None:
        self._trainer._saver.write_held()
        self._trainer._recorder.publish(self._trainer._progress)

    def _is_mixed(self, index: int) -> bool:
        return index // self._measured.saved_together % 2 == 0

    def _is_watched(self, index: int) -> bool:
        """Of every pair of epochs in a mixed block one, in turns the first and the second."""
        block, place = divmod(index, self._measured.saved_together)
        return self._is_mixed(index) and (place + place // 2 + block // 2 + self._number) % 2 == 0


def measure(name: str, rounds: int, changes: list[str]) -> bool:
    """Print what the signals cost, with some settings changed, and return whether that is within the limit."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        loaded = load_case(case, changes)
        num_epochs = loaded.config.training.epochs
        request = RunRequest(loaded, "baseline", Path("first"), ["benchmark"], publish=False, reports=False,
                             dataset=load_data(loaded.config, write_files=False))  # fmt: skip
        saved_together = 2 * most_waiting(request)
        num_measured = BLOCKS[name] * saved_together
        # One more than that, before which it gives up: after its last epoch, a training saves by itself.
        length = f"training.epochs={num_measured + 1}"
        # The blocks decide when it saves.
        by_blocks = ["checkpointing.min_seconds_between_saves=3600", "checkpointing.checkpoint_every_n_epochs=null"]
        request = replace(request, loaded=load_case(case, [*changes, length, *by_blocks]))
        expected = weights_of(train(replace(request, output_dir=Path("whole")), Console(quiet=True), StopSignals()))
        measured = [measure_round(request, number, saved_together, num_measured, expected) for number in range(rounds)]
        os.chdir(ROOT)
    epoch_ms = 1000 * statistics.median(one.epoch_s for one in measured)
    print(
        f"{' '.join([case.name, *changes])}; torch {torch.__version__}, {case.threads} threads, {rounds} trainings of "
        f"{BLOCKS[name]} times {saved_together} epochs, processor time: {epoch_ms:.1f} ms an epoch without signals"
    )
    report("while training", [one.training_pct for one in measured])
    report("while saving", [one.saving_pct for one in measured])
    report(f"once in {num_epochs} epochs", [one.once_pct(num_epochs) for one in measured])
    together = [one.training_pct + one.saving_pct + one.once_pct(num_epochs) for one in measured]
    return report("together", together) <= LIMIT_PCT


def load_case(case: Case, changes: list[str]) -> LoadedConfig:
    overrides = [*case.overrides, f"training.num_threads={case.threads}", "early_stopping.enabled=false", *changes]
    if "data.source=npz" in overrides:
        write_images(Path("images.npz"))
        overrides.append("data.root=images.npz")
    return load_config(ROOT / "configs/training_config.yaml", mode="baseline", overrides=overrides)


def most_waiting(request: RunRequest) -> int:
    """How many epochs are saved at once, by the config and by how long the second one takes (the first one pays for
    what happens once in a process)."""
    metrics = train(replace(request, stop_after_epochs=2), Console(quiet=True), StopSignals())
    checkpointing = request.loaded.config.checkpointing
    in_time = int(checkpointing.min_seconds_between_saves / metrics["epochs"][1]["time_s"])
    return max(1, min(in_time, checkpointing.checkpoint_every_n_epochs or in_time, MOST_WAITING_EPOCHS // 2))


def measure_round(request: RunRequest, number: int, saved_together: int, num_epochs: int, expected: list[str]) -> Round:
    measured = Round(saved_together)
    alternation, run = Alternation(measured, number, num_epochs), Trainer.run

    def begun_run(trainer: Trainer) -> None:
        alternation.begin(trainer)
        run(trainer)
        alternation.end()

    with StopSignals() as stop, mock.patch.object(Trainer, "run", begun_run):
        mine = replace(request, output_dir=Path(str(number)), give_up=alternation)
        metrics = train(mine, Console(quiet=True), stop)
    assert weights_of(metrics) == expected[:num_epochs], "watching changed the training"
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
