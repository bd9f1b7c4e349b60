"""The training loop: epochs of steps, each epoch closed by an evaluation, a record and a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Protocol

import torch
from torch import Tensor

from common.data import epoch_order, split_into_batches
from common.engine.epoch_record import epoch_record, measure
from common.engine.parts import Parts
from common.engine.progress import Progress, update_best
from common.engine.saver import Saver
from common.engine.training_step import MicroBatch, StepResult
from common.exits import StoppedError
from common.health import WeightProbe, initial_loss_ratio
from common.signals import StopSignals


class Recorder(Protocol):
    """Who is told what happens: the log, the screen, metrics.json, TensorBoard."""

    def epoch_started(self, progress: Progress) -> None: ...

    def step_done(self, progress: Progress, loss: float) -> None: ...

    def epoch_closed(self, progress: Progress) -> None:
        """Called with the record in the history, before anything of the epoch is saved."""
        ...

    def epoch_done(self, progress: Progress, saved: list[str]) -> None: ...

    def machine_usage(self) -> dict: ...


class EpochWatch(Protocol):
    """Who looks at every completed epoch and may act on the training."""

    def after_epoch(self, *, would_stop_early: bool) -> bool:
        """Called with the record in the history; returns whether training should stop early."""
        ...


class Trainer:
    """Brings the state in ``parts`` to its end. What it does is a function of that state alone.

    Runs in the main thread, under ``StopSignals``: asked to stop, it saves where it stands and raises StoppedError.
    Of several processes each runs one; they take the same decisions, and that of rank 0 writes.

    Args:
        stop_after_epochs: return after this many completed epochs though the training is not at its end.
        give_up: return where this says so of the records of the completed epochs.
    """

    def __init__(
        self,
        parts: Parts,
        saver: Saver,
        recorder: Recorder,
        watch: EpochWatch,
        stop: StopSignals,
        *,
        stop_after_epochs: int | None = None,
        give_up: Callable[[Sequence[Mapping]], bool] | None = None,
    ) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._saver = saver
        self._recorder = recorder
        self._watch = watch
        self._stop = stop
        self._stop_after_epochs = stop_after_epochs
        self._give_up = give_up
        self._probe = WeightProbe(parts.state.model)

    @property
    def _progress(self) -> Progress:
        return self._parts.state.progress

    def run(self) -> None:
        """Train until the last epoch or early stopping.

        Raises:
            StoppedError: a signal came; everything is saved.
            NonFiniteError, MicroBatchTooLargeError: from a step; the weights are those before it.
            OSError: a checkpoint could not be written; the one before is still there.
        """
        with self._stop.deferred():
            if self._progress.batch == 0:
                # What the end of an epoch leaves may be incomplete after a crash. At the very start: the initial state.
                self._parts.state.require_finite()
                self._saver.save_epoch(may_wait=False)
            try:
                while self._progress.finished is None and not self._is_cut_short():
                    self._recorder.epoch_started(self._progress)
                    self._run_epoch()
            finally:
                # Whoever deals with a failed step goes back to what is on the disk.
                self._saver.write_held()

    def _is_cut_short(self) -> bool:
        if self._progress.completed_epochs == self._stop_after_epochs:
            return True
        return self._give_up is not None and self._give_up(self._progress.history)

    def _run_epoch(self) -> None:
        try:
            steps = self._steps_of_epoch(self._progress.epoch)
            self._train_epoch(steps[self._progress.batch :])
            self._close_epoch(steps)
        except StoppedError:
            # Raised between two steps or two batches of an evaluation, where the state is whole.
            self._saver.save_position()
            raise

    def _train_epoch(self, steps: list[list[Tensor]]) -> None:
        world = self._parts.world
        shares = [[world.share_of(indices) for indices in step] for step in steps]
        started = time.perf_counter()
        with closing(self._parts.train_source.batches([indices for step in shares for indices, _ in step])) as stream:
            for step, share in zip(steps, shares, strict=True):
                flags = self._run_step(self._timed(stream, share), step)
                now = time.perf_counter()
                self._progress.time_s += now - started
                started = now
                self._after_step(flags)

    def _run_step(self, micro_batches: Iterator[MicroBatch], step: list[Tensor]) -> list[float]:
        """Train on one step's samples; returns what the processes told each other about saving and stopping."""
        progress, alone = self._progress, self._parts.world.is_alone
        num_samples = sum(len(indices) for indices in step)
        is_watched = progress.step == 0 or progress.batch == self._parts.steps_per_epoch - 1
        if num_samples == 0:  # all of them were set aside
            progress.batch += 1
            progress.step += 1
            return []
        result = self._parts.step.run(
            micro_batches,
            num_micro_batches=len(step),
            num_samples=num_samples,
            epoch=progress.epoch,
            step=progress.step,
            clip_max_norm=self._parts.clip_max_norm,
            flags=() if alone else (float(self._stop.requested), float(self._saver.is_due_by_time())),
            probe=self._probe if is_watched else None,
        )
        self._count_step(result)
        return result.flags

    def _timed(self, stream: Iterator, share: list[tuple[Tensor, bool]]) -> Iterator[MicroBatch]:
        """The next batches; the time spent waiting for them is counted as data time."""
        for _, counts in share:
            started = time.perf_counter()
            batch = next(stream)
            self._progress.data_time_s += time.perf_counter() - started
            yield MicroBatch(batch, counts)

    def _steps_of_epoch(self, epoch: int) -> list[list[Tensor]]:
        """The epoch's sample numbers by step and micro-batch, without those that were set aside."""
        settings = self._settings
        order = epoch_order(self._parts.num_train, settings.seed, epoch)
        steps = split_into_batches(order, settings.samples_per_step, settings.drop_last)
        excluded = self._progress.reactions.excluded
        if excluded:
            # Each step keeps its place, so that a position within the epoch means the same as before.
            bad = torch.tensor(excluded)
            steps = [step[~torch.isin(step, bad)] for step in steps]
        return [_in_even_parts(step, self._progress.micro_batch_size or settings.batch_size) for step in steps]

    def _count_step(self, result: StepResult) -> None:
        progress = self._progress
        self._saver.note_step(result.loss_sum, result.grad_norm)
        progress.loss_sum += result.loss_sum
        progress.samples += result.num_samples
        progress.grad_norms.append(result.grad_norm)
        progress.step_losses.append(result.loss_sum / result.num_samples)
        self._note_weights(result)
        progress.batch += 1
        progress.step += 1
        self._recorder.step_done(progress, progress.step_losses[-1])

    def _note_weights(self, result: StepResult) -> None:
        """Keep what a watched step showed: the very first one's for good, the last one's for the epoch."""
        progress = self._progress
        if result.weights is not None:
            progress.weight_signals = result.weights.as_dict()
        if progress.step == 0:
            loss = result.loss_sum / result.num_samples
            progress.signals = progress.signals | {
                "initial_loss_ratio": initial_loss_ratio(loss, self._settings.num_classes),
                "initial_weights": progress.weight_signals,
            }

    def _after_step(self, flags: list[float]) -> None:
        """Save and stop where it is time; several processes do so if one of them has a reason to."""
        stopping, due_by_time = map(bool, flags) if flags else (self._stop.requested, self._saver.is_due_by_time())
        if due_by_time or self._saver.is_due_by_steps():
            self._saver.save_position()
        if stopping:
            self._stop.raise_if_requested()
            raise self._stop.elsewhere()

    def _close_epoch(self, steps: list[list[Tensor]]) -> None:
        progress = self._progress
        # No record of an epoch that ends in a state which cannot be saved.
        self._parts.state.require_finite()
        started = time.perf_counter()
        # Of several processes none may leave an evaluation that the others are in: they stop after the next step.
        alone = self._parts.world.is_alone
        measured = measure(self._parts, progress.epoch, self._stop.raise_if_requested if alone else None)
        self._parts.state.sample_history.close_epoch(None if alone else self._parts.world.sum)
        record = epoch_record(
            self._parts,
            measured,
            steps,
            self._recorder.machine_usage(),
            evaluation_s=time.perf_counter() - started,
        )
        progress.history.append(record)
        stop_early = False
        if record["val_loss"] is not None:
            update_best(progress, self._settings.monitor, record)
            stop_early = self._settings.early_stopping.update(progress, record)
            self._parts.state.scheduler.after_epoch(record[self._settings.early_stopping.criterion.metric])
        stop_early = self._watch.after_epoch(would_stop_early=stop_early)
        if stop_early:
            progress.finished = "early_stopped"
        elif progress.epoch >= self._settings.epochs:
            progress.finished = "completed"
        progress.begin_next_epoch()
        self._recorder.epoch_closed(progress)
        self._recorder.epoch_done(progress, self._saver.save_epoch())


def _in_even_parts(step: Tensor, largest: int) -> list[Tensor]:
    """The samples of a step in as few micro-batches as may be. A last one of one would be too little for batch norm."""
    if len(step) <= largest:
        return [step] if len(step) else []
    return list(step.tensor_split(-(-len(step) // largest)))
