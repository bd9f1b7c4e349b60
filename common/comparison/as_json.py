"""A comparison for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from common.comparison.evidence import Comparison
from common.comparison.measures import MEASURES, Measure
from common.comparison.runs import Run, Side
from common.comparison.wording import headline
from common.metrics_file import without_non_finite

SCHEMA_VERSION = 1


def comparison_document(comparison: Comparison) -> Mapping[str, Any]:
    """Everything that the report says, ready for strict JSON; unknown numbers are None.

    ``improvement`` is ``{"absolute", "relative_pct"}`` of the primary metric's means; every difference is optimized
    minus baseline.
    """
    first, second = comparison.means(comparison.measure)
    change = None if first is None or second is None else second - first
    document = {
        "schema_version": SCHEMA_VERSION,
        "metric": comparison.measure.key,
        "margin": comparison.margin,
        "verdict": comparison.verdict,
        "headline": headline(comparison).replace("**", ""),
        "comparable": comparison.comparable,
        "findings": [asdict(finding) for finding in comparison.findings],
        "improvement": {
            "absolute": change,
            "relative_pct": 100.0 * change / first if change is not None and first else None,
        },
        "paired": comparison.paired,
        "assessment": _assessment(comparison),
        "models": None if comparison.models is None else asdict(comparison.models),
        "secondary": [
            {"metric": test.measure.key, "effect": test.effect, "p_value": test.p_value,
             "corrected_p_value": test.corrected_p}
            for test in comparison.secondary
        ],
        "metrics": {measure.key: _means(comparison, measure) for measure in MEASURES},
        "runs": {side.name: [_run(run, comparison.measure) for run in side.runs] for side in _sides(comparison)},
    }  # fmt: skip
    result = without_non_finite(document)
    assert isinstance(result, dict)
    return result


def _sides(comparison: Comparison) -> tuple[Side, Side]:
    return comparison.baseline, comparison.optimized


def _assessment(comparison: Comparison) -> Mapping[str, Any] | None:
    if comparison.assessment is None:
        return None
    return {**asdict(comparison.assessment), "verdict": comparison.assessment.verdict.value}


def _means(comparison: Comparison, measure: Measure) -> Mapping[str, Any]:
    return {
        at: dict(zip(("baseline", "optimized"), comparison.means(measure, at), strict=True)) for at in ("best", "final")
    }


def _run(run: Run, measure: Measure) -> Mapping[str, Any]:
    return {
        "path": str(run.path),
        "seed": run.seed,
        "status": run.status,
        "epochs": len(run.epochs),
        "best_epoch": run.best_epoch,
        "score": run.value(measure),
        "duration_s": run.duration_s(),
        "time_to_best_s": run.time_to_best_s(),
        "energy_j": run.energy_j(),
        "mean_gpu_util_pct": run.mean("gpu_util"),
    }
