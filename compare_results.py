#!/usr/bin/env python3
"""Compare two trainings, or two configurations over several seeds, and say whether the difference is real."""

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
    from common.comparison.evidence import Comparison

EXAMPLES = """\
  python compare_results.py --baseline results/baseline/metrics.json \\
    --optimized results/optimization/metrics.json --output comparison.md
  python compare_results.py --baseline results/baseline_seeds/ --optimized results/optimization_seeds/
  python compare_results.py --baseline results/a/seed_42 results/a/seed_43 --optimized 'results/b/seed_*'
  python compare_results.py --baseline results/baseline/ --optimized results/optimization/ --metric val_f1 --json
  python compare_results.py --baseline main_seeds/ --optimized branch_seeds/ --fail-unless-better

A side is one run (its folder or metrics.json), several, a pattern, or a folder that holds seed_* runs; runs are matched
by their seeds. One run a side says nothing about a configuration; from three on there is a verdict.
exit codes: 0 compared, 1 not better (with --fail-unless-better), 2 wrong usage, 3 unreadable input,
  4 the report cannot be written"""


def make_parser() -> argparse.ArgumentParser:
    parser = command.new_parser(__doc__, EXAMPLES)
    for side in ("baseline", "optimized"):
        parser.add_argument(f"--{side}", nargs="+", action="extend", required=True, metavar="PATH",
                            help=f"the {side} side: metrics.json, run folder, folder of seeds, pattern")  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("comparison.md"), metavar="FILE.md",
                        help="the report; its picture becomes FILE.png beside it (default: %(default)s)")  # fmt: skip
    parser.add_argument("--metric", choices=PRIMARY_KEYS, default="val_acc",
                        help="what the verdict is about, at each run's best epoch (default: %(default)s)")  # fmt: skip
    parser.add_argument("--margin", type=margin, metavar="SIZE",
                        help="smallest difference that matters, in the metric's own unit (default: 0.5 points of "
                             "accuracy, 0.005 of F1, precision and recall, 0.01 of loss)")  # fmt: skip
    parser.add_argument("--fail-unless-better", action="store_true",
                        help="exit code 1 unless the verdict is 'better': for continuous integration")  # fmt: skip
    return parser


def program(args: argparse.Namespace) -> Exit:
    """Read both sides, compare, write the report and its picture, say the verdict."""
    picture = picture_path(args.output)
    # Imported here, so that --help and a wrong flag answer at once.
    from common.comparison.evidence import compare, require_scores
    from common.comparison.runs import load_side
    from common.console import Console

    console = Console(quiet=args.quiet, as_json=args.json)
    sides = [load_side("baseline", args.baseline), load_side("optimized", args.optimized)]
    comparison = compare(*sides, metric=args.metric, margin=args.margin)
    require_scores(comparison)
    write_report(comparison, args.output, picture)
    for line in summary_lines(comparison):
        console.result(line)
    console.info(f"Report: {args.output}, picture: {picture}")
    if args.json:
        from common.comparison.as_json import comparison_document

        command.print_json(comparison_document(comparison))
    return Exit.NO if args.fail_unless_better and comparison.verdict != "better" else Exit.DONE


def write_report(comparison: Comparison, output: Path, picture: Path) -> None:
    """Raises EnvironmentLackError where the files cannot be written."""
    from common import atomic
    from common.comparison.picture import draw

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        drawn = draw(comparison, picture)
        atomic.write_text(output, report_text(comparison, picture.name if drawn else None))
    except OSError as error:
        raise EnvironmentLackError(f"cannot be written ({error.strerror})", path=output, field="--output") from error


def report_text(comparison: Comparison, picture: str | None) -> str:
    """The whole comparison as Markdown."""
    from common import markdown
    from common.comparison import report, significance
    from common.comparison.picture import embedded

    return markdown.document(
        f"Comparison: {comparison.baseline.first.dataset.get('name', 'unknown data')}",
        [
            ("", report.lead(comparison)),
            *report.metrics_sections(comparison),
            ("Learning curves", embedded(picture)),
            ("Significance", significance.significance_section(comparison)),
            ("Cost", report.cost_section(comparison)),
            ("Runs", report.runs_section(comparison)),
        ],
    )


def summary_lines(comparison: Comparison) -> list[str]:
    """For the screen: what stands in the way, the verdict, absolute and relative improvement, the gap."""
    from common.comparison.report import gap_text, relative_text
    from common.comparison.wording import headline

    first, second = comparison.means(comparison.measure)
    assert first is not None and second is not None
    return [
        *(f"{'Not comparable' if finding.blocking else 'Note'}: {finding.message}" for finding in comparison.findings),
        headline(comparison).replace("**", ""),
        f"Absolute improvement: {comparison.measure.with_unit(second - first)}",
        f"Relative improvement: {relative_text(first, second - first)}",
        gap_text(comparison),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(program, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
