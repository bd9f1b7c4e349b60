"""The training loop: epochs of steps, each epoch closed by an evaluation, a record and a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from torch import Tensor

from common import checkpoints
from common.data import BatchSource, epoch_order, split_into_batches
from common.engine.evaluation import Evaluation, evaluate
from common.engine.progress import CheckpointPlan, Criterion, EarlyStopping, Progress, update_best
from common.engine.state import TrainingState
from common.engine.training_step import TrainingStep
from common.exits import StoppedError
from common.signals import StopSignals


@dataclass(frozen=True)
class TrainerSettings:
    """How long and in what rhythm. A step takes ``batch_size * accumulate`` samples, ``batch_size`` at once."""

    epochs: int
    seed: int
    batch_size: int
    accumulate: int
    drop_last: bool
    num_classes: int
    validate_every_n_epochs: int
    save_every_n_steps: int | None
    save_every_n_s: float | None
    monitor: Criterion
    early_stopping: EarlyStopping
    clip_max_norm: float | None


@dataclass(frozen=True)
class EvaluationSet:
    """Samples to measure on: where they come from and which, in batches."""

    source: BatchSource
    index_batches: list[Tensor]


class Recorder(Protocol):
    """Who is told what happens: the log, the screen, metrics.json, TensorBoard."""

    def epoch_started(self, progress: Progress) -> None: ...

    def step_done(self, progress: Progress, loss: float) -> None: ...

    def epoch_done(self, progress: Progress, saved: list[str]) -> None: ...

    def machine_usage(self) -> dict: ...


class Trainer:
    """Brings a ``TrainingState`` to its end. What it does is a function of that state alone.

    Runs in the main thread, under ``StopSignals``: asked to stop, it saves where it stands and raises StoppedError.
    """

    def __init__(
        self,
        state: TrainingState,
        step: TrainingStep,
        train_source: BatchSource,
        num_train: int,
        train_sample: EvaluationSet,
        validation: EvaluationSet,
        settings: TrainerSettings,
        store: checkpoints.CheckpointStore,
        plan: CheckpointPlan,
        recorder: Recorder,
        stop: StopSignals,
        autocast,
    ) -> None:
        self._state = state
        self._step = step
        self._train_source = train_source
        self._num_train = num_train
        self._train_sample = train_sample
        self._validation = validation
        self._settings = settings
        self._store = store
        self._plan = plan
        self._recorder = recorder
        self._stop = stop
        self._autocast = autocast
        self._saved_at = self._clocked_at = time.monotonic()

    def run(self) -> Progress:
        """Train until the last epoch or early stopping.

        Raises:
            StoppedError: a signal came; everything is saved.
            NonFiniteError: from a step; the weights are those before it.
            OSError: a checkpoint could not be written; the one before is still there.
        """
        self._clocked_at = time.monotonic()
        with self._stop.deferred():
            if self._at_epoch_boundary():
                self._save_epoch()
            while self._state.progress.finished is None:
                self._recorder.epoch_started(self._state.progress)
                self._run_epoch()
        return self._state.progress

    def _run_epoch(self) -> None:
        try:
            self._train_epoch()
            self._close_epoch()
        except StoppedError:
            # Raised between two steps or two batches of an evaluation, where the state is whole.
            self._save_position()
            raise

    def _at_epoch_boundary(self) -> bool:
        return self._state.progress.batch == 0 and self._state.progress.completed_epochs > 0

    def _train_epoch(self) -> None:
        progress = self._state.progress
        steps = self._steps_of_epoch(progress.epoch)[progress.batch :]
        micro_batches = [indices for step in steps for indices in step]
        started = time.perf_counter()
        with closing(self._train_source.batches(micro_batches)) as stream:
            for step in steps:
                result = self._step.run(
                    self._timed(stream, len(step)),
                    num_samples=sum(len(indices) for indices in step),
                    epoch=progress.epoch,
                    step=progress.step,
                )
                progress.loss_sum += result.loss_sum
                progress.samples += result.num_samples
                progress.grad_norms.append(result.grad_norm)
                progress.batch += 1
                progress.step += 1
                now = time.perf_counter()
                progress.time_s += now - started
                started = now
                self._recorder.step_done(progress, result.loss_sum / result.num_samples)
                if self._position_is_due():
                    self._save_position()
                self._stop.raise_if_requested()

    def _timed(self, stream: Iterator, count: int) -> Iterator:
        """The next ``count`` batches; the time spent waiting for them is counted as data time."""
        for _ in range(count):
            started = time.perf_counter()
            batch = next(stream)
            self._state.progress.data_time_s += time.perf_counter() - started
            yield batch

    def _steps_of_epoch(self, epoch: int) -> list[list[Tensor]]:
        settings = self._settings
        order = epoch_order(self._num_train, settings.seed, epoch)
        steps = split_into_batches(order, settings.batch_size * settings.accumulate, settings.drop_last)
        return [list(step.split(settings.batch_size)) for step in steps]

    def _position_is_due(self) -> bool:
        every_steps, every_s = self._settings.save_every_n_steps, self._settings.save_every_n_s
        if every_steps and self._state.progress.batch % every_steps == 0:
            return True
        return every_s is not None and time.monotonic() - self._saved_at >= every_s

    def _save_position(self) -> None:
        progress = self._state.progress
        content = self._capture()
        self._store.save([self._plan.last_name], content, epoch=progress.completed_epochs, step=progress.step)
        self._saved_at = time.monotonic()

    def _close_epoch(self) -> None:
        progress = self._state.progress
        started = time.perf_counter()
        measured = self._measure(progress.epoch)
        record = self._record(*measured, evaluation_s=time.perf_counter() - started)
        progress.history.append(record)
        stop_early = False
        if record["val_loss"] is not None:
            update_best(progress, self._settings.monitor, record)
            stop_early = self._settings.early_stopping.update(progress, record)
            self._state.scheduler.after_epoch(record[self._settings.early_stopping.criterion.metric])
        if stop_early:
            progress.finished = "early_stopped"
        elif progress.epoch >= self._settings.epochs:
            progress.finished = "completed"
        progress.begin_next_epoch()
        self._recorder.epoch_done(progress, self._save_epoch())

    def _capture(self) -> bytes:
        """A checkpoint of this instant, with the time that this process has spent on the run counted in."""
        now = time.monotonic()
        self._state.progress.elapsed_s += now - self._clocked_at
        self._clocked_at = now
        return checkpoints.to_bytes(self._state.capture())

    def _save_epoch(self) -> list[str]:
        """Write what the last completed epoch's end calls for. Doing it twice changes nothing."""
        progress = self._state.progress
        wanted = self._plan.files(progress)
        names = [name for name, epoch in wanted.items() if epoch == progress.completed_epochs]
        # The last checkpoint first: everything else that an epoch leaves behind can be made again from it.
        names.sort(key=lambda name: name != self._plan.last_name)
        content = self._capture()
        self._store.save(names, content, epoch=progress.completed_epochs, step=progress.step)
        self._store.prune(wanted)
        self._saved_at = time.monotonic()
        return names

    def _measure(self, epoch: int) -> tuple[Evaluation | None, Evaluation | None]:
        settings = self._settings
        if epoch % settings.validate_every_n_epochs and epoch != settings.epochs:
            return None, None
        if self._state.ema is None:
            return self._evaluate(self._train_sample), self._evaluate(self._validation)
        with self._state.ema.apply_to(self._state.model):
            return self._evaluate(self._train_sample), self._evaluate(self._validation)

    def _evaluate(self, samples: EvaluationSet) -> Evaluation:
        return evaluate(
            self._state.model,
            samples.source,
            samples.index_batches,
            num_classes=self._settings.num_classes,
            autocast=self._autocast,
            check_stop=self._stop.raise_if_requested,
        )

    def _record(self, train: Evaluation | None, val: Evaluation | None, *, evaluation_s: float) -> dict:
        progress = self._state.progress
        norms = progress.grad_norms
        clip = self._settings.clip_max_norm
        return {
            "num": progress.epoch,
            "train_loss": progress.loss_sum / progress.samples,
            "train_acc": train.metrics.accuracy_pct if train else None,
            "val_loss": val.loss if val else None,
            "val_acc": val.metrics.accuracy_pct if val else None,
            "val_f1": val.metrics.f1 if val else None,
            "val_precision": val.metrics.precision if val else None,
            "val_recall": val.metrics.recall if val else None,
            "lr": self._state.scheduler.learning_rate,
            "time_s": progress.time_s + evaluation_s,
            "data_time_s": progress.data_time_s,
            "samples_per_s": progress.samples / progress.time_s,
            **self._recorder.machine_usage(),
            "grad_norm": {"median": median(norms), "max": max(norms)},
            "health": {"clipped_share": None if clip is None else sum(norm > clip for norm in norms) / len(norms)},
            "weights_sha256": checkpoints.state_sha256(self._state.model.state_dict()),
        }
