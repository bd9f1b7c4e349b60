"""A measurement in words: the documented block, what stands behind it, and a table over batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common import markdown
from common.console import format_bytes, format_count, format_duration
from common.inference.comparison import Comparison
from common.inference.engines import Engine
from common.inference.gates import Gate
from common.inference.measurement import Measurement
from common.inference.model_files import FORMAT_NAMES
from common.inference.percentiles import CONFIDENCE
from common.inference.resources import Resources
from common.inference.wording import bounds_text, duration, milliseconds, percentile_text, rate

TITLE = "Inference Performance:"


def documented_block(measurement: Measurement) -> list[str]:
    """Exactly the lines that the documentation shows."""
    p50, _, p95, p99 = measurement.percentiles
    return [
        TITLE,
        *(f"- Latency {found.name}: {percentile_text(found)}" for found in (p50, p95, p99)),
        f"- Throughput: {rate(measurement.samples_per_s)} samples/sec",
        f"- Test Accuracy: {measurement.accuracy.metrics.accuracy_pct:.1f}%",
        f"- GPU Memory: {gpu_memory_text(measurement)}",
    ]


def details(measurement: Measurement) -> list[str]:
    """What stands behind the block."""
    return [
        f"Batch size {measurement.batch_size}: {_calls_text(measurement)}",
        f"- Latency, with bounds at {CONFIDENCE:.0%} confidence: {_joined(measurement.percentiles)}",
        *_schedule_lines(measurement),
        *_end_to_end_lines(measurement),
        *_resource_lines(measurement),
        *_contention_lines(measurement),
        *_accuracy_lines(measurement),
    ]


def model_lines(engine: Engine) -> list[str]:
    """Which model, on what."""
    spec = engine.metadata.model_spec
    size = format_bytes(engine.path.stat().st_size)
    threads = "1 thread" if engine.num_threads == 1 else f"{engine.num_threads} threads"
    what = f"{FORMAT_NAMES[engine.format]}, {spec.get('architecture', 'unknown architecture')}, "
    return [
        f"Model: {engine.path} ({what}{engine.metadata.precision}, {size})",
        f"Runtime: {engine.runtime} on {engine.device}, {threads}",
    ]


def batch_size_table(measurements: Sequence[Measurement]) -> str:
    """One row per batch size."""
    header = [
        "Batch",
        "p50",
        "p95",
        "p99",
        "Samples/sec",
        "End-to-end p50",
        "Accuracy",
        "Memory",
        "GPU memory",
        "State",
    ]
    return markdown.table(header, [_row(measurement) for measurement in measurements])


def comparison_lines(comparison: Comparison) -> list[str]:
    """How the other model does beside the first."""
    ratio = comparison.ratio
    interval = "" if ratio.low is None else f" (95% interval {ratio.low:.3f} to {ratio.high:.3f})"
    first, other = (m.accuracy.metrics.accuracy_pct for m in (comparison.first, comparison.other))
    test = comparison.mcnemar
    return [
        f"Compared at batch size {comparison.first.batch_size}, in {comparison.num_turns} turns each:",
        f"- Median latency: {ratio.ratio:.3f} times that of --model{interval}",
        f"- Latency of --compare: {_joined(comparison.other.percentiles)}",
        f"- Test accuracy: {other - first:+.2f} points ({first:.1f}% and {other:.1f}%)",
        f"- Same predicted class: {comparison.agreement_pct:.1f}% of the samples; only --model right: "
        f"{test.baseline_only}, only --compare right: {test.optimized_only} (McNemar p = {test.p_value:.2g})",
    ]


def overload_lines(measurement: Measurement) -> list[str]:
    """What must be known wherever the latency of a model is shown that did not keep up with its schedule."""
    unserved, arrived = measurement.timings.num_unserved, measurement.timings.num_calls
    if not unserved:
        return []
    return [
        f"Overloaded: {format_count(unserved)} of {format_count(arrived)} requests were still waiting when time was "
        "up; they count with the time waited so far, so the true latency is higher",
    ]


def gate_line(gate: Gate, *, several: bool) -> str:
    """A requirement and what came of it; ``several`` batch sizes were measured."""
    where = f" at batch size {gate.batch_size}" if several else ""
    return f"Required {gate.name}{where}: {gate.verdict}; {gate.message}"


def test_data_lines(measurement: Measurement, path: str | Path) -> list[str]:
    """What was asked about, and what is wrong with it."""
    dataset = measurement.requests.dataset
    count = format_count(measurement.requests.num_samples)
    return [f"Test data: {path}, {count} samples of {dataset.num_classes} classes"]


def gpu_memory_text(measurement: Measurement) -> str:
    """``1.2 GB``, ``n/a (CPU run)``, ``n/a (no NVIDIA driver)``."""
    if not measurement.engine.on_gpu:
        return "n/a (CPU run)"
    resources = measurement.resources
    if isinstance(resources, str) or resources.gpu is None:
        return "n/a (it could not be measured)"
    if resources.gpu.used_bytes is None:
        return f"n/a ({resources.gpu.note})"
    note = f" ({resources.gpu.note})" if resources.gpu.note else ""
    return f"{format_bytes(resources.gpu.used_bytes)}{note}"


def _calls_text(measurement: Measurement) -> str:
    timings, warm_up = measurement.timings, measurement.warm_up
    calls = f"{format_count(timings.num_calls)} calls in {format_duration(timings.wall_s)}"
    state = "" if warm_up.settled else ", times still changing"
    warmed = f"after {format_count(warm_up.num_calls)} to warm up ({format_duration(warm_up.duration_s)}{state})"
    return f"{calls} {warmed}; {timings.cpu_s / timings.wall_s:.1f} processors busy"


def _joined(found: Sequence) -> str:
    return ", ".join(bounds_text(one) for one in found)


def _schedule_lines(measurement: Measurement) -> list[str]:
    schedule = measurement.schedule
    if schedule is None:
        return []
    return [
        f"- Schedule: {schedule.rate_per_s:g} requests/s arriving at random (Poisson); latency counts from arrival; "
        f"the model was busy {schedule.busy_pct:.0f}% of the time, its own {_joined(schedule.model_percentiles[:1])}"
    ]


def _end_to_end_lines(measurement: Measurement) -> list[str]:
    end_to_end = measurement.end_to_end
    prepared = milliseconds(end_to_end.prepare_p50_ms)
    return [
        f"- End-to-end ({measurement.requests.steps}, run): {_joined(end_to_end.percentiles)}; "
        f"preparing alone p50 {prepared}"
    ]


def _resource_lines(measurement: Measurement) -> list[str]:
    found = measurement.resources
    if isinstance(found, str):
        return [f"- Memory and cold start: n/a, {found}"]
    lines = [
        f"- Cold start in a fresh process: import {duration(found.import_s)}, load "
        f"{duration(found.load_s)}, first call {duration(found.first_call_s)}",
        f"- Memory: {memory_text(found)}",
    ]
    if found.cpu_nodes_pct is not None:
        lines.append(f"- Nodes of the graph that run on the CPU: {found.cpu_nodes_pct:.1f}%")
    return lines


def memory_text(resources: Resources) -> str:
    """Peak resident memory over that of the runtime alone."""
    if resources.over_baseline_bytes is None or resources.baseline_bytes is None:
        return "n/a (this system does not say)"
    over, baseline = format_bytes(resources.over_baseline_bytes), format_bytes(resources.baseline_bytes)
    return f"{over} at most over the {baseline} of the runtime alone"


def _contention_lines(measurement: Measurement) -> list[str]:
    found = measurement.contention
    reasons = f" ({'; '.join(found.reasons)})" if found.reasons else ""
    return [
        f"- Measurement: {found.verdict}{reasons}; {format_count(found.num_preempted)} of "
        f"{format_count(found.num_calls)} calls preempted, {found.slowest_preempted_pct:.0f}% of the slowest 1%; "
        f"none left out; {found.undisturbed.name} of the others {percentile_text(found.undisturbed)}"
    ]


def _accuracy_lines(measurement: Measurement) -> list[str]:
    accuracy, metadata = measurement.accuracy, measurement.engine.metadata
    low, high = accuracy.interval_pct
    lines = [
        f"- Accuracy: {format_count(accuracy.num_correct)} of {format_count(accuracy.num_samples)} right, 95% interval "
        f"{low:.1f}% to {high:.1f}%; macro F1 {accuracy.metrics.f1:.3f}"
    ]
    if metadata.test_acc is not None:
        lines[0] += f"; {metadata.test_acc:.1f}% when it was trained"
    if accuracy.num_non_finite:
        lines.append(f"- Not finite: the logits of {format_count(accuracy.num_non_finite)} samples")
    return lines


def _row(measurement: Measurement) -> list[str]:
    p50, _, p95, p99 = measurement.percentiles
    resources = measurement.resources
    over = None if isinstance(resources, str) else resources.over_baseline_bytes
    return [
        str(measurement.batch_size),
        *(percentile_text(found) for found in (p50, p95, p99)),
        rate(measurement.samples_per_s),
        percentile_text(measurement.end_to_end.percentiles[0]),
        f"{measurement.accuracy.metrics.accuracy_pct:.1f}%",
        "n/a" if over is None else format_bytes(over),
        gpu_memory_text(measurement),
        measurement.contention.verdict,
    ]
