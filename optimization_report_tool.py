#!/usr/bin/env python3
"""Write optimization_results.md: what was changed, what it did, what it cost, and what to do next."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common import command
from common.comparison.measures import PRIMARY_KEYS
from common.comparison.options import margin, picture_path
from common.exits import EnvironmentLackError, Exit

if TYPE_CHECKING:
    from common.comparison.changes import FieldChange
    from common.comparison.decision import Decision
    from common.comparison.evidence import Comparison

EXAMPLES = """\
  python optimization_report_tool.py --baseline results/baseline/ --optimized results/optimization/ \\
    --output optimization_results.md
  python optimization_report_tool.py --baseline results/baseline_seeds/ --optimized results/optimization_seeds/
  python optimization_report_tool.py --baseline old_runs/baseline/ --optimized old_runs/optimization/ --json

Each folder is a run's (a training's --output-dir), or holds seed_* runs. Folders may have been moved; of a run that was
stopped or failed, what there is is shown.
exit codes: 0 written, 2 wrong usage, 3 not a run folder or unreadable, 4 the report cannot be written"""


def make_parser() -> argparse.ArgumentParser:
    parser = command.new_parser(__doc__, EXAMPLES)
    parser.add_argument("--baseline", required=True, metavar="DIR", help="the baseline's run folder")
    parser.add_argument("--optimized", required=True, metavar="DIR", help="the optimized run's folder")
    parser.add_argument("--output", type=Path, default=Path("optimization_results.md"), metavar="FILE.md",
                        help="the report; its picture becomes FILE.png beside it (default: %(default)s)")  # fmt: skip
    parser.add_argument("--diagnosis", type=Path, default=Path("diagnostic_report.md"), metavar="FILE",
                        help="report that the changes come from, if there is one (default: %(default)s)")  # fmt: skip
    parser.add_argument("--metric", choices=PRIMARY_KEYS, default="val_acc",
                        help="what the verdict is about, at each run's best epoch (default: %(default)s)")  # fmt: skip
    parser.add_argument("--margin", type=margin, metavar="SIZE",
                        help="smallest difference that matters, in the metric's own unit (default: 0.5 points of "
                             "accuracy, 0.005 of F1, precision and recall, 0.01 of loss)")  # fmt: skip
    return parser


def program(args: argparse.Namespace) -> Exit:
    """Read both sides, compare and decide, write the report and its picture, say the decision."""
    picture = picture_path(args.output)
    # Imported here, so that --help and a wrong flag answer at once.
    from common.comparison.changes import config_changes
    from common.comparison.decision import decide, target_of
    from common.comparison.evidence import compare
    from common.comparison.runs import load_side
    from common.comparison.wording import headline
    from common.console import Console

    console = Console(quiet=args.quiet, as_json=args.json)
    baseline, optimized = load_side("baseline", [args.baseline]), load_side("optimized", [args.optimized])
    comparison = compare(baseline, optimized, metric=args.metric, margin=args.margin)
    changes = config_changes(baseline.first, optimized.first, args.diagnosis)
    decision = decide(comparison, target_of(comparison))
    write_report(comparison, changes, decision, args.output, picture)
    for finding in comparison.findings:
        console.result(f"{'Not comparable' if finding.blocking else 'Note'}: {finding.message}")
    console.result(headline(comparison).replace("**", ""))
    console.result(f"Decision: {decision.action}\nNext:\n{decision.commands}")
    console.info(f"Report: {args.output}")
    if args.json:
        command.print_json(result_document(comparison, changes, decision))
    return Exit.DONE


def write_report(
    comparison: Comparison, changes: Sequence[FieldChange] | None, decision: Decision, output: Path, picture: Path
) -> None:
    """Raises EnvironmentLackError where the files cannot be written."""
    from common import atomic
    from common.comparison.picture import draw

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        drawn = draw(comparison, picture)
        atomic.write_text(output, report_text(comparison, changes, decision, picture.name if drawn else None))
    except OSError as error:
        raise EnvironmentLackError(f"cannot be written ({error.strerror})", path=output, field="--output") from error


def report_text(
    comparison: Comparison, changes: Sequence[FieldChange] | None, decision: Decision, picture: str | None
) -> str:
    """The whole report as Markdown."""
    from common import markdown
    from common.comparison import optimization_report, report, significance
    from common.comparison.analysis import analysis
    from common.comparison.decision import target_of
    from common.comparison.picture import embedded

    performance = [(f"Performance Comparison: {heading.removeprefix('Metrics ')}", body)
                   for heading, body in report.metrics_sections(comparison)]  # fmt: skip
    return markdown.document(
        f"Optimization results: {comparison.baseline.first.dataset.get('name', 'unknown data')}",
        [
            ("", report.lead(comparison)),
            ("Configuration Changes", optimization_report.changes_section(comparison, changes)),
            *performance,
            ("Significance", significance.significance_section(comparison)),
            ("Training Profile", optimization_report.profile_section(comparison)),
            ("Learning Curves", embedded(picture)),
            ("Analysis", markdown.bullet_list(analysis(comparison, changes), empty="")),
            ("Reproducibility", optimization_report.reproducibility_section(comparison)),
            ("Checkpoints", optimization_report.checkpoints_section(comparison)),
            ("Decision", optimization_report.decision_section(comparison, decision, target_of(comparison))),
            ("Runs", report.runs_section(comparison)),
        ],
    )


def result_document(
    comparison: Comparison, changes: Sequence[FieldChange] | None, decision: Decision
) -> dict[str, object]:
    """The comparison, the changes and the decision, for programs."""
    from dataclasses import asdict

    from common.comparison.as_json import comparison_document

    return {
        **comparison_document(comparison),
        "changes": None if changes is None else [asdict(change) for change in changes],
        "decision": {
            "rule": decision.rule + 1,
            "action": decision.action,
            "commands": decision.commands.splitlines(),
        },
    }


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(program, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
