"""Rules for what a run came to: fit, speed, an untimely end. They are asked last, when no deeper cause is seen."""

from __future__ import annotations

from common.comparison.runs import number
from common.diagnosis.evidence import RunEvidence
from common.diagnosis.findings import Fact, Finding, log_strength, strength
from common.metrics_file import FINISHED_STATUSES

# A step shorter than this is bound by launching kernels: no batch size fills a GPU with so small a network.
TINY_STEP_S = 0.003


def crashed(run: RunEvidence) -> Finding | None:
    if run.run.status in FINISHED_STATUSES or any(kind == "nan_loss" for kind, _, _ in run.events):
        return None
    facts = (
        Fact("status of the run", run.run.status, "completed or early_stopped"),
        Fact("completed epochs", str(len(run.epochs)), "all"),
    )
    # A run that says it is running may still be.
    return Finding(0.6 if run.run.status == "running" else 0.9, facts)


def memorised(run: RunEvidence) -> Finding | None:
    """The documented gap, on training accuracy in eval mode and against the validation accuracy's binomial error."""
    train, val = number(run.best.get("train_acc")), number(run.best.get("val_acc"))
    if train is None or val is None:
        return None
    gap, limit, noise = train - val, run.threshold("overfitting_gap_pct"), run.standard_error_pct(val)
    facts = (
        Fact("training accuracy minus validation accuracy, best epoch", f"{train:.1f}% - {val:.1f}% = {gap:.1f} points",
             f"below {limit:g} (diagnostics.overfitting_gap_pct)"),
        Fact("standard error of the validation accuracy", f"{noise:.1f} points", "small beside the gap"),
    )  # fmt: skip
    confidence = min(strength(gap, limit, 1.5 * limit + 2), strength(gap / noise, 2.5, 4.0))
    return Finding(confidence, facts, "val_acc", (int(run.best["num"]),))


def trained_too_short(run: RunEvidence) -> Finding | None:
    """The documented limit on both accuracies, where more could be learnt: the loss still falls."""
    found = _both_low(run)
    if found is None:
        return None
    fall = run.loss_fall("train_loss")
    late = bool(run.run.best_epoch) and run.run.best_epoch >= run.epochs[-1]["num"] - 1
    facts = (
        *found,
        Fact("fall of the training loss over the last third of the epochs", f"{fall:.0%}", "near 0 at the end"),
        Fact("best epoch", f"{run.run.best_epoch} of {run.epochs[-1]['num']}", "before the last"),
    )
    return Finding(strength(fall, 0.03, 0.12) if late else 0.0, facts, "train_loss")


def behind_simple_methods(run: RunEvidence) -> Finding | None:
    """The network does not do what a linear classifier or the nearest neighbour does, and no rule says why."""
    behind = run.falls_short_pct
    if run.best_val_acc is None or run.yardstick_acc_pct is None:
        return None
    noise = run.standard_error_pct(run.yardstick_acc_pct)
    facts = (
        Fact("best validation accuracy", f"{run.best_val_acc:.1f}%", f"at least {run.yardstick_acc_pct:.1f}%, as a "
             "linear classifier or the nearest neighbour"),
        Fact("standard error of that", f"{noise:.1f} points", "small beside the difference"),
    )  # fmt: skip
    return Finding(min(strength(behind, 6.0, 15.0), strength(behind / noise, 2.0, 4.0)), facts, "val_acc")


def slow_loading(run: RunEvidence) -> Finding | None:
    spent = [(number(epoch.get("data_time_s")), number(epoch.get("time_s"))) for epoch in run.epochs]
    known = [(waiting, total) for waiting, total in spent if waiting is not None and total]
    if not known:
        return None
    share = sum(waiting for waiting, _ in known) / sum(total for _, total in known)
    facts = (Fact("share of the time that goes to waiting for data", f"{share:.0%}", "below 10%"),)
    return Finding(log_strength(share, 0.15, 0.3), facts)


def idle_gpu(run: RunEvidence) -> Finding | None:
    """The documented limit on utilisation, where the epochs have steps long enough to fill a GPU."""
    limit = run.threshold("gpu_util_pct")
    recent = [epoch for epoch in run.epochs if number(epoch.get("gpu_util")) is not None]
    if len(recent) <= 10:
        return None
    low = [epoch for epoch in recent if epoch["gpu_util"] < limit]
    step_s = [(number(epoch.get("time_s")) or 0.0) / max(number(epoch.get("num_steps")) or 1, 1) for epoch in recent]
    mean = sum(epoch["gpu_util"] for epoch in recent) / len(recent)
    if len(low) <= 10 or max(step_s) < TINY_STEP_S:
        return None
    facts = (
        Fact("mean GPU utilisation", f"{mean:.0f}%", f"above {limit:g}% (diagnostics.resource_inefficiency)"),
        Fact("epochs below that", f"{len(low)} of {len(recent)}", "at most 10"),
    )
    return Finding(strength(mean, limit, limit / 2), facts)


def _both_low(run: RunEvidence) -> tuple[Fact, ...] | None:
    limit = run.threshold("underfitting_acc_pct")
    train, val = run.best_train_acc, run.best_val_acc
    if train is None or val is None or train >= limit or val >= limit:
        return None
    return (
        Fact("best training accuracy", f"{train:.1f}%", f"above {limit:g}% (diagnostics.underfitting_acc_pct)"),
        Fact("best validation accuracy", f"{val:.1f}%", f"above {limit:g}%"),
    )
