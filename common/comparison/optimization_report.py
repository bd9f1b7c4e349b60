"""The sections of optimization_results.md that a plain comparison lacks."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from common import markdown
from common.comparison.changes import FieldChange, shown_value
from common.comparison.decision import RULES, Decision
from common.comparison.evidence import Comparison, mean
from common.comparison.measures import BY_KEY
from common.comparison.report import machine_differences, spread_text
from common.comparison.runs import Run, Side, mapping
from common.comparison.training_command import TRAIN
from common.console import format_bytes, format_count, format_duration
from common.exits import ToolError
from common.manifest import checkpoint_files, damaged_checkpoints, read_manifest

MAX_EVENTS = 10
Measured = Callable[[Run], float | None]


def changes_section(comparison: Comparison, changes: Sequence[FieldChange] | None) -> str:
    """Every differing field, old and new, and the recommendation it came from."""
    if changes is None:
        sides = (comparison.baseline, comparison.optimized)
        reasons = [side.first.config_problem for side in sides if side.first.config is None]
        return f"Unknown: {'; '.join(str(reason) for reason in reasons)}."
    if not changes:
        return "None: both runs have the same configuration."
    rows = [
        (change.key, shown_value(change.old), shown_value(change.new), "; ".join(change.sources) or "not stated",
         "yes" if change.influences_training else "no")
        for change in changes
    ]  # fmt: skip
    table = markdown.table(["Field", "Old", "New", "Recommendation", "Influences training"], rows)
    return (
        f"{table}\n\nA recommendation is stated by a comment in the config (`# was OLD: why`), its notes, or the "
        "diagnostic report; *as in* and *like* name guides in diagnostics/ that would change the field to the same "
        "value, or in the same direction."
    )


def profile_section(comparison: Comparison) -> str:
    """Convergence, time, utilisation, memory: means over the runs of a side; and what happened on the way."""
    rows: list[tuple[str, Measured, Callable[[float], str]]] = [
        ("Epochs trained", lambda run: float(len(run.epochs)), _number),
        ("Epochs configured", lambda run: run.config and float(run.config.training.epochs), _number),
        ("Best epoch", lambda run: run.best_epoch, _number),
        ("Time to the best epoch", Run.time_to_best_s, format_duration),
        ("Time in all", Run.duration_s, format_duration),
        ("Time per epoch", lambda run: run.mean("time_s"), format_duration),
        ("Training samples per second", lambda run: run.mean("samples_per_s"), lambda value: f"{value:,.0f}"),
        ("Waiting for data", _waiting_pct, lambda value: f"{value:.1f}%"),
        ("GPU utilisation", lambda run: run.mean("gpu_util"), lambda value: f"{value:.0f}%"),
        ("GPU memory, highest", lambda run: run.largest("gpu_mem_gb"), lambda value: f"{value:.1f} GB"),
        ("GPU energy", Run.energy_j, lambda value: f"{value:.0f} J"),
        ("CPU utilisation", lambda run: run.mean("cpu_util"), lambda value: f"{value:.0f}%"),
        ("Parameters", Run.num_parameters, lambda value: format_count(round(value))),
    ]
    status = ("Ended", *(_statuses(runs) for runs in comparison.compared))
    table = markdown.table(
        ["What", "Baseline", "Optimized"],
        [status, *((title, *_measured(comparison, title, *how)) for title, *how in rows)],
    )
    lines = [line for side in (comparison.baseline, comparison.optimized) for line in _events(side)]
    return f"{table}\n\nEvents:\n\n{markdown.bullet_list(lines, empty='None: nothing had to be repaired.')}"


def reproducibility_section(comparison: Comparison) -> str:
    """Seeds, determinism, fingerprints, exactness, the seeds' spread, and how to repeat a run."""
    sides = (comparison.baseline, comparison.optimized)
    rows = [
        ("Seeds", *(", ".join("?" if seed is None else str(seed) for seed in side.seeds) for side in sides)),
        ("Deterministic operations", *(_deterministic(side.first) for side in sides)),
        ("Data fingerprint", *(_short(side.first.dataset.get("fingerprint")) for side in sides)),
        ("Config hash", *(_short(side.first.facts.get("config_sha256")) for side in sides)),
        ("Code", *(_code(side.first) for side in sides)),
        ("torch", *(str(mapping(side.first.environment.get("versions")).get("torch", "unknown")) for side in sides)),
        ("Device", *(str(side.first.facts.get("device", "unknown")) for side in sides)),
        ("Spread over the seeds (validation accuracy)", *(_seed_spread(side) for side in sides)),
    ]
    repeat = [shlex.join(["python", TRAIN, "--reproduce", str(side.first.shown_folder)]) for side in sides]
    return "\n\n".join(
        [
            markdown.table(["What", "Baseline", "Optimized"], rows),
            _exactness(comparison),
            "To repeat a run and compare it bit by bit:",
            markdown.code_block("\n".join(repeat), "bash"),
        ]
    )


def checkpoints_section(comparison: Comparison) -> str:
    """The checkpoints of both sides, and whether every byte is as written; of several seeds the best one each."""
    rows = [row for side in (comparison.baseline, comparison.optimized) for run in side.runs
            for row in _checkpoint_rows(side, run)]  # fmt: skip
    return markdown.table(["Side", "File", "Epoch", "Size", "Sound"], rows) if rows else "None were found."


def decision_section(comparison: Comparison, decision: Decision, target_val_acc: float | None) -> str:
    """Target, significance, what follows, and by which rule."""
    value = comparison.means(BY_KEY["val_acc"])[1]
    if target_val_acc is None:
        target = "no target was set (target.val_acc)"
    elif value is None:
        target = f"{target_val_acc:.2f}%: unknown, there is no validation accuracy"
    else:
        target = f"{target_val_acc:.2f}%: {'met' if value >= target_val_acc else 'missed'} with {value:.2f}%"
    rules = [
        ("→" if number == decision.rule else "", str(number + 1), rule.when, rule.action)
        for number, rule in enumerate(RULES)
    ]
    return "\n\n".join(
        [
            f"**{decision.action}.**",
            markdown.bullet_list([f"Target: {target}", f"Verdict: {comparison.verdict}"], empty=""),
            "Next:",
            markdown.code_block(decision.commands, "bash"),
            "The first rule that applies decides:",
            markdown.table(["", "Rule", "If", "Then"], rules),
        ]
    )


def _measured(comparison: Comparison, title: str, measured: Measured, show: Callable[[float], str]) -> list[str]:
    shown = []
    for runs in comparison.compared:
        value = mean([measured(run) for run in runs])
        on_cpu = title.startswith("GPU") and all(str(run.facts.get("device")).startswith("cpu") for run in runs)
        shown.append(("n/a (CPU run)" if on_cpu else "n/a") if value is None else show(value))
    return shown


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _waiting_pct(run: Run) -> float | None:
    waiting, time = run.mean("data_time_s"), run.mean("time_s")
    return 100.0 * waiting / time if waiting is not None and time else None


def _statuses(runs: Sequence[Run]) -> str:
    words = [run.status.replace("_", " ") for run in runs]
    if len(words) == 1:
        return words[0]
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))


def _events(side: Side) -> list[str]:
    lines = [
        f"{side.name}{'' if len(side.runs) == 1 else f', seed {run.seed}'}, epoch {event.get('epoch', '?')}: "
        f"{event.get('kind', '?')}: {event.get('outcome', '?')}"
        for run in side.runs
        for event in run.events
    ]
    more = [f"{side.name}: {len(lines) - MAX_EVENTS} more, see metrics.json"] if len(lines) > MAX_EVENTS else []
    return [*lines[:MAX_EVENTS], *more]


def _deterministic(run: Run) -> str:
    recorded = mapping(run.environment.get("run")).get("deterministic")
    if recorded is None and run.config is not None:
        recorded = run.config.reproducibility.deterministic
    return "yes" if recorded is True else "no" if recorded is False else "unknown"


def _short(value: object) -> str:
    return value[:16] if isinstance(value, str) else "unknown"


def _code(run: Run) -> str:
    git = mapping(run.environment.get("git"))
    commit = _short(git.get("commit"))
    return f"{commit}, with changes" if git.get("dirty") else commit


def _seed_spread(side: Side) -> str:
    values = side.values(BY_KEY["val_acc"])
    if len(values) < 2:
        return "unknown: one seed"
    return f"{spread_text(values, BY_KEY['val_acc'])}, {min(values):.2f} to {max(values):.2f}"


def _exactness(comparison: Comparison) -> str:
    environments = [side.first.environment for side in (comparison.baseline, comparison.optimized)]
    if not all(environments):
        return "Exactness: unknown, since an environment.json is missing or unreadable."
    differences = machine_differences(comparison)
    if not differences:
        return (
            "Exactness: both sides ran under the same conditions, so nothing but the configuration and seeds differs."
        )
    listed = markdown.bullet_list(differences, empty="")
    return f"Not exact: bits may differ for other reasons than the configuration:\n\n{listed}"


def _checkpoint_rows(side: Side, run: Run) -> list[tuple[str, ...]]:
    folder = run.folder.checkpoints
    try:
        files = checkpoint_files(folder)
        damaged = {path.name for path, _ in damaged_checkpoints(folder)}
    except (OSError, ToolError):
        return []
    entries = read_manifest(folder)
    if len(side.runs) > 1:
        files = [path for path in files if "best" in path.name]
    return [
        (side.name, str(run.shown_folder / "checkpoints" / path.name),
         str(entries[path.name].epoch) if path.name in entries else "?", format_bytes(path.stat().st_size),
         "✗ damaged" if path.name in damaged else "✓")
        for path in files
    ]  # fmt: skip
