"""Sections of a comparison in Markdown, for every report that has one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from common import markdown
from common.comparison.evidence import Comparison, mean
from common.comparison.measures import GAP, MEASURES, TEST_MEASURES, Measure
from common.comparison.runs import Run
from common.comparison.wording import documented_yardstick, headline, p_text
from common.console import format_count, format_duration
from common.environment import exactness_fingerprint, fingerprint_differences

Row = tuple[object, ...]


def lead(comparison: Comparison) -> str:
    """What stands at the top: what forbids a comparison or should be known first, then the verdict."""
    blocking = [finding.message for finding in comparison.findings if finding.blocking]
    notes = [finding.message for finding in comparison.findings if not finding.blocking]
    parts = []
    if blocking:
        parts += ["These runs are not comparable:", markdown.bullet_list(blocking, empty="")]
    if notes:
        parts += ["To be known first:", markdown.bullet_list(notes, empty="")]
    parts.append(headline(comparison))
    yardstick = documented_yardstick(comparison) if comparison.comparable else None
    return "\n\n".join([*parts, *([yardstick] if yardstick else [])])


def metrics_sections(comparison: Comparison) -> list[tuple[str, str]]:
    """Every measure at the best and at the final epoch, and on the test set where both sides have one."""
    sections = [
        ("Metrics at the best epoch", f"{_epochs_line(comparison)}\n\n{_metrics_table(comparison, 'best')}"),
        ("Metrics at the final epoch", _metrics_table(comparison, "final")),
    ]
    if all(run.document.get("test") for side in comparison.compared for run in side):
        sections.append(("Metrics on the test set", _differences_table(comparison, TEST_MEASURES, "best", {})))
    return sections


def gap_text(comparison: Comparison) -> str:
    """The train-val gap and its change, in one sentence."""
    first, second = comparison.means(GAP)
    if first is None or second is None:
        return "The train-val gap is unknown: a best epoch has no training or validation accuracy."
    change = second - first
    moved = (
        "as wide as before"
        if abs(change) < 0.005
        else f"{abs(change):.2f} points {'narrower' if change < 0 else 'wider'}"
    )
    return f"Train-val gap at the best epoch: {first:.2f} points before, {second:.2f} points now: {moved}."


def cost_section(comparison: Comparison) -> str:
    """Epochs, time, energy: per run, the mean of a side."""
    measured: list[tuple[str, Callable[[Run], float | None], Callable[[float], str]]] = [
        ("Epochs", lambda run: float(len(run.epochs)), _plain_number),
        ("Best epoch", lambda run: run.best_epoch, _plain_number),
        ("Time to the best epoch", Run.time_to_best_s, format_duration),
        ("Time in all", Run.duration_s, format_duration),
        ("Time per epoch", lambda run: run.mean("time_s"), format_duration),
        ("GPU energy", Run.energy_j, _energy),
        ("Parameters", Run.num_parameters, lambda value: format_count(round(value))),
    ]
    rows = [_cost_row(comparison, *row) for row in measured]
    table = markdown.table(["Cost of a run", "Baseline", "Optimized", "Change"], rows)
    differences = machine_differences(comparison)
    if not differences:
        return table
    note = "The machines or their settings differ, so times cannot be compared one to one:"
    return f"{table}\n\n{note}\n\n{markdown.bullet_list(differences, empty='')}"


def machine_differences(comparison: Comparison) -> list[str]:
    """What differs between the two sides' first runs in what they ran on; empty where a side does not say."""
    first, second = (side.first.environment for side in (comparison.baseline, comparison.optimized))
    if not first or not second:
        return []
    differences = fingerprint_differences(exactness_fingerprint(first), exactness_fingerprint(second))
    return [text.replace(" then, ", " for the baseline, ").removesuffix(" now") + " for the optimized side"
            for text in differences]  # fmt: skip


def runs_section(comparison: Comparison) -> str:
    """Every run with its score."""
    measure = comparison.measure
    rows = [
        (side.name, run.shown_folder, "?" if run.seed is None else run.seed, run.status, len(run.epochs),
         "-" if run.best_epoch is None else run.best_epoch, measure.show(run.value(measure)))
        for side in (comparison.baseline, comparison.optimized)
        for run in side.runs
    ]  # fmt: skip
    return markdown.table(["Side", "Run", "Seed", "Status", "Epochs", "Best epoch", measure.title], rows)


def spread_text(values: Sequence[float], measure: Measure) -> str:
    """``95.12% ± 0.34`` of several runs (standard deviation of a sample), the value of one."""
    if not values:
        return "n/a"
    spread = f" ± {statistics.stdev(values):.{measure.digits}f}" if len(values) > 1 else ""
    return measure.show(sum(values) / len(values)) + spread


def _epochs_line(comparison: Comparison) -> str:
    shown = [", ".join(sorted({str(run.best.get("metric")) for run in runs if run.best})) or "nothing"
             for runs in comparison.compared]  # fmt: skip
    chosen = shown[0] if shown[0] == shown[1] else f"{shown[0]} (baseline) and {shown[1]} (optimized)"
    several = max(len(runs) for runs in comparison.compared) > 1
    spread = " Means over the seeds ± their standard deviation." if several else ""
    return f"The best epoch is the one with the best {chosen}.{spread} {gap_text(comparison)}"


def _metrics_table(comparison: Comparison, at: str) -> str:
    significance = {}
    if at == "best":
        significance = {test.measure.key: p_text(test.corrected_p) for test in comparison.secondary}
        significance[comparison.measure.key] = _primary_significance(comparison)
    return _differences_table(comparison, MEASURES, at, significance)


def _differences_table(
    comparison: Comparison, measures: Sequence[Measure], at: str, significance: dict[str, str]
) -> str:
    rows = []
    for measure in measures:
        first, second = comparison.means(measure, at)
        change = None if first is None or second is None else second - first
        sides = [_spread_of(runs, measure, at) for runs in comparison.compared]
        row = [measure.title, *sides, measure.show_difference(change), relative_text(first, change),
               _better_or_worse(measure, change)]  # fmt: skip
        rows.append([*row, significance.get(measure.key, "not tested")] if significance else row)
    header = ["Metric", "Baseline", "Optimized", "Absolute", "Relative", "That is"]
    return markdown.table([*header, "Significance"] if significance else header, rows)


def relative_text(baseline: float | None, change: float | None) -> str:
    """``(improvement / baseline) * 100`` with its sign; ``n/a`` where the baseline is zero or unknown."""
    return f"{100.0 * change / baseline:+.2f}%" if baseline and change is not None else "n/a"


def _spread_of(runs: Sequence[Run], measure: Measure, at: str) -> str:
    return spread_text([value for run in runs if (value := run.value(measure, at)) is not None], measure)


def _better_or_worse(measure: Measure, change: float | None) -> str:
    if change is None:
        return "n/a"
    if abs(change) < 0.5 * 10**-measure.digits:
        return "equal"
    return "better" if (change > 0) == measure.higher_is_better else "worse"


def _primary_significance(comparison: Comparison) -> str:
    found, models = comparison.assessment, comparison.models
    if found is not None and found.difference is not None:
        return p_text(found.difference.p_value)
    return f"{p_text(models.test.p_value)} (models)" if models is not None else "not tested"


def _cost_row(
    comparison: Comparison, title: str, measured: Callable[[Run], float | None], show: Callable[[float], str]
) -> Row:
    first, second = (mean([measured(run) for run in runs]) for runs in comparison.compared)
    shown = ["n/a" if value is None else show(value) for value in (first, second)]
    change = relative_text(first, None if first is None or second is None else second - first)
    return (title, *shown, change)


def _plain_number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _energy(joules: float) -> str:
    return f"{joules:.0f} J" if joules < 36_000 else f"{joules / 3_600_000:.3f} kWh"
