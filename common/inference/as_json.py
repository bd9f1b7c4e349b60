"""A measurement for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.inference.comparison import Comparison
from common.inference.engines import Engine
from common.inference.gates import Gate
from common.inference.measurement import Measurement
from common.inference.percentiles import CONFIDENCE, Percentile

SCHEMA_VERSION = 1


def document(
    measurements: Sequence[Measurement], comparisons: Sequence[Comparison], gates: Sequence[Gate], test_data: str | Path
) -> dict[str, Any]:
    """Strict JSON: latencies in ms, times in s, memory in bytes, accuracies and shares in percent."""
    first = measurements[0]
    dataset = first.requests.dataset
    return {
        "schema_version": SCHEMA_VERSION,
        "model": model_fields(first.engine),
        "test_data": {
            "path": str(test_data),
            "fingerprint": dataset.fingerprint,
            "num_samples": first.requests.num_samples,
            "num_classes": dataset.num_classes,
            "problems": [problem.as_dict() for problem in dataset.problems],
        },
        "confidence": CONFIDENCE,
        "measurements": [measurement_fields(measurement) for measurement in measurements],
        "comparisons": [_comparison_fields(comparison) for comparison in comparisons],
        "gates": [asdict(gate) for gate in gates],
    }


def model_fields(engine: Engine) -> dict[str, Any]:
    """Which model ran, and on what."""
    metadata = engine.metadata
    return {
        "path": str(engine.path),
        "format": engine.format,
        "architecture": metadata.model_spec.get("architecture"),
        "precision": metadata.precision,
        "size_bytes": engine.path.stat().st_size,
        "checkpoint_sha256": metadata.checkpoint_sha256,
        "test_acc_when_trained": metadata.test_acc,
        "runtime": engine.runtime,
        "device": engine.device,
        "num_threads": engine.num_threads,
    }


def measurement_fields(measurement: Measurement) -> dict[str, Any]:
    """One batch size."""
    timings, schedule, accuracy = measurement.timings, measurement.schedule, measurement.accuracy
    contention = measurement.contention
    return {
        "batch_size": measurement.batch_size,
        "latency_ms": _percentile_fields(measurement.percentiles),
        "throughput_samples_per_s": measurement.samples_per_s,
        "num_calls": timings.num_calls,
        "num_unserved": timings.num_unserved,
        "wall_s": timings.wall_s,
        "cpu_s": timings.cpu_s,
        "warm_up": asdict(measurement.warm_up),
        "schedule": schedule and {
            "rate_per_s": schedule.rate_per_s,
            "busy_pct": schedule.busy_pct,
            "model_ms": _percentile_fields(schedule.model_percentiles),
        },
        "end_to_end_ms": _percentile_fields(measurement.end_to_end.percentiles),
        "prepare_p50_ms": measurement.end_to_end.prepare_p50_ms,
        "preparation": measurement.requests.steps,
        "contention": {
            **asdict(contention),
            "undisturbed": _percentile_fields([contention.undisturbed]),
            "verdict": contention.verdict,
            "reasons": contention.reasons,
        },
        "resources": _resource_fields(measurement),
        "accuracy": {
            "test_acc": accuracy.metrics.accuracy_pct,
            "interval_pct": list(accuracy.interval_pct),
            "num_correct": accuracy.num_correct,
            "num_samples": accuracy.num_samples,
            "num_non_finite": accuracy.num_non_finite,
            "test_f1": accuracy.metrics.f1,
            "confusion_matrix": accuracy.metrics.confusion_matrix.tolist(),
        },
    }  # fmt: skip


def _percentile_fields(found: Sequence[Percentile]) -> dict[str, Any]:
    return {
        one.name: {
            "value": one.value_ms,
            "low": one.low_ms,
            "high": one.high_ms,
            "num_samples": one.num_samples,
            "num_needed": one.num_needed,
        }
        for one in found
    }


def _resource_fields(measurement: Measurement) -> dict[str, Any]:
    resources = measurement.resources
    if isinstance(resources, str):
        return {"missing": resources}
    return {
        **asdict(resources),
        "over_baseline_bytes": resources.over_baseline_bytes,
        "cpu_nodes_pct": resources.cpu_nodes_pct,
    }


def _comparison_fields(comparison: Comparison) -> dict[str, Any]:
    return {
        "other_model": model_fields(comparison.other.engine),
        "other": measurement_fields(comparison.other),
        "latency_ratio": asdict(comparison.ratio),
        "num_turns": comparison.num_turns,
        "agreement_pct": comparison.agreement_pct,
        "mcnemar": asdict(comparison.mcnemar),
    }
