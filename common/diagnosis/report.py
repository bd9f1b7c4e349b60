"""diagnostic_report.md: the verdict, what it rests on, and what to do, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common import markdown
from common.diagnosis.diagnosing import Diagnosis
from common.diagnosis.documented import documented_thresholds
from common.diagnosis.evidence import RunEvidence
from common.diagnosis.findings import Diagnosed
from common.diagnosis.next_config import NextConfig, merged_changes, misses_target, recommendations_of
from common.guides import Guide, Recommendation, rank

MOST_SUSPECTS = 20


@dataclass(frozen=True)
class SuspectRow:
    """A doubtful sample for the report: what it is called, why it is doubtful."""

    name: str
    split: str
    label: str
    why: str


@dataclass(frozen=True)
class ReportParts:
    """What goes into the report beside the diagnosis; pictures are named relative to it, None where there is none."""

    planned: NextConfig | None
    curves: str | None = None
    sheet: str | None = None
    suspects: Sequence[SuspectRow] = field(default_factory=tuple)
    duplicates: Sequence[SuspectRow] = field(default_factory=tuple)
    written_config: Path | None = None
    notices: Sequence[str] = field(default_factory=tuple)


def report_text(run: RunEvidence, diagnosis: Diagnosis, guides: Mapping[str, Guide], parts: ReportParts) -> str:
    """The whole report. Its first line is the verdict."""
    primary = diagnosis.primary
    body = markdown.document(
        f"Diagnosis: {run.run.dataset.get('name', 'unknown data')}",
        [
            ("", _summary(run)),
            ("Verdict", verdict(run, diagnosis)),
            ("Evidence", _evidence(primary) if primary else _healthy_evidence(run)),
            ("Learning curves", _picture(parts.curves, "Loss and accuracy by epoch, with the evidence marked")),
            ("Root causes", _root_causes(diagnosis)),
            *([("Recommendations", _recommendations(run, primary, guides))] if primary else []),
            *([("Configuration preview", _preview(parts))] if parts.planned else []),
            ("Suspicious samples", _suspects(parts)),
            ("Documented thresholds", _thresholds(run)),
            *([("Notices", markdown.bullet_list(parts.notices, empty=""))] if parts.notices else []),
            ("Next", next_step(run, diagnosis, parts.written_config)),
        ],
    )
    return f"{diagnosis.headline()}\n\n{body}"


def verdict(run: RunEvidence, diagnosis: Diagnosis) -> str:
    """What is wrong in a few sentences, or that nothing is."""
    if diagnosis.primary is None:
        return _healthy_verdict(run)
    cause = diagnosis.primary.cause
    lines = [f"**{_capital(cause.title)}** (`{cause.id}`). {cause.why}"]
    if cause.by_hand:
        lines.append(f"By hand: {cause.by_hand.text}")
    lines.append(f"Guide: [{cause.guide}](diagnostics/{cause.guide}.md)")
    return "\n\n".join(lines)


def next_step(run: RunEvidence, diagnosis: Diagnosis, written_config: Path | None) -> str:
    """The phase to go on with, and the command to type."""
    primary = diagnosis.primary
    if primary is None and not misses_target(run):
        return "Phase 5, finalization: nothing is wrong, and no target is missed.\n\n" + markdown.code_block(
            "python training_orchestrator.py --config configs/final_config.yaml --mode production \\\n"
            "  --output-dir results/production/", "bash",
        )  # fmt: skip
    if primary is not None and primary.cause.phase == 2:
        return ("Back to phase 2, baseline: data or code change, and with them what every number means. Then train "
                "and diagnose again.")  # fmt: skip
    config = written_config or Path("configs/optimization_config.yaml")
    first = (
        "" if written_config else f"python diagnostic_tool.py --run {run.run.shown_folder} --write-config {config}\n"
    )
    reason = "settings can mend this" if primary else "nothing is wrong, and the target is missed"
    return f"Phase 4, optimization: {reason}.\n\n" + markdown.code_block(
        f"{first}python config_validator.py --config {config} --mode optimization\n"
        f"python training_orchestrator.py --config {config} --mode optimization --output-dir results/optimization/",
        "bash",
    )


def expected_improvement(run: RunEvidence) -> str | None:
    """What this very data says about how much is to be gained, with where the number comes from."""
    if run.falls_short_pct > 0 and run.yardstick_acc_pct is not None:
        return (
            f"At least {run.falls_short_pct:.1f} points of validation accuracy: a linear classifier or the nearest "
            f"neighbour reaches {run.yardstick_acc_pct:.1f}% on this data (measured before the training)."
        )
    return None


def _summary(run: RunEvidence) -> str:
    facts = run.run.facts
    best = "none" if run.run.best_epoch is None else str(run.run.best_epoch)
    accuracy = "n/a" if run.best_val_acc is None else f"{run.best_val_acc:.2f}%"
    return "  \n".join([
        f"**Run:** {facts.get('id', 'unknown')}, seed {facts.get('seed', 'unknown')}, {run.run.status} after "
        f"{len(run.epochs)} epochs",
        f"**Data:** {run.num_train} training and {run.num_val} validation samples, {run.num_classes} classes",
        f"**Best epoch:** {best}; best validation accuracy {accuracy}",
    ])  # fmt: skip


def _healthy_verdict(run: RunEvidence) -> str:
    text = "**Nothing is wrong.** No sign of any known fault is beyond what sound trainings show."
    if misses_target(run) and run.config is not None:
        return f"{text} The target of {run.config.target.val_acc:g}% validation accuracy is missed all the same."
    return text


def _evidence(found: Diagnosed) -> str:
    rows = [(fact.what, fact.value, fact.healthy) for fact in found.finding.facts]
    return markdown.table(["Measured", "Value", "Healthy"], rows)


def _healthy_evidence(run: RunEvidence) -> str:
    gap = "n/a" if run.best_gap_pct is None else f"{run.best_gap_pct:.1f} points"
    noise = "n/a" if run.best_val_acc is None else f"{run.standard_error_pct(run.best_val_acc):.1f} points"
    rows = [
        ("Best validation accuracy", _percent(run.best_val_acc)),
        ("Standard error of that", noise),
        ("A linear classifier or the nearest neighbour on the same data", _percent(run.yardstick_acc_pct)),
        ("Training minus validation accuracy, best epoch", gap),
    ]
    return markdown.table(["Measured", "Value"], rows)


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f}%"


def _root_causes(diagnosis: Diagnosis) -> str:
    rows = [_cause_row(number, found) for number, found in enumerate(diagnosis.findings, 1)]
    rows += [_cause_row("-", found) for found in diagnosis.suspicions]
    if not rows:
        return "None, and no suspicion."
    table = markdown.table(["Rank", "Cause", "Guide", "Confidence", "First evidence"], rows)
    return f"{table}\n\nRanked by what explains what, the deepest first. Unranked: suspicions that do not count."


def _cause_row(rank_shown: object, found: Diagnosed) -> tuple[object, ...]:
    fact = found.finding.facts[0]
    return (rank_shown, found.cause.title, found.cause.guide, f"{100 * found.confidence:.0f}%",
            f"{fact.what}: {fact.value}")  # fmt: skip


def _recommendations(run: RunEvidence, primary: Diagnosed, guides: Mapping[str, Guide]) -> str:
    ranked = rank(recommendations_of(primary.cause, guides))
    parts = []
    improvement = expected_improvement(run)
    if improvement:
        parts.append(f"To be gained: {improvement}")
    if primary.cause.by_hand:
        parts.append(f"First, by hand: {primary.cause.by_hand.text}")
    if ranked:
        rows = [_recommendation_row(number, item) for number, item in enumerate(ranked, 1)]
        parts.append(markdown.table(
            ["", "What", "Why", "Impact", "Effort", "Risk", "Expected improvement and its source"], rows))  # fmt: skip
    return "\n\n".join(parts) or "See the guide."


def _recommendation_row(number: int, item: Recommendation) -> tuple[object, ...]:
    return (number, item.title, item.why, item.impact, item.effort, item.risk, item.expected_gain)


def _preview(parts: ReportParts) -> str:
    assert parts.planned is not None
    changes = merged_changes(parts.planned.changes)
    rows = [(key, json.dumps(old), json.dumps(new)) for key, old, new in changes]
    if not rows:
        return "No setting is to be changed."
    table = markdown.table(["Field", "Baseline", "Next"], rows)
    return table if parts.written_config is None else f"{table}\n\nWritten to `{parts.written_config}`."


def _suspects(parts: ReportParts) -> str:
    rows = [(row.name, row.split, row.label, row.why) for row in (*parts.suspects, *parts.duplicates)]
    if not rows:
        return "None."
    table = markdown.table(["Sample", "Split", "Label", "Why"], rows)
    return table if parts.sheet is None else f"{_picture(parts.sheet, 'The suspicious samples')}\n\n{table}"


def _thresholds(run: RunEvidence) -> str:
    rows = [(threshold.guide, threshold.what, threshold.value, threshold.limit, "yes" if threshold.is_crossed else "no")
            for threshold in documented_thresholds(run)]  # fmt: skip
    table = markdown.table(["Issue", "Measured", "Value", "Limit", "Crossed"], rows)
    return f"{table}\n\nBy the letter; the verdict above also asks for noise, trends and deeper causes."


def _picture(name: str | None, what: str) -> str:
    return "No epoch to draw." if name is None else f"![{what}]({name.replace(' ', '%20')})"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
