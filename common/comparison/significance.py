"""What a verdict rests on, in Markdown: the design, the tests, the intervals, the power."""

from __future__ import annotations

from common import markdown
from common.comparison.evidence import Comparison
from common.comparison.measures import Measure
from common.comparison.wording import FALSE_ALARM, interval_text, p_text, runs_text
from common.statistics import Assessment

Row = tuple[object, ...]


def significance_section(comparison: Comparison) -> str:
    """What the verdict rests on."""
    if comparison.assessment is None:
        return "Nothing to test: a side has no score."
    parts = [_design(comparison), markdown.table(["What", "Value"], _evidence_rows(comparison)), _how(comparison)]
    if comparison.secondary:
        rows = [
            (test.measure.title, test.measure.with_unit(test.effect), p_text(test.p_value), p_text(test.corrected_p))
            for test in comparison.secondary
        ]
        table = markdown.table(["Other measures", "Difference", "Alone", "Corrected (Holm)"], rows)
        parts += [f"The other measures, corrected for being {len(rows)} at once:", table]
    return "\n\n".join(parts)


def _design(comparison: Comparison) -> str:
    found = comparison.assessment
    assert found is not None
    score = f"A run's score is its best epoch's {comparison.measure.key}."
    if comparison.single:
        return f"{score} One run a side: the numbers compare two trained models, not two configurations."
    if comparison.paired:
        left_out = len(comparison.baseline.runs) + len(comparison.optimized.runs) - 2 * len(comparison.pairs)
        more = f" {left_out} runs without a partner are left out." if left_out else ""
        return f"{score} {found.num_baseline} pairs of runs, matched by seed.{more}"
    return f"{score} {found.num_baseline} and {found.num_optimized} runs, not paired, since their seeds differ."


def _evidence_rows(comparison: Comparison) -> list[Row]:
    measure, found = comparison.measure, comparison.assessment
    assert found is not None
    rows: list[Row] = [("Effect (optimized - baseline)", measure.with_unit(found.effect))]
    rows += _model_rows(comparison) if comparison.single else _seed_rows(measure, found)
    return [*rows, ("Margin that matters", f"±{measure.size(comparison.margin)}")]


def _seed_rows(measure: Measure, found: Assessment) -> list[Row]:
    rows: list[Row] = []
    if found.difference is None:
        rows.append(("95% interval", "none: the runs leave no spread to estimate it from"))
    else:
        few = min(found.num_baseline, found.num_optimized) < 3
        interval = interval_text(measure, found.difference.low, found.difference.high)
        test = "paired t" if found.paired else "Welch's t"
        freedom = f"{found.difference.degrees_of_freedom:.1f}".removesuffix(".0")
        rows.append(("95% interval", f"{interval}{' (descriptive only)' if few else ''}"))
        rows.append(
            (f"{test[0].upper()}{test[1:]} test", f"{p_text(found.difference.p_value)}, {freedom} degrees of freedom")
        )
    if found.permutation is not None:
        kind = "sign-flip" if found.paired else "permutation"
        how = "Exact" if found.permutation.exact else "Sampled"
        rows.append((f"{how} {kind} test", p_text(found.permutation.p_value)))
    if found.equivalence_p is not None:
        rows.append(("Equivalence within the margin (TOST)", p_text(found.equivalence_p)))
    ties = f", {found.ties} equal" if found.ties else ""
    rows.append(("Wins of the optimized side", f"{found.wins} of {found.trials}{ties}"))
    rows.append(("Probability that a new optimized run beats a new baseline run", _share(found.probability_better)))
    rows.append(("Smallest effect these runs could have shown (80% power)", measure.size(found.smallest_effect)))
    return [*rows, *_needed_rows(measure, found)]


def _needed_rows(measure: Measure, found: Assessment) -> list[Row]:
    if found.difference is None:
        return [("Seeds a side for 80% power", "unknown without a spread")]
    return [
        ("Seeds a side for 80% power to show this effect", runs_text(found.needed_for_effect)),
        ("Seeds a side for 80% power to show the margin", runs_text(found.needed_for_margin)),
    ]


def _model_rows(comparison: Comparison) -> list[Row]:
    measure, models, found = comparison.measure, comparison.models, comparison.assessment
    assert found is not None
    rows: list[Row] = []
    if models is None:
        rows.append(("95% interval", f"none: {comparison.models_problem}"))
    elif models.interval is None:
        rows.append(("95% interval", "none: there are no predictions per training example"))
    else:
        interval = interval_text(measure, models.interval.low, models.interval.high)
        rows.append(("95% interval over examples (paired bootstrap)", interval))
    if models is not None:
        only = f"{models.test.optimized_only} right only now, {models.test.baseline_only} right only before"
        rows.append(("Exact McNemar test", f"{p_text(models.test.p_value)} ({only})"))
        rows.append(("McNemar mid-p", p_text(models.test.mid_p_value)))
    rows.append(("Wins of the optimized side", f"{found.wins} of {found.trials}"))
    share = None if models is None or models.interval is None else models.interval.share_positive
    if share is not None and not measure.higher_is_better:
        share = 1.0 - share
    rows.append(("Probability that this optimized model beats this baseline model", _share(share)))
    return [*rows, *_planned_rows(comparison)]


def _planned_rows(comparison: Comparison) -> list[Row]:
    measure, models = comparison.measure, comparison.models
    smallest = "Smallest effect these runs could have shown (80% power)"
    if models is None or models.smallest_effect is None:
        return [(smallest, "of configurations: none, for want of a second seed"),
                ("Seeds a side for 80% power", "unknown; begin with three")]  # fmt: skip
    between = f"of configurations: none; between these two models: {measure.size(models.smallest_effect)}"
    return [
        (smallest, between),
        ("Seeds' spread to plan with (a guess from the examples)", measure.size(models.spread_guess)),
        ("Seeds a side for 80% power to show this effect", f"about {runs_text(models.needed_for_effect)}"),
        ("Seeds a side for 80% power to show the margin", f"about {runs_text(models.needed_for_margin)}"),
    ]


def _share(share: float | None) -> str:
    return (
        "unknown" if share is None else f"{100.0 * share:.1f}%" if 0.001 <= share <= 0.999 else f"{100.0 * share:.2f}%"
    )


def _how(comparison: Comparison) -> str:
    if comparison.single:
        return f"Two trained models may differ although the configurations do not: {FALSE_ALARM}."
    found = comparison.assessment
    assert found is not None
    if min(found.num_baseline, found.num_optimized) < 3:
        return "Two runs a side are descriptive only; three or more carry a verdict."
    agree = " and the permutation test" if found.permutation else ""
    return (
        f"Two-sided, at 5%. *Better* or *worse*: the t test{agree} show a difference, and it is at least the margin. "
        "*Real but small*: shown, and less than the margin. *Equivalent*: the whole 90% interval lies within the "
        "margin. *Not enough evidence*: none of these, which is not the same as no difference. Power is that of the "
        "t test."
    )
