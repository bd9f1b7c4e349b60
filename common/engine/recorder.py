"""What is written down while a training runs: metrics.json, the log, the screen, TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

from common import metrics_file
from common.console import Console, ProgressBar, format_duration
from common.engine.progress import Progress
from common.gpu_monitor import GpuMonitor
from common.run_folder import RunFolder, RunLock
from common.tensorboard_log import TensorBoardLog


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class RunRecorder:
    """Tells people and files what a training does. Implements ``trainer.Recorder``; owns nothing it is given.

    ``run`` is the ``run`` object of metrics.json without its status and times.
    """

    def __init__(
        self,
        folder: RunFolder,
        lock: RunLock,
        console: Console,
        bar: ProgressBar,
        monitor: GpuMonitor,
        tensorboard: TensorBoardLog | None,
        run: Mapping,
        *,
        epochs: int,
        log_every_n_steps: int,
    ) -> None:
        self._metrics = metrics_file.MetricsWriter(folder.metrics)
        self._lock = lock
        self._console = console
        self._bar = bar
        self._monitor = monitor
        self._tensorboard = tensorboard
        self._run = run
        self._epochs = epochs
        self._log_every_n_steps = log_every_n_steps
        self._renewed_at = time.monotonic()
        # Records that are not in the event file, and when their epochs ended.
        self._unplotted: list[tuple[dict, float]] = []
        self._is_behind = False

    def epoch_started(self, progress: Progress) -> None:
        where = f", from step {progress.batch}" if progress.batch else ""
        self._console.detail(f"[EPOCH {progress.epoch}/{self._epochs}]{where}")

    def step_done(self, progress: Progress, loss: float) -> None:
        self._bar.advance()
        if progress.batch % self._log_every_n_steps == 0:
            self._console.detail(f"Step: {progress.batch} | Train Loss: {loss:.4f}")
        if time.monotonic() - self._renewed_at > 30.0:
            self._lock.renew()
            self._renewed_at = time.monotonic()

    def epoch_closed(self, progress: Progress) -> None:
        self._unplotted.append((progress.history[-1], time.time()))
        self._is_behind = True

    def epoch_done(self, progress: Progress, saved: list[str]) -> None:
        record = progress.history[-1]
        for line in log_lines(record, saved):
            self._console.detail(line)
        self._console.show(screen_line(record, self._epochs, is_best=_is_best(progress)))

    def publish(self, progress: Progress) -> None:
        """Bring the event file and metrics.json up to date, where epochs were done since the last time.

        Comes before a checkpoint is written: what the event file has of later epochs, a run that goes on makes it
        forget, but what a checkpoint is ahead of would be missing for good.
        """
        if not self._is_behind:
            return
        for record, _ in self._unplotted:
            record["health"] = dict(record["health"])  # what it is worked out from can go
        if self._tensorboard is not None:
            self._tensorboard.add_epochs(self._unplotted)
        self._unplotted = []
        self.write_metrics(progress, "running")
        self._is_behind = False

    def save_failed(self, progress: Progress, name: str, error: OSError) -> None:
        """A checkpoint that the run can do without was not written; the training goes on."""
        outcome = f"{name} was not saved ({error.strerror or error})"
        progress.events.append(event(progress, "save_failed", outcome, actions=["go_on"]))
        self._console.warning(outcome)

    def machine_usage(self) -> dict:
        """What the machine did since the last call, as an epoch of metrics.json has it."""
        usage = self._monitor.epoch_summary()
        return {
            "gpu_util": usage.gpu_util_pct,
            "gpu_mem_gb": usage.gpu_mem_gb,
            "gpu_temperature_c": usage.temperature_c,
            "gpu_power_w": usage.power_w,
            "gpu_energy_j": usage.energy_j,
            "cpu_util": usage.cpu_util_pct,
        }

    def write_metrics(self, progress: Progress, status: str, test: Mapping | None = None) -> dict:
        """Write metrics.json as it stands, and return it."""
        document = metrics_document(self._run, progress, status, test)
        # While it runs, the newest checkpoint's history brings the file back.
        self._metrics.write(document, flush=status != "running")
        return document


class MutedRecorder:
    """For processes that write and say nothing. Implements ``trainer.Recorder``."""

    def epoch_started(self, progress: Progress) -> None:
        pass

    def step_done(self, progress: Progress, loss: float) -> None:
        pass

    def epoch_closed(self, progress: Progress) -> None:
        progress.history[-1]["health"] = {}  # nobody asks for it here, and it would keep what it is worked out from

    def epoch_done(self, progress: Progress, saved: list[str]) -> None:
        pass

    def publish(self, progress: Progress) -> None:
        pass

    def save_failed(self, progress: Progress, name: str, error: OSError) -> None:
        pass

    def machine_usage(self) -> dict:
        return {}

    def write_metrics(self, progress: Progress, status: str, test: Mapping | None = None) -> dict:
        return {}


def event(
    progress: Progress, kind: str, outcome: str, *, guide: str | None = None, actions: Sequence[str] = ()
) -> dict:
    """An entry of ``events`` in metrics.json: what happened where, what was done about it, and what came of it."""
    return {
        "epoch": progress.epoch,
        "step": progress.step,
        "kind": kind,
        "guide": guide,
        "actions": list(actions),
        "outcome": outcome,
    }


def metrics_document(run: Mapping, progress: Progress, status: str, test: Mapping | None = None) -> dict:
    """metrics.json as a function of a training's progress: it can be made again from any checkpoint."""
    return {
        "schema_version": metrics_file.SCHEMA_VERSION,
        "run": {
            **run,
            "status": status,
            "started_at": progress.started_at,
            "finished_at": None if status == "running" else utc_now(),
            "duration_s": progress.elapsed_s,
        },
        "epochs": progress.history,
        "best": progress.best,
        "events": progress.events,
        "signals": progress.signals,
        "test": test,
    }


def log_lines(record: Mapping, saved: list[str]) -> list[str]:
    """The lines that training.log has for an epoch under its ``[EPOCH ...]`` line."""
    gpu = "n/a (CPU run)" if record["gpu_util"] is None else f"{record['gpu_util']:.0f}%"
    return [
        f"Train Loss: {record['train_loss']:.4f} | Train Acc: {_percent(record['train_acc'])}",
        f"Val Loss: {_loss(record['val_loss'])} | Val Acc: {_percent(record['val_acc'])}",
        f"LR: {record['lr']:.2e}",
        f"GPU Util: {gpu} | Time: {format_duration(record['time_s'])}",
        *([f"Checkpoint: saved ({', '.join(saved)})"] if saved else []),
    ]


def screen_line(record: Mapping, epochs: int, *, is_best: bool) -> str:
    """An epoch in one line for the screen."""
    number = f"{record['num']:>{len(str(epochs))}}/{epochs}"
    gpu = "" if record["gpu_util"] is None else f" | GPU {record['gpu_util']:.0f}%"
    return (
        f"Epoch {number} | train {record['train_loss']:.4f} {_percent(record['train_acc']):>6}"
        f" | val {_loss(record['val_loss'])} {_percent(record['val_acc']):>6} | lr {record['lr']:.2e}{gpu}"
        f" | {format_duration(record['time_s'])}{' | best so far' if is_best else ''}"
    )


def _is_best(progress: Progress) -> bool:
    return progress.best is not None and progress.best["epoch"] == progress.history[-1]["num"]


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f}%"


def _loss(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
