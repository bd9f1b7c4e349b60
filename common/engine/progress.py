"""How far a training has come, as plain numbers: what a checkpoint carries so that a run can go on exactly."""

from __future__ import annotations

import json
import math
import re
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace

from common.record_texts import RecordTexts


@dataclass
class Reactions:
    """What the run did about its own troubles, and what holds from then on.

    ``replayed_step`` is the step whose failure a replay is to explain; ``excluded`` are the training samples set aside;
    ``rate_scale`` multiplies the configured learning rate; ``clip_max_norm`` is a bound of its own on the gradient;
    ``stall_watched_from`` is the epoch after which a stall is looked for anew.
    """

    restarts: int = 0
    replayed_step: int | None = None
    excluded: list[int] = field(default_factory=list)
    rate_scale: float = 1.0
    clip_max_norm: float | None = None
    stall_actions: list[str] = field(default_factory=list)
    stall_watched_from: int = 0
    suggested: list[str] = field(default_factory=list)


@dataclass
class Progress:
    """The position of a training and everything it has gathered on the way.

    ``epoch`` (from 1) is the epoch to train next or in the middle of, ``batch`` the optimizer steps already done in
    it, ``step`` those done in all. ``micro_batch_size`` is set where memory was too small for the configured batch. The
    partial sums belong to the epoch in the middle of which ``batch`` stands. ``signals`` is replaced, never changed.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    samples: int = 0
    grad_norms: list[float] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)
    weight_signals: dict | None = None
    time_s: float = 0.0
    data_time_s: float = 0.0
    history: list[dict] = field(default_factory=list)
    events: list[dict] = field(default_factory=list)
    best: dict | None = None
    epochs_without_improvement: int = 0
    stopping_best: float | None = None
    micro_batch_size: int | None = None
    reactions: Reactions = field(default_factory=Reactions)
    signals: dict = field(default_factory=dict)
    finished: str | None = None
    started_at: str = ""
    elapsed_s: float = 0.0
    _history_texts: RecordTexts = field(default_factory=lambda: RecordTexts(json.dumps), init=False, compare=False)
    _signals_text: RecordTexts = field(default_factory=lambda: RecordTexts(json.dumps), init=False, compare=False)

    def begin_next_epoch(self) -> None:
        """Move to the start of the next epoch, with empty sums."""
        self.epoch += 1
        self.batch = 0
        self.loss_sum, self.samples, self.grad_norms, self.step_losses = 0.0, 0, [], []
        self.time_s, self.data_time_s = 0.0, 0.0

    @property
    def completed_epochs(self) -> int:
        return len(self.history)

    def frozen(self) -> Progress:
        """A copy that going on leaves alone. The records in ``history`` are shared: what they say does not change."""
        frozen = replace(
            self,
            grad_norms=[*self.grad_norms],
            step_losses=[*self.step_losses],
            history=[*self.history],
            events=deepcopy(self.events),
            reactions=deepcopy(self.reactions),
        )
        frozen._history_texts, frozen._signals_text = self._history_texts, self._signals_text
        return frozen

    def as_dict(self) -> dict:
        """Plain values, as a checkpoint may hold.

        The records of past epochs go in as JSON text: PyTorch's pickler takes time for every number on its own, so
        that saving would get slower with every epoch. Python's JSON keeps every bit of a float, and NaN too.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.init}
        values["reactions"] = asdict(self.reactions)
        known = {
            "history": f"[{', '.join(self._history_texts.of(self.history))}]",
            "signals": self._signals_text.of([self.signals])[0],
        }
        return values | known | {key: json.dumps(values[key]) for key in _AS_JSON if key not in known}

    @classmethod
    def from_dict(cls, values: dict) -> Progress:
        decoded = values | {key: json.loads(values[key]) for key in _AS_JSON}
        return cls(**(decoded | {"reactions": Reactions(**decoded["reactions"])}))


_AS_JSON = ("history", "events", "grad_norms", "step_losses", "weight_signals", "best", "reactions", "signals")


@dataclass(frozen=True)
class Criterion:
    """Whether a metric got better: the larger the better for mode ``max``, by more than ``min_delta``."""

    metric: str
    mode: str
    min_delta: float = 0.0

    def improves(self, value: float | None, best: float | None) -> bool:
        """A value that is missing or not finite is never better; any finite one beats none."""
        if value is None or not math.isfinite(value):
            return False
        if best is None:
            return True
        return value > best + self.min_delta if self.mode == "max" else value < best - self.min_delta


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after ``patience`` validated epochs in a row without improvement."""

    criterion: Criterion
    patience: int
    enabled: bool = True

    def update(self, progress: Progress, record: dict) -> bool:
        """Take one validated epoch in; returns whether training should stop."""
        value = record[self.criterion.metric]
        if self.criterion.improves(value, progress.stopping_best):
            progress.stopping_best = value
            progress.epochs_without_improvement = 0
        else:
            progress.epochs_without_improvement += 1
        return self.enabled and progress.epochs_without_improvement >= self.patience


BEST_VALUES = ("train_loss", "train_acc", "val_loss", "val_acc", "val_f1", "val_precision", "val_recall")


def update_best(progress: Progress, criterion: Criterion, record: dict) -> bool:
    """Keep the first epoch with the best monitored value; returns whether ``record`` is it."""
    value = record[criterion.metric]
    if not criterion.improves(value, progress.best["value"] if progress.best else None):
        return False
    progress.best = {
        "epoch": record["num"],
        "metric": criterion.metric,
        "value": value,
        **{key: record[key] for key in BEST_VALUES},
    }
    return True


# Where a failed step sends the training back to, while the last checkpoint is at a place that an interruption chose.
RESTART_POINT_NAME = "restart_point.pt"


@dataclass(frozen=True)
class CheckpointPlan:
    """Which checkpoint files a run keeps: a function of its history alone, so that a restart decides the same."""

    best_name: str
    last_name: str
    save_best: bool
    save_last: bool
    every_n_epochs: int | None
    keep_last_n: int | None
    top_k: int
    criterion: Criterion

    def files(self, progress: Progress) -> dict[str, int]:
        """File name and the epoch it holds, for every file wanted after the last completed epoch."""
        files = {name: epoch for epoch in self._kept_epochs(progress) for name in [f"checkpoint_epoch_{epoch}.pt"]}
        if self.save_best and progress.best:
            files[self.best_name] = progress.best["epoch"]
        if self.save_last:
            files[self.last_name] = progress.completed_epochs
        return files

    def writes(self, name: str) -> bool:
        """Whether a file of this name is one that the run writes at some time."""
        names = (self.best_name, self.last_name, RESTART_POINT_NAME)
        return name in names or re.fullmatch(r"checkpoint_epoch_\d+\.pt", name) is not None

    def most_files(self, epochs: int) -> int:
        """The largest number of files there can be at once, with a restart point and one more that is being written."""
        periodic = epochs // self.every_n_epochs if self.every_n_epochs else 0
        kept = min(periodic, self.keep_last_n) if self.keep_last_n else periodic
        return int(self.save_best) + int(self.save_last) + kept + self.top_k + 2

    def _kept_epochs(self, progress: Progress) -> set[int]:
        periodic: list[int] = []
        if self.every_n_epochs:
            periodic = list(range(self.every_n_epochs, progress.completed_epochs + 1, self.every_n_epochs))
            periodic = periodic[-self.keep_last_n :] if self.keep_last_n else periodic
        return {*periodic, *self._top_epochs(progress)}

    def _top_epochs(self, progress: Progress) -> list[int]:
        metric, sign = self.criterion.metric, -1.0 if self.criterion.mode == "max" else 1.0
        scored = [(sign * record[metric], record["num"]) for record in progress.history if record[metric] is not None]
        return [epoch for _, epoch in sorted(scored)[: self.top_k]]
