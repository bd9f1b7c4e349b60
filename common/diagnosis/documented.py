"""The documentation's decision logic by its letter, without the gates that keep it from misfiring.

The rules in ``causes_*`` rest on the same limits; this is for showing beside them, and for measuring what the gates are
worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, pstdev

from common.comparison.runs import number
from common.diagnosis.evidence import RunEvidence


@dataclass(frozen=True)
class Threshold:
    """One branch: the guide that it leads to, what is measured, its value (None: unknown) and whether it is crossed."""

    guide: str
    what: str
    value: str
    limit: str
    is_crossed: bool


def documented_thresholds(run: RunEvidence) -> list[Threshold]:
    """The four branches, in their order."""
    last = run.last
    train, val = number(last.get("train_acc")), number(last.get("val_acc"))
    gap = None if train is None or val is None else train - val
    spread = pstdev(run.series("val_acc")) if run.validated else None
    utilisation = [value for epoch in run.epochs if (value := number(epoch.get("gpu_util"))) is not None]
    gap_limit, low = run.threshold("overfitting_gap_pct"), run.threshold("underfitting_acc_pct")
    spread_limit, util_limit = run.threshold("val_acc_spread_pct"), run.threshold("gpu_util_pct")
    return [
        Threshold("overfitting", "train_acc - val_acc, last epoch", _points(gap), f"> {gap_limit:g}",
                  gap is not None and gap > gap_limit),
        Threshold("underfitting", "train_acc and val_acc, last epoch", f"{_points(train)} and {_points(val)}",
                  f"both < {low:g}", train is not None and val is not None and train < low and val < low),
        Threshold("data_quality", "spread of val_acc, all epochs", _points(spread), f"> {spread_limit:g}",
                  spread is not None and spread > spread_limit),
        Threshold("resource_inefficiency", "mean GPU utilisation",
                  _points(fmean(utilisation)) if utilisation else "n/a (CPU run)", f"< {util_limit:g}",
                  bool(utilisation) and fmean(utilisation) < util_limit),
    ]  # fmt: skip


def documented_issue(run: RunEvidence) -> str | None:
    """The guide of the first branch that is taken, or None."""
    return next((threshold.guide for threshold in documented_thresholds(run) if threshold.is_crossed), None)


def _points(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f}"
