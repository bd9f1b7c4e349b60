"""``MODE_results.md``: what a training did, for people, written from the run's own metrics and environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common import markdown
from common.console import format_bytes, format_duration

_METRICS = (
    ("train_loss", "Train loss", "{:.4f}"),
    ("train_acc", "Train accuracy", "{:.2f}%"),
    ("val_loss", "Validation loss", "{:.4f}"),
    ("val_acc", "Validation accuracy", "{:.2f}%"),
    ("val_f1", "Validation F1 (macro)", "{:.4f}"),
    ("val_precision", "Validation precision (macro)", "{:.4f}"),
    ("val_recall", "Validation recall (macro)", "{:.4f}"),
)
_TITLES = {"baseline": "Baseline results", "optimization": "Optimization results", "production": "Production results"}
GPU_UTILIZATION_GOAL_PCT = 60.0


@dataclass(frozen=True)
class Check:
    """One line of the checklist: what must hold, whether it does (None: it does not apply), and the evidence."""

    what: str
    passed: bool | None
    evidence: str


def results_markdown(
    metrics: Mapping,
    environment: Mapping,
    *,
    config_text: str,
    checkpoint_sizes: Mapping[str, int],
    checks: Sequence[Check],
    decision: str,
    notices: Sequence[str],
) -> str:
    """The whole report as Markdown. Pictures are named relative to the run folder, where the report lies too."""
    mode = metrics["run"]["mode"]
    return markdown.document(
        f"{_TITLES.get(mode, mode)}: {metrics['run']['dataset']['name']}",
        [
            ("", _summary(metrics)),
            ("Metrics", _metrics_table(metrics)),
            ("Learning curves", "![Loss and accuracy by epoch](learning_curves.png)"),
            *([("Test set", _test_section(metrics["test"]))] if metrics.get("test") else []),
            ("Checklist", _checklist(checks)),
            ("Decision", decision),
            ("Training profile", _profile(metrics)),
            ("Checkpoints", _checkpoints(checkpoint_sizes)),
            ("Events", _events(metrics["events"])),
            ("Notices", markdown.bullet_list(list(notices), empty="None.")),
            ("Environment and seeds", _environment(metrics, environment)),
            ("Configuration", markdown.code_block(config_text, "yaml")),
        ],
    )


def run_checks(
    metrics: Mapping, *, unsound_checkpoints: Sequence[str], num_checkpoints: int, log_lines: int
) -> list[Check]:
    """What every good run must show, each with its evidence."""
    epochs = metrics["epochs"]
    losses = [epoch["train_loss"] for epoch in epochs]
    missing = [epoch["num"] for epoch in epochs if epoch["train_loss"] is None]
    utilisation = _mean([epoch["gpu_util"] for epoch in epochs])
    fell, fall = None, "fewer than two epochs"
    if len(losses) > 1:
        fell = None not in (losses[0], losses[-1]) and losses[-1] < losses[0]
        fall = f"{_number(losses[0])} → {_number(losses[-1])}"
    return [
        Check("Training completed", metrics["run"]["status"] in ("completed", "early_stopped"),
              f"{metrics['run']['status']}, {len(epochs)} epochs"),
        Check("Training loss fell", fell, fall),
        Check("All losses finite", not missing, f"epochs with a non-finite loss: {missing}" if missing
              else f"{len(epochs)} of {len(epochs)} epochs"),
        Check(f"GPU utilisation above {GPU_UTILIZATION_GOAL_PCT:.0f}%",
              None if utilisation is None else utilisation > GPU_UTILIZATION_GOAL_PCT,
              "n/a (CPU run)" if utilisation is None else f"mean {utilisation:.0f}%"),
        Check("Checkpoints sound", num_checkpoints > 0 and not unsound_checkpoints,
              f"damaged: {', '.join(unsound_checkpoints)}" if unsound_checkpoints
              else f"{num_checkpoints} files, every byte checked, the best one loaded"),
        Check("Logs written", log_lines > 0, f"training.log has {log_lines} lines"),
    ]  # fmt: skip


def decide(metrics: Mapping, checks: Sequence[Check], *, target_val_acc: float | None, next_command: str) -> str:
    """What to do now, by written rules, and the command to type."""
    failed = [check.what.lower() for check in checks if check.passed is False]
    best = metrics.get("best")
    if failed or best is None:
        verdict = f"**Not good enough to build on**: {', '.join(failed) or 'no epoch was validated'}."
    elif target_val_acc is None:
        verdict = (
            f"Validation accuracy {best['val_acc']:.2f}% at epoch {best['epoch']}; no target was set (target.val_acc)."
        )
    elif best["val_acc"] >= target_val_acc:
        verdict = f"**Target met**: {best['val_acc']:.2f}% is at least {target_val_acc:.2f}%."
    else:
        verdict = f"**Target missed**: {best['val_acc']:.2f}% is below {target_val_acc:.2f}%."
    return f"{verdict}\n\nNext:\n\n{markdown.code_block(next_command, 'bash')}"


def _summary(metrics: Mapping) -> str:
    run, best = metrics["run"], metrics.get("best")
    data = run["dataset"]
    lines = [
        f"**Date:** {run['started_at']}",
        f"**Duration:** {format_duration(run['duration_s'])}",
        f"**Status:** {run['status']} after {len(metrics['epochs'])} epochs",
        f"**Data:** {data['name']}, {data['num_train']} train / {data['num_val']} validation / {data['num_test']} test "
        f"samples, {len(data['class_names'])} classes",
        f"**Model:** {run['num_parameters']:,} parameters on {run['device']}",
    ]
    if best:
        lines.append(
            f"**Best epoch:** {best['epoch']} by {best['metric']}: "
            f"validation accuracy {best['val_acc']:.2f}%, loss {best['val_loss']:.4f}"
        )
    return "  \n".join(lines)


def _metrics_table(metrics: Mapping) -> str:
    last = metrics["epochs"][-1] if metrics["epochs"] else {}
    best = metrics.get("best") or {}
    rows = [
        (title, _formatted(last.get(key), shape), _formatted(best.get(key), shape)) for key, title, shape in _METRICS
    ]
    return markdown.table(["Metric", "Final epoch", f"Best epoch ({best.get('epoch', '-')})"], rows)


def _test_section(test: Mapping) -> str:
    return (
        f"Accuracy {test['test_acc']:.2f}%, loss {test['test_loss']:.4f}, macro F1 {test['test_f1']:.4f} "
        "with the best checkpoint. Per class: [test_results.md](test_results.md)."
    )


def _checklist(checks: Sequence[Check]) -> str:
    signs = {True: "✓", False: "✗", None: "-"}
    return markdown.table(["", "Check", "Evidence"], [(signs[c.passed], c.what, c.evidence) for c in checks])


def _profile(metrics: Mapping) -> str:
    epochs = metrics["epochs"]
    if not epochs:
        return "No epoch was completed."
    times = [epoch["time_s"] for epoch in epochs]
    waiting = sum(epoch["data_time_s"] for epoch in epochs) / max(sum(times), 1e-9)
    gpu, memory = _mean([epoch["gpu_util"] for epoch in epochs]), _mean([epoch["gpu_mem_gb"] for epoch in epochs])
    cpu = _mean([epoch["cpu_util"] for epoch in epochs])
    rows = [
        (
            "Time per epoch",
            f"mean {_seconds(sum(times) / len(times))}, {_seconds(min(times))} to {_seconds(max(times))}",
        ),
        ("Throughput", f"{_mean([epoch['samples_per_s'] for epoch in epochs]):,.0f} training samples per second"),
        ("Waiting for data", f"{100 * waiting:.1f}% of the time"),
        ("GPU utilisation", "n/a (CPU run)" if gpu is None else f"mean {gpu:.0f}%"),
        ("GPU memory", "n/a (CPU run)" if memory is None else f"mean {memory:.1f} GB"),
        ("CPU utilisation", "n/a" if cpu is None else f"mean {cpu:.0f}% of all cores"),
    ]
    return markdown.table(["What", "Measured"], rows)


def _checkpoints(sizes: Mapping[str, int]) -> str:
    rows = [(f"checkpoints/{name}", format_bytes(size)) for name, size in sizes.items()]
    return markdown.table(["File", "Size"], rows) if rows else "None."


def _events(events: Sequence[Mapping]) -> str:
    lines = [f"Epoch {event['epoch']}, step {event['step']}: {event['kind']}: {event['outcome']}" for event in events]
    return markdown.bullet_list(lines, empty="None: nothing had to be repaired.")


def _environment(metrics: Mapping, environment: Mapping) -> str:
    run = metrics["run"]
    versions = environment.get("packages", {})
    rows = [
        ("Seed", run["seed"]),
        ("Configuration", f"sha256 {run['config_sha256'][:16]}…"),
        ("Data fingerprint", f"sha256 {run['dataset']['fingerprint'][:16]}…"),
        ("Python", (environment.get("python") or {}).get("version", "?")),
        *((name, versions[name]) for name in ("torch", "numpy") if name in versions),
        ("Everything else", "environment.json"),
    ]
    return markdown.table(["What", "Value"], rows)


def _formatted(value: float | None, shape: str) -> str:
    return "n/a" if value is None else shape.format(value)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 60 else format_duration(value)


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
