"""Requirements that a model must meet, for continuous integration."""

from __future__ import annotations

from dataclasses import dataclass

from common.inference.measurement import Measurement
from common.inference.wording import milliseconds

GATED_PCT = 99.0


@dataclass(frozen=True)
class Gate:
    """``verdict``: ``met``, ``missed``, or ``not proven`` where the samples do not tell; ``message``: a sentence."""

    name: str
    batch_size: int
    verdict: str
    message: str


def check_gates(
    measurement: Measurement, *, max_latency_ms: float | None, min_accuracy_pct: float | None
) -> list[Gate]:
    """The gates that were asked for, at this batch size."""
    gates = []
    if max_latency_ms is not None:
        gates.append(_latency_gate(measurement, max_latency_ms))
    if min_accuracy_pct is not None:
        gates.append(_accuracy_gate(measurement, min_accuracy_pct))
    return gates


def _latency_gate(measurement: Measurement, limit_ms: float) -> Gate:
    """p99 must lie below the limit with 99% confidence: what passes once by luck fails the next day by bad luck."""
    found = measurement.percentile(GATED_PCT)
    limit = milliseconds(limit_ms)
    if found.value_ms is None or found.high_ms is None:
        verdict = "not proven"
        message = f"{found.name} needs {found.num_needed} calls, there are {found.num_samples}; raise --duration"
    elif found.value_ms > limit_ms:
        verdict, message = "missed", f"{found.name} is {milliseconds(found.value_ms)}, above {limit}"
    elif measurement.timings.num_unserved:
        verdict, message = "not proven", "requests were still waiting when time was up; lower --rate"
    elif found.high_ms > limit_ms:
        verdict = "not proven"
        message = (
            f"{found.name} is {milliseconds(found.value_ms)}, but may be as high as {milliseconds(found.high_ms)}, "
            f"above {limit}; raise --duration"
        )
    else:
        verdict, message = "met", f"{found.name} is at most {milliseconds(found.high_ms)}, within {limit}"
    return Gate("latency", measurement.batch_size, verdict, message)


def _accuracy_gate(measurement: Measurement, limit_pct: float) -> Gate:
    accuracy_pct = measurement.accuracy.metrics.accuracy_pct
    met = accuracy_pct >= limit_pct
    relation = "at least" if met else "below"
    message = f"test accuracy is {accuracy_pct:.2f}%, {relation} the required {limit_pct:g}%"
    return Gate("accuracy", measurement.batch_size, "met" if met else "missed", message)
