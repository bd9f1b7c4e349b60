"""What a run folder says about its training, in the form that the rules ask for. What is not known is None."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

from common.comparison.runs import Run, mapping, number

if TYPE_CHECKING:
    from common.config import Config

_ROWS_LEFT_OUT = re.compile(r"\[DATA\] (?:\w+: )?(\d+) rows? of (\d+) left out for")
HUGE_STEP = 0.5  # of the weights; healthy near 1e-3 (cs231n)
HUGE_GROWTH = 10.0  # of the weights over the training; sound runs showed 1.2 to 2
# Without a config, what the config's own defaults would be.
_DEFAULT_THRESHOLDS = {
    "overfitting_gap_pct": 15.0,
    "underfitting_acc_pct": 75.0,
    "val_acc_spread_pct": 8.0,
    "gpu_util_pct": 60.0,
}


@dataclass(frozen=True)
class RunEvidence:
    """One run, read-only. ``config`` is None where none could be found."""

    run: Run
    config: Config | None

    @property
    def epochs(self) -> Sequence[Mapping[str, Any]]:
        """Every epoch as it was recorded, signals of health and all."""
        return self.run.document["epochs"]

    @cached_property
    def validated(self) -> Sequence[Mapping[str, Any]]:
        """The epochs that were validated, in order."""
        return [epoch for epoch in self.epochs if number(epoch.get("val_acc")) is not None]

    @cached_property
    def best(self) -> Mapping[str, Any]:
        """The record of the best epoch, else that of the last validated one; empty where there is none."""
        marked = [epoch for epoch in self.validated if epoch["num"] == self.run.best_epoch]
        return (marked or self.validated or [{}])[-1]

    @property
    def last(self) -> Mapping[str, Any]:
        return self.validated[-1] if self.validated else {}

    def series(self, key: str) -> list[float]:
        """A field of the validated epochs, where it is known."""
        return [value for epoch in self.validated if (value := number(epoch.get(key))) is not None]

    def signal(self, *keys: str) -> Any:
        """What stands at ``signals`` under these keys."""
        return _at(self.run.document.get("signals"), keys)

    def signal_number(self, *keys: str) -> float | None:
        return number(self.signal(*keys))

    def health(self, *keys: str) -> list[Any]:
        """What stands at ``health`` under these keys, for every epoch that has it."""
        found = (_at(epoch.get("health"), keys) for epoch in self.epochs)
        return [value for value in found if value is not None]

    def health_numbers(self, *keys: str) -> list[float]:
        return [value for found in self.health(*keys) if (value := number(found)) is not None]

    def last_health(self, *keys: str) -> float | None:
        """The last epoch's value."""
        return next(reversed(self.health_numbers(*keys)), None)

    @property
    def events(self) -> list[tuple[str, list[Any], Mapping[str, Any]]]:
        """What happened: the kind, the actions taken, and the whole event."""
        return [(str(event.get("kind")), _list(event.get("actions")), event) for event in self.run.events]

    def threshold(self, name: str) -> float:
        """A limit of the config's section ``diagnostics``."""
        if self.config is None:
            return _DEFAULT_THRESHOLDS[name]
        diagnostics = self.config.diagnostics
        return diagnostics.resource_inefficiency.gpu_util_pct if name == "gpu_util_pct" else getattr(diagnostics, name)

    @property
    def has_signals(self) -> bool:
        """Whether the run recorded signals of health at all; runs of older versions did not."""
        return bool(mapping(self.signal("data"))) and bool(self.health("weights"))

    @cached_property
    def num_classes(self) -> int | None:
        names = self.run.dataset.get("class_names")
        return len(names) if isinstance(names, list) and len(names) >= 2 else None

    @property
    def num_train(self) -> int | None:
        return _whole(self.run.dataset.get("num_train"))

    @property
    def num_val(self) -> int | None:
        return _whole(self.run.dataset.get("num_val"))

    @cached_property
    def majority_acc_pct(self) -> float:
        """Validation accuracy of always naming the most frequent class; 100 / C where that is not known."""
        measured = self.signal_number("data", "majority_acc_pct")
        return measured if measured is not None else 100.0 / (self.num_classes or 2)

    @cached_property
    def best_val_acc(self) -> float | None:
        """The highest of any epoch, percent."""
        return max(self.series("val_acc"), default=None)

    @cached_property
    def best_train_acc(self) -> float | None:
        return max(self.series("train_acc"), default=None)

    @cached_property
    def learnt_share(self) -> float:
        """How far validation accuracy got from the majority's share (0) to 100% (1)."""
        return self._share_learnt(self.best_val_acc)

    @cached_property
    def fitted_share(self) -> float:
        """The same of training accuracy, measured in eval mode."""
        return self._share_learnt(self.best_train_acc)

    @cached_property
    def yardstick_acc_pct(self) -> float | None:
        """What next to nothing reaches on the validation data: a linear classifier, or the nearest training sample."""
        known = [self.signal_number("data", "linear_acc_pct"),
                 self.signal_number("data", "splits", "val", "nearest_neighbour_agreement_pct")]  # fmt: skip
        return max((value for value in known if value is not None), default=None)

    @property
    def falls_short_pct(self) -> float:
        """Points by which the best validation accuracy stays below that yardstick; 0 where it does not."""
        if self.yardstick_acc_pct is None or self.best_val_acc is None:
            return 0.0
        return max(0.0, self.yardstick_acc_pct - self.best_val_acc)

    @property
    def is_thrown_about(self) -> bool:
        """Whether steps were far too long: the first beside the weights, or the weights' growth over the training."""
        first = self.signal_number("initial_weights", "update_to_weight_median")
        return (first or 0.0) > HUGE_STEP or (self.weight_growth or 0.0) > HUGE_GROWTH

    @property
    def best_gap_pct(self) -> float | None:
        """Training minus validation accuracy at the best epoch, points."""
        train, val = number(self.best.get("train_acc")), number(self.best.get("val_acc"))
        return None if train is None or val is None else train - val

    @cached_property
    def weight_growth(self) -> float | None:
        """Size (L2 norm) of the weights after the last epoch over that before the first step."""
        first, grown = (self.signal_number("initial_weights", key) for key in ("weight_norm", "weight_norm_growth"))
        last = self.last_health("weights", "weight_norm")
        if first is None or grown is None or last is None or first <= 0 or grown <= -1:
            return None
        return last * (1 + grown) / first

    def standard_error_pct(self, accuracy_pct: float, num_samples: int | None = None) -> float:
        """Binomial standard error in points, of ``num_samples`` or all validation samples.

        With Agresti and Coull's two successes and two failures added (1998, The American Statistician 52), so that
        0 and 100% have one too.
        """
        count = (num_samples if num_samples is not None else self.num_val) or 1
        p = min(max((count * accuracy_pct / 100 + 2) / (count + 4), 0.0), 1.0)
        return 100 * math.sqrt(p * (1 - p) / (count + 4))

    @cached_property
    def num_rows_left_out(self) -> tuple[int, int]:
        """Rows with missing, NaN or infinite values that loading left out, and of how many, by the log."""
        with contextlib.suppress(OSError):
            text = self.run.folder.log.read_text(encoding="utf-8", errors="replace")
            # A resumed run says it again.
            found = {match.groups() for match in _ROWS_LEFT_OUT.finditer(text)}
            return sum(int(count) for count, _ in found), sum(int(total) for _, total in found)
        return 0, 0

    def loss_fall(self, key: str = "val_loss") -> float:
        """Share by which a loss fell over the last third of the epochs: medians of its first and last quarter."""
        losses = self.series(key)
        third = losses[-max(4, len(losses) // 3) :]
        if len(third) < 4:
            return 0.0
        quarter = max(1, len(third) // 4)
        before, after = median(third[:quarter]), median(third[-quarter:])
        return (before - after) / before if before > 0 else 0.0

    def _share_learnt(self, accuracy_pct: float | None) -> float:
        if accuracy_pct is None:
            return 0.0
        return (accuracy_pct - self.majority_acc_pct) / max(100.0 - self.majority_acc_pct, 1e-9)


def _at(value: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        value = mapping(value).get(key)
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _whole(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
