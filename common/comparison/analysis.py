"""What the curves of two sides show, in sentences that claim no more than the data carries."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from common.comparison.changes import FieldChange
from common.comparison.evidence import Comparison, mean
from common.comparison.measures import BY_KEY, GAP, Measure
from common.comparison.runs import Run, epoch_value, number

VAL_ACC, VAL_LOSS, TRAIN_ACC = (BY_KEY[key] for key in ("val_acc", "val_loss", "train_acc"))
# A validation loss that ends this much above its best has turned upwards, and did not just waver.
RISE_PCT = 10.0


def analysis(comparison: Comparison, changes: Sequence[FieldChange] | None) -> list[str]:
    """Sentences on the gap, the curves, the crossover, and what can be concluded from so many changes at once."""
    return [
        *_gap(comparison),
        _crossover_sentence(comparison),
        *_after_the_best(comparison),
        *_at_the_end(comparison),
        *_attribution(comparison, changes),
    ]


def crossover_epoch(baseline: Sequence[Run], optimized: Sequence[Run], measure: Measure) -> int | None:
    """The first epoch from which the optimized side's mean is better in every later epoch that both sides have.

    Returns:
        None where it is not ahead at the last such epoch, or there is none.
    """
    ours, theirs = mean_curve(baseline, measure), mean_curve(optimized, measure)
    gain = 1.0 if measure.higher_is_better else -1.0
    found = None
    for num in sorted(ours.keys() & theirs.keys(), reverse=True):
        if gain * (theirs[num] - ours[num]) <= 0:
            break
        found = num
    return found


def mean_curve(runs: Sequence[Run], measure: Measure) -> dict[int, float]:
    """The mean over the runs by epoch, as far as all of them have it."""
    values: dict[int, list[float]] = {}
    for run in runs:
        for epoch in run.epochs:
            if (value := epoch_value(epoch, measure)) is not None:
                values.setdefault(epoch["num"], []).append(value)
    return {num: sum(found) / len(found) for num, found in sorted(values.items()) if len(found) == len(runs)}


def _gap(comparison: Comparison) -> Iterator[str]:
    first, second = comparison.means(GAP)
    if first is None or second is None:
        return
    change, noise = second - first, _gap_noise(comparison)
    moved = f"The train-val gap goes from {first:.2f} to {second:.2f} points"
    if noise is None or abs(change) < noise:
        limit = "" if noise is None else f" (less than {noise:.2f} points cannot be told from chance here)"
        yield f"{moved}: no clear change{limit}."
        return
    yield f"{moved}. {_gap_meaning(comparison, narrower=change < 0)}"


def _gap_meaning(comparison: Comparison, *, narrower: bool) -> str:
    train, val = (_change(comparison, measure) for measure in (TRAIN_ACC, VAL_ACC))
    if narrower and val > 0:
        return "It is narrower while validation accuracy is higher: that suggests less overfitting."
    if narrower and train < 0:
        return (
            "It is narrower because training accuracy is lower, and validation accuracy is not higher: that suggests "
            "too much regularisation, or too few epochs for it."
        )
    if narrower:
        return "It is narrower, and validation accuracy is not higher."
    if val > 0:
        return "It is wider while validation accuracy is higher: the model learns more, and overfits more."
    return "It is wider and validation accuracy is not higher: that suggests more overfitting."


def _gap_noise(comparison: Comparison) -> float | None:
    """Below this a change of the gap means nothing: half of its 95% interval over seeds, or else over examples."""
    if min(len(runs) for runs in comparison.compared) >= 3:
        spread = [_standard_error(runs) for runs in comparison.compared]
        return None if None in spread else 2.0 * math.hypot(*(error for error in spread if error is not None))
    run = comparison.compared[0][0]
    num_val, accuracy = number(run.dataset.get("num_val")), mean(comparison.means(VAL_ACC))
    if num_val is None or num_val < 1 or accuracy is None:
        return None
    share = min(max(accuracy / 100.0, 0.0), 1.0)
    return 100.0 * 2.0 * math.sqrt(2.0 * share * (1.0 - share) / num_val)


def _standard_error(runs: Sequence[Run]) -> float | None:
    values = [value for run in runs if (value := run.value(GAP)) is not None]
    if len(values) < 2:
        return None
    centre = sum(values) / len(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1) / len(values))


def _change(comparison: Comparison, measure: Measure) -> float:
    first, second = comparison.means(measure)
    return 0.0 if first is None or second is None else second - first


def _crossover_sentence(comparison: Comparison) -> str:
    measure = comparison.measure if comparison.measure.is_validation else VAL_ACC
    curves = [mean_curve(runs, measure) for runs in comparison.compared]
    shared = sorted(curves[0].keys() & curves[1].keys())
    if not shared:
        return "The curves share no epoch, so there is nothing to say about which is ahead when."
    epoch = crossover_epoch(*comparison.compared, measure)
    name = measure.title.lower()
    if epoch is None:
        return f"Crossover: none. At epoch {shared[-1]}, the last that both have, the optimized {name} is not ahead."
    if epoch == shared[0]:
        return f"Crossover: none. The optimized {name} is ahead in all {len(shared)} epochs that both have."
    return (
        f"Crossover at epoch {epoch}: from there to epoch {shared[-1]}, the last that both have, the optimized {name} "
        "stays ahead."
    )


def _after_the_best(comparison: Comparison) -> Iterator[str]:
    for side, runs in zip(("baseline", "optimized"), comparison.compared, strict=True):
        rises = [rise for run in runs if (rise := _rise_pct(run)) is not None]
        if rises and min(rises) > RISE_PCT:
            ends = f"{min(rises):.0f}%" if len(rises) == 1 else f"{min(rises):.0f}% to {max(rises):.0f}%"
            yield (
                f"The {side} validation loss ends {ends} above that of the best epoch: overfitting set in after it, "
                "and the best epoch's weights are the ones to use."
            )


def _rise_pct(run: Run) -> float | None:
    best, final = run.value(VAL_LOSS), run.value(VAL_LOSS, "final")
    return 100.0 * (final / best - 1.0) if best and final is not None else None


def _at_the_end(comparison: Comparison) -> Iterator[str]:
    for side, runs in zip(("baseline", "optimized"), comparison.compared, strict=True):
        at_end = [run for run in runs if run.epochs and run.best_epoch == run.epochs[-1]["num"]]
        if at_end:
            which = "" if len(runs) == 1 else f" in {len(at_end)} of {len(runs)} runs"
            yield (
                f"The {side} best epoch is the last one{which}: it was still improving when it ended, so more epochs "
                "may change the picture."
            )


def _attribution(comparison: Comparison, changes: Sequence[FieldChange] | None) -> Iterator[str]:
    if changes is None:
        return
    count = sum(change.influences_training and change.key != "reproducibility.seed" for change in changes)
    if count > 1:
        yield (
            f"{count} settings that influence training were changed together, so this comparison cannot say which of "
            "them did what."
        )
    elif count == 0 and not comparison.identical:
        yield "No setting that influences training was changed: what differs comes from elsewhere, or from chance."
    if comparison.single:
        yield "All of this is about one run a side: another seed may draw other curves."
