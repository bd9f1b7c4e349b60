"""The verdict in words. What the evidence does not carry is not said; and its absence is never called equality."""

from __future__ import annotations

from common.comparison.comparability import named
from common.comparison.evidence import NOT_COMPARABLE, Comparison
from common.comparison.measures import Measure
from common.statistics import Verdict
from common.statistics.power import MAX_RUNS

# The documentation's own yardstick: a statement of size, not of evidence.
SIGNIFICANT_IMPROVEMENT_PCT = 3.0
FALSE_ALARM = "two seeds of one configuration differ at p < 0.05 in about one of five cases"


def headline(comparison: Comparison) -> str:
    """The verdict: its name in bold, and what it rests on, in one sentence."""
    if comparison.verdict == NOT_COMPARABLE:
        return "**Not comparable**: the numbers below stand side by side, and no verdict follows from them."
    if comparison.identical:
        return "**Equivalent**: both sides are the same training, bit by bit."
    if comparison.assessment is None or comparison.without_score:
        return _incomplete(comparison)
    return {
        Verdict.BETTER.value: _better,
        Verdict.WORSE.value: _worse,
        Verdict.SMALL.value: _small,
        Verdict.EQUIVALENT.value: _equivalent,
        Verdict.UNKNOWN.value: _unknown,
    }[comparison.verdict](comparison)


def documented_yardstick(comparison: Comparison) -> str | None:
    """The documentation calls more than 3 points of accuracy significant; said for accuracies only."""
    first, second = comparison.means(comparison.measure)
    if comparison.measure.unit != "%" or first is None or second is None:
        return None
    gain = second - first
    is_it = "is" if gain > SIGNIFICANT_IMPROVEMENT_PCT else "is not"
    return (
        f"By the documentation's yardstick (more than {SIGNIFICANT_IMPROVEMENT_PCT:.0f} points absolute) this {is_it} "
        f"a 'significant improvement': {gain:+.2f} points. That yardstick is about size, not about evidence."
    )


def interval_text(measure: Measure, low: float, high: float) -> str:
    """``+0.40 to +2.06 points``."""
    return f"{measure.show_difference(low)} to {measure.with_unit(high)}"


def p_text(p_value: float) -> str:
    """``p = 0.0028`` or ``p < 0.0001``."""
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.4f}"


def runs_text(count: int | None, *, at_least: int = 0) -> str:
    """How many seeds a side: ``14``, or ``more than 10,000``."""
    return f"more than {MAX_RUNS:,}" if count is None else str(max(count, at_least))


def _incomplete(comparison: Comparison) -> str:
    missing = named([f"{run.shown_folder} ({run.status})" for run in comparison.without_score])
    return (
        f"**Not enough evidence**: {missing} has no {comparison.measure.title.lower()}, and without it the rest is no "
        "fair sample of its side."
    )


def _change(comparison: Comparison) -> str:
    """``validation accuracy goes from 95.12% to 96.35%, +1.23 points (95% interval ..., better in 5 of 5 seeds)``."""
    measure, found, models = comparison.measure, comparison.assessment, comparison.models
    assert found is not None
    first, second = comparison.means(measure)
    remarks = []
    if found.difference is not None:
        remarks.append(f"95% interval {interval_text(measure, found.difference.low, found.difference.high)}")
    elif models is not None and models.interval is not None:
        remarks.append(
            f"95% interval over examples {interval_text(measure, models.interval.low, models.interval.high)}"
        )
    if not comparison.single:
        what = "seeds" if comparison.paired else "pairings"
        remarks.append(f"better in {found.wins} of {found.trials} {what}")
    change = f"{measure.title.lower()} goes from {measure.show(first)} to {measure.show(second)}, "
    return change + measure.with_unit(found.effect) + (f" ({', '.join(remarks)})" if remarks else "")


def _better(comparison: Comparison) -> str:
    return f"**Better**: {_change(comparison)}, and that is more than chance."


def _worse(comparison: Comparison) -> str:
    return f"**Worse**: {_change(comparison)}, and that is more than chance."


def _small(comparison: Comparison) -> str:
    return (
        f"**Real but small**: {_change(comparison)}: more than chance, but less than the "
        f"{comparison.measure.size(comparison.margin)} that matter."
    )


def _equivalent(comparison: Comparison) -> str:
    return (
        f"**Equivalent**: {_change(comparison)}; whatever difference there is, it is within "
        f"{comparison.measure.size(comparison.margin)} either way."
    )


def _unknown(comparison: Comparison) -> str:
    found = comparison.assessment
    assert found is not None
    fewest = min(found.num_baseline, found.num_optimized)
    if fewest < 3:
        return _one_run(comparison) if comparison.single else _few_runs(comparison, fewest)
    if found.difference is None:
        return (
            f"**Not enough evidence**: {_change(comparison)}; all differences are equal, so nothing is known about "
            "their spread, and more seeds or a larger validation set are needed."
        )
    return (
        f"**Not enough evidence**: {_change(comparison)}; these runs could only have shown a difference of "
        f"{comparison.measure.size(found.smallest_effect)} or more, and "
        f"{runs_text(found.needed_for_margin)} seeds a side would show one of {comparison.measure.size(found.margin)}."
    )


def _few_runs(comparison: Comparison, fewest: int) -> str:
    runs = "one run" if fewest == 1 else "two runs"
    return (
        f"**Not enough evidence**: {_change(comparison)}; {runs} of a side describe, and cannot decide: "
        "train three seeds a side or more."
    )


def _one_run(comparison: Comparison) -> str:
    lead = f"**Not enough evidence** about the configurations: {_change(comparison)}, with one run a side"
    models = comparison.models
    if models is None:
        return f"{lead}; train three seeds a side or more."
    p_value = p_text(models.test.p_value)
    if models.differ:
        told = f"differ on {models.num_examples} examples ({p_value}), but {FALSE_ALARM}"
    else:
        told = f"cannot be told apart on {models.num_examples} examples ({p_value})"
    return f"{lead}; these two trained models {told}{_plan(comparison)}."


def _plan(comparison: Comparison) -> str:
    models = comparison.models
    assert models is not None
    if models.spread_guess == 0 or comparison.measure.key != "val_acc":
        return ": train three seeds a side or more"
    size = comparison.measure.size
    effect = comparison.assessment.effect if comparison.assessment else 0.0
    about = f"{runs_text(models.needed_for_effect)} seeds a side would show a difference of {size(effect)}"
    if models.needed_for_effect is None:
        about = (
            f"{runs_text(models.needed_for_margin)} seeds a side would show a difference of {size(comparison.margin)}"
        )
    return f"; about {about}"
