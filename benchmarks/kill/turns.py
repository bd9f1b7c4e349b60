"""Two trainings of one config or two, each in a process of its own, that take turns epoch by epoch.

What else a machine does comes and goes within seconds, so that a training of two seconds tells little about another
one after it. Epochs in turns meet the same machine.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore

from common.console import Console
from common.engine.run import train
from common.engine.session import RunRequest
from common.engine.trainer import Trainer
from common.signals import StopSignals

_MORE_THAN_EPOCHS = 10_000


@dataclass(frozen=True)
class LoopTime:
    """What a training loop took, first and last save included: by the clock, and of the processor."""

    clock_s: float
    processor_s: float


def train_in_turns(requests: Sequence[RunRequest]) -> list[LoopTime]:
    """Train two runs at once, of which one at a time goes on, and the first begins."""
    context = multiprocessing.get_context("fork")
    turns = [context.Semaphore(1), context.Semaphore(0)]
    pipes = [context.Pipe(duplex=False) for _ in requests]
    processes = [
        context.Process(target=_train, args=(request, mine, other, pipe))
        for request, mine, other, (_, pipe) in zip(requests, turns, turns[::-1], pipes, strict=True)
    ]
    for process in processes:
        process.start()
    times = [receiver.recv() for receiver, _ in pipes]
    for process in processes:
        process.join()
    return times


class _StopWatch:
    """Runs while it is this process's turn."""

    def __init__(self, mine: Semaphore, other: Semaphore) -> None:
        self._mine = mine
        self._other = other
        self.clock_s = self.processor_s = 0.0

    def start(self) -> None:
        self._mine.acquire()
        self._clock, self._processor = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.clock_s += time.perf_counter() - self._clock
        self.processor_s += time.process_time() - self._processor
        self._other.release()

    def epoch_begins(self, history: Sequence[Mapping]) -> bool:
        """In the place of a reason to give up, which is asked for between epochs."""
        self.stop()
        self.start()
        return False

    def end(self) -> None:
        self.stop()
        for _ in range(_MORE_THAN_EPOCHS):
            self._other.release()


def _train(request: RunRequest, mine: Semaphore, other: Semaphore, pipe: Connection) -> None:
    watch, run = _StopWatch(mine, other), Trainer.run

    def timed(trainer: Trainer) -> None:
        watch.start()
        run(trainer)
        watch.end()

    Trainer.run = timed  # type: ignore[method-assign]
    with StopSignals() as stop:
        train(replace(request, give_up=watch.epoch_begins, reports=False), Console(quiet=True), stop)
    pipe.send(LoopTime(watch.clock_s, watch.processor_s))
