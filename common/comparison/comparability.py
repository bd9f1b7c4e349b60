"""What stands in the way of comparing two sides, and what should be known before reading the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from common.comparison.predictions import Predictions, PredictionsUnusableError, read_predictions
from common.comparison.runs import Run, Side, number

MAX_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """One sentence. ``blocking``: no verdict may follow from numbers that this stands behind."""

    message: str
    blocking: bool = False


def findings(baseline: Side, optimized: Side) -> list[Finding]:
    """Everything that a reader must know first, what forbids a verdict before all else."""
    sides = (baseline, optimized)
    found = [
        *_data(sides),
        *_validation_sets(sides),
        *_definitions(sides),
        *_configurations(sides),
        *_seeds(baseline, optimized),
        *_unfinished(sides),
        *(Finding(notice) for side in sides for notice in side.notices),
    ]
    return sorted(found, key=lambda finding: not finding.blocking)


def same_training(first: Run, second: Run) -> bool:
    """Whether both runs had the same weights after every epoch, bit by bit."""
    hashes = [[epoch.get("weights_sha256") for epoch in run.epochs] for run in (first, second)]
    return hashes[0] == hashes[1] and bool(hashes[0]) and None not in hashes[0]


def _runs(sides: Sequence[Side]) -> list[Run]:
    return [run for side in sides for run in side.runs]


def _data(sides: Sequence[Side]) -> Iterator[Finding]:
    prints = [{str(run.dataset.get("fingerprint")) for run in side.runs} for side in sides]
    if len(set.union(*prints)) > 1:
        shown = [", ".join(sorted(fingerprint[:12] for fingerprint in side)) for side in prints]
        yield Finding(
            f"the data differ (fingerprint {shown[0]} for the baseline, {shown[1]} for the optimized side)", True
        )


def _validation_sets(sides: Sequence[Side]) -> Iterator[Finding]:
    sizes = [sorted({number(run.dataset.get("num_val")) or 0 for run in side.runs}) for side in sides]
    classes = {str(run.dataset.get("class_names")) for run in _runs(sides)}
    if sizes[0] != sizes[1] or len(sizes[0]) > 1:
        shown = [" and ".join(f"{size:.0f}" for size in side) for side in sizes]
        yield Finding(f"the validation sets differ: {shown[0]} and {shown[1]} examples", True)
    elif len(classes) > 1:
        yield Finding("the validation sets differ: their classes have other names or another order", True)
    elif not _same_examples(_runs(sides)):
        yield Finding("the validation sets differ: their examples or labels are not the same ones", True)


def _same_examples(runs: Sequence[Run]) -> bool:
    """Whether all runs whose predictions can be read speak about the same examples."""
    first: Predictions | None = None
    for run in runs:
        try:
            predictions = read_predictions(run)
        except PredictionsUnusableError:
            continue
        if first is not None and not first.same_examples(predictions):
            return False
        first = first or predictions
    return True


def _definitions(sides: Sequence[Side]) -> Iterator[Finding]:
    chosen = [{str(run.best["metric"]) for run in side.runs if "metric" in run.best} for side in sides]
    if len(set.union(*chosen)) > 1:
        shown = [" and ".join(sorted(side)) or "nothing" for side in chosen]
        yield Finding(
            f"the best epoch is chosen by {shown[0]} for the baseline and by {shown[1]} for the optimized side "
            "(checkpointing.monitor)", True,
        )  # fmt: skip


def _configurations(sides: Sequence[Side]) -> Iterator[Finding]:
    """The seeds of a side speak for one configuration only if they share it."""
    from common.config import config_differences

    for side in sides:
        configs = [run.config for run in side.runs if run.config is not None]
        keys = {key for first, second in combinations(configs, 2) for key, *_ in config_differences(first, second)}
        keys = {key for key in keys if key != "reproducibility.seed" and not key.startswith("experiment.")}
        if keys:
            yield Finding(f"the {side.name} runs differ in more than their seed: {named(sorted(keys))}", True)
        for problem in sorted({run.config_problem for run in side.runs if run.config_problem}):
            yield Finding(problem)


def _seeds(baseline: Side, optimized: Side) -> Iterator[Finding]:
    ours, theirs = set(baseline.seeds), set(optimized.seeds)
    if ours != theirs:
        shown = [named([str(seed) for seed in side.seeds]) for side in (baseline, optimized)]
        yield Finding(f"the seeds differ: {shown[0]} for the baseline, {shown[1]} for the optimized side")


def _unfinished(sides: Sequence[Side]) -> Iterator[Finding]:
    for side in sides:
        for run in side.runs:
            if not run.finished:
                done = f"{len(run.epochs)} epoch{'' if len(run.epochs) == 1 else 's'}"
                what = {"running": "is still running, or was killed", "failed": "failed",
                        "interrupted": "was interrupted"}.get(run.status, f"has the status '{run.status}'")  # fmt: skip
                yield Finding(f"the {side.name} run {run.shown_folder} {what} after {done}; what it has is shown")


def named(names: Sequence[str]) -> str:
    """The first few of many."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
