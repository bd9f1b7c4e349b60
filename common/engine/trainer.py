"""The training loop: epochs of steps, each epoch closed by an evaluation, a record and a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from statistics import median
from typing import Protocol

from torch import Tensor

from common import checkpoints
from common.data import epoch_order, split_into_batches
from common.engine.evaluation import Evaluation, evaluate
from common.engine.parts import EvaluationSet, Parts
from common.engine.progress import Progress, update_best
from common.engine.training_step import MicroBatch
from common.exits import StoppedError
from common.signals import StopSignals
from common.step_trace import StepTrace


class Recorder(Protocol):
    """Who is told what happens: the log, the screen, metrics.json, TensorBoard."""

    def epoch_started(self, progress: Progress) -> None: ...

    def step_done(self, progress: Progress, loss: float) -> None: ...

    def epoch_done(self, progress: Progress, saved: list[str]) -> None: ...

    def save_failed(self, progress: Progress, name: str, error: OSError) -> None: ...

    def machine_usage(self) -> dict: ...


class Trainer:
    """Brings the state in ``parts`` to its end. What it does is a function of that state alone.

    Runs in the main thread, under ``StopSignals``: asked to stop, it saves where it stands and raises StoppedError.
    Of several processes each runs one; they take the same decisions, and that of rank 0 writes.

    Args:
        store, trace: where checkpoints and steps are written; None in processes that write nothing.
        stop_after_epochs: return after this many completed epochs though the training is not at its end.
    """

    def __init__(
        self,
        parts: Parts,
        store: checkpoints.CheckpointStore | None,
        trace: StepTrace | None,
        recorder: Recorder,
        stop: StopSignals,
        *,
        stop_after_epochs: int | None = None,
    ) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._store = store
        self._trace = trace
        self._recorder = recorder
        self._stop = stop
        self._stop_after_epochs = stop_after_epochs
        self._saved_at = self._clocked_at = time.monotonic()

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
        self._clocked_at = time.monotonic()
        with self._stop.deferred():
            if self._progress.batch == 0:
                # What the end of an epoch leaves may be incomplete after a crash. At the very start: the initial state.
                self._save_epoch()
            while self._progress.finished is None and self._progress.completed_epochs != self._stop_after_epochs:
                self._recorder.epoch_started(self._progress)
                self._run_epoch()

    def _run_epoch(self) -> None:
        try:
            self._train_epoch()
            self._close_epoch()
        except StoppedError:
            # Raised between two steps or two batches of an evaluation, where the state is whole.
            self._save_position()
            raise

    def _train_epoch(self) -> None:
        progress, world = self._progress, self._parts.world
        steps = self._steps_of_epoch(progress.epoch)[progress.batch :]
        shares = [[world.share_of(indices) for indices in step] for step in steps]
        stream = self._parts.train_source.batches([indices for step in shares for indices, _ in step])
        started = time.perf_counter()
        with closing(stream):
            for step, share in zip(steps, shares, strict=True):
                result = self._parts.step.run(
                    self._timed(stream, share),
                    num_micro_batches=len(step),
                    num_samples=sum(len(indices) for indices in step),
                    epoch=progress.epoch,
                    step=progress.step,
                    flags=()
                    if world.is_alone
                    else (float(self._stop.requested), float(self._position_is_due_by_time())),
                )
                self._count_step(result)
                now = time.perf_counter()
                progress.time_s += now - started
                started = now
                self._after_step(result.flags)

    def _timed(self, stream: Iterator, share: list[tuple[Tensor, bool]]) -> Iterator[MicroBatch]:
        """The next batches; the time spent waiting for them is counted as data time."""
        for _, counts in share:
            started = time.perf_counter()
            batch = next(stream)
            self._progress.data_time_s += time.perf_counter() - started
            yield MicroBatch(batch, counts)

    def _steps_of_epoch(self, epoch: int) -> list[list[Tensor]]:
        """The epoch's sample numbers by step and micro-batch."""
        settings = self._settings
        order = epoch_order(self._parts.num_train, settings.seed, epoch)
        steps = split_into_batches(order, settings.samples_per_step, settings.drop_last)
        return [list(step.split(self._progress.micro_batch_size or settings.batch_size)) for step in steps]

    def _count_step(self, result) -> None:
        progress = self._progress
        if self._trace is not None:
            self._trace.add(progress.step, result.loss_sum, result.grad_norm)
        progress.loss_sum += result.loss_sum
        progress.samples += result.num_samples
        progress.grad_norms.append(result.grad_norm)
        progress.batch += 1
        progress.step += 1
        self._recorder.step_done(progress, result.loss_sum / result.num_samples)

    def _after_step(self, flags: list[float]) -> None:
        """Save and stop where it is time; several processes do so if one of them has a reason to."""
        stopping, due_by_time = (
            (self._stop.requested, self._position_is_due_by_time()) if not flags else map(bool, flags)
        )
        every_steps = self._settings.save_every_n_steps
        if due_by_time or (every_steps and self._progress.batch % every_steps == 0):
            self._save_position()
        if stopping:
            self._stop.raise_if_requested()
            raise self._stop.elsewhere()

    def _position_is_due_by_time(self) -> bool:
        every_s = self._settings.save_every_n_s
        return every_s is not None and time.monotonic() - self._saved_at >= every_s

    def _save_position(self) -> None:
        self._write([self._parts.plan.last_name], self._capture())

    def _save_epoch(self) -> list[str]:
        """Write what the last completed epoch's end calls for. Doing it twice changes nothing.

        The last checkpoint comes first, and what the run cannot do without before what it can: everything else that an
        epoch leaves behind can be made again from it.
        """
        plan, progress = self._parts.plan, self._progress
        wanted = plan.files(progress)
        names = [name for name, epoch in wanted.items() if epoch == progress.completed_epochs]
        content = self._capture()
        needed = [name for name in (plan.last_name, plan.best_name) if name in names]
        self._write(needed, content)
        saved = needed + [name for name in names if name not in needed and self._try_to_write(name, content)]
        if self._store is not None:
            self._store.prune(wanted)
        return saved

    def _capture(self) -> bytes:
        """A checkpoint of this instant, with the time that this process has spent on the run counted in."""
        now = time.monotonic()
        self._progress.elapsed_s += now - self._clocked_at
        self._clocked_at = self._saved_at = now
        state = self._parts.state.capture(self._parts.world)
        return checkpoints.to_bytes(state) if self._store is not None else b""

    def _write(self, names: list[str], content: bytes) -> None:
        if self._store is None or self._trace is None:
            return
        self._trace.flush()
        self._store.save(names, content, epoch=self._progress.completed_epochs, step=self._progress.step)

    def _try_to_write(self, name: str, content: bytes) -> bool:
        try:
            self._write([name], content)
        except OSError as error:
            self._recorder.save_failed(self._progress, name, error)
            return False
        return True

    def _close_epoch(self) -> None:
        progress = self._progress
        started = time.perf_counter()
        measured = self._measure(progress.epoch)
        record = self._record(*measured, evaluation_s=time.perf_counter() - started)
        progress.history.append(record)
        stop_early = False
        if record["val_loss"] is not None:
            update_best(progress, self._settings.monitor, record)
            stop_early = self._settings.early_stopping.update(progress, record)
            self._parts.state.scheduler.after_epoch(record[self._settings.early_stopping.criterion.metric])
        if stop_early:
            progress.finished = "early_stopped"
        elif progress.epoch >= self._settings.epochs:
            progress.finished = "completed"
        progress.begin_next_epoch()
        self._recorder.epoch_done(progress, self._save_epoch())

    def _measure(self, epoch: int) -> tuple[Evaluation | None, Evaluation | None]:
        settings, state = self._settings, self._parts.state
        if epoch % settings.validate_every_n_epochs and epoch != settings.epochs:
            return None, None
        if state.ema is None:
            return self._evaluate(self._parts.train_sample), self._evaluate(self._parts.validation)
        with state.ema.apply_to(state.model):
            return self._evaluate(self._parts.train_sample), self._evaluate(self._parts.validation)

    def _evaluate(self, samples: EvaluationSet) -> Evaluation:
        # Of several processes none may leave an evaluation that the others are in: they stop after the next step.
        return evaluate(
            self._parts, samples, check_stop=self._stop.raise_if_requested if self._parts.world.is_alone else None
        )

    def _record(self, train: Evaluation | None, val: Evaluation | None, *, evaluation_s: float) -> dict:
        progress = self._progress
        norms = progress.grad_norms
        clip = self._settings.clip_max_norm
        return {
            "num": progress.epoch,
            "step": progress.step,
            "num_steps": progress.batch,
            "train_loss": progress.loss_sum / progress.samples,
            "train_acc": train.metrics.accuracy_pct if train else None,
            "val_loss": val.loss if val else None,
            "val_acc": val.metrics.accuracy_pct if val else None,
            "val_f1": val.metrics.f1 if val else None,
            "val_precision": val.metrics.precision if val else None,
            "val_recall": val.metrics.recall if val else None,
            "lr": self._parts.state.scheduler.learning_rate,
            "time_s": progress.time_s + evaluation_s,
            "data_time_s": progress.data_time_s,
            "samples_per_s": progress.samples / progress.time_s,
            **self._recorder.machine_usage(),
            "grad_norm": {"median": median(norms), "max": max(norms)},
            "health": {"clipped_share": None if clip is None else sum(norm > clip for norm in norms) / len(norms)},
            "weights_sha256": checkpoints.state_sha256(self._parts.state.model.state_dict()),
        }
