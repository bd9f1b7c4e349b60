#!/usr/bin/env python3
"""Say what is wrong with a training run, how sure that is, and what to do: a report, and the next config."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import command
from common.exits import EnvironmentLackError, Exit, ToolError, UsageError
from common.loading import loading

if TYPE_CHECKING:
    from common.console import Console
    from common.data import Dataset
    from common.diagnosis.diagnosing import Diagnosis
    from common.diagnosis.evidence import RunEvidence
    from common.diagnosis.next_config import NextConfig
    from common.diagnosis.report import ReportParts
    from common.diagnosis.suspects import Suspect

EXAMPLES = """\
  python diagnostic_tool.py --baseline baseline_results.md --metrics logs/metrics.json --output diagnostic_report.md
  python diagnostic_tool.py --run results/baseline/
  python diagnostic_tool.py --run results/baseline/ --write-config configs/optimization_config.yaml
  python diagnostic_tool.py --run results/baseline/ --json --quiet

Pictures are written beside the report: diagnostic_report.png, and diagnostic_report_samples.png where samples are
suspicious and their images can be read.
exit codes: 0 done, whatever the verdict; 2 wrong usage, 3 unreadable input or two files of different runs"""

DEFAULT_METRICS, DEFAULT_BASELINE = Path("logs/metrics.json"), Path("baseline_results.md")


def make_parser() -> argparse.ArgumentParser:
    parser = command.new_parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="FILE",
        help=f"results report of the run (default: {DEFAULT_BASELINE}, where no flag names a run)",
    )
    parser.add_argument(
        "--metrics",
        type=Path,
        metavar="FILE",
        help=f"metrics.json of the run (default: {DEFAULT_METRICS}, where no flag names a run)",
    )
    parser.add_argument("--run", type=Path, metavar="DIR", help="the run's folder, instead of the two")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("diagnostic_report.md"),
        metavar="FILE",
        help="the report (default: %(default)s)",
    )
    parser.add_argument(
        "--write-config",
        type=Path,
        metavar="FILE",
        help="write the run's config with the recommended changes, each with its reason",
    )
    parser.add_argument("--force", action="store_true", help="let --write-config replace a file that exists")
    parser.add_argument(
        "--no-samples",
        action="store_true",
        help="do not load the data: suspicious samples are numbered instead of named and shown",
    )
    return parser  # fmt: skip


def program(args: argparse.Namespace) -> Exit:
    check_flags(args)
    from common.console import Console
    from common.diagnosis.diagnosing import diagnose
    from common.diagnosis.inputs import read_evidence
    from common.diagnosis.report import report_text
    from common.guides import load_all_guides

    console = Console(quiet=args.quiet, as_json=args.json)
    run = read_evidence(*files_of_run(args))
    diagnosis, guides = diagnose(run), load_all_guides()
    planned = plan(run, diagnosis, guides, wanted=args.write_config is not None)
    parts = gather(args, console, run, diagnosis, planned)
    if args.write_config is not None and planned is not None:
        write_config(args, diagnosis, planned)
    write_text(args.output, report_text(run, diagnosis, guides, parts), "--output")
    tell(console, args, run, diagnosis, parts)
    if args.json:
        command.print_json(as_json(run, diagnosis, planned, parts, args))
    return Exit.DONE


def check_flags(args: argparse.Namespace) -> None:
    """Raises UsageError for flags that do not go together, before anything is read."""
    if args.run is not None and (args.metrics is not None or args.baseline is not None):
        raise UsageError("names the run already", field="--run", hint="leave out --metrics and --baseline")
    if args.force and args.write_config is None:
        raise UsageError("goes with --write-config only", field="--force")
    if args.write_config is not None and args.write_config.exists() and not args.force:
        raise UsageError("exists already", path=args.write_config, field="--write-config",
                         hint="choose another name, or replace it with --force")  # fmt: skip


def files_of_run(args: argparse.Namespace) -> tuple[Path, Path | None]:
    """The metrics to read, and the results report that must be of the same run, if any."""
    if args.run is not None:
        if not args.run.is_dir():
            raise UsageError("is not a folder", path=args.run, field="--run", hint="give a training's --output-dir")
        return args.run, None
    if args.metrics is None and args.baseline is None:
        return DEFAULT_METRICS, DEFAULT_BASELINE
    if args.metrics is None:  # the report lies in its run's folder, or is a link to there
        return args.baseline.resolve().parent / "metrics.json", args.baseline
    return args.metrics, args.baseline


def plan(run: RunEvidence, diagnosis: Diagnosis, guides: dict, *, wanted: bool) -> NextConfig | None:
    """The next config; None where the run's own config is not known."""
    from common.diagnosis.next_config import next_config

    if run.config is not None:
        return next_config(run, run.config, diagnosis, guides)
    if wanted:
        raise UsageError("the run's config is not known, so there is nothing to change", field="--write-config",
                         hint=run.run.config_problem or "give the run's folder with --run")  # fmt: skip
    return None


def gather(
    args: argparse.Namespace, console: Console, run: RunEvidence, diagnosis: Diagnosis, planned: NextConfig | None
) -> ReportParts:
    """Everything the report shows beside the diagnosis, pictures included."""
    from common.diagnosis.pictures import draw_evidence
    from common.diagnosis.report import MOST_SUSPECTS, ReportParts
    from common.diagnosis.samples import draw_sheet, duplicate_rows, suspect_rows
    from common.diagnosis.suspects import suspects

    notices = list(run_notices(run))
    doubtful = suspects(run, MOST_SUSPECTS)
    dataset = None if args.no_samples or not worth_loading(diagnosis, doubtful) else load_data(run, notices)
    with disk_errors(args.output):
        curves = args.output.with_suffix(".png") if run.epochs else None
        if curves is not None:
            draw_evidence(run, diagnosis, curves)
        sheet: Path | None = args.output.with_name(f"{args.output.stem}_samples.png")
        if not draw_sheet(sheet, doubtful, dataset):
            sheet = None
    for notice in notices:
        console.info(notice)
    return ReportParts(
        planned=planned,
        curves=curves and curves.name,
        sheet=sheet and sheet.name,
        suspects=suspect_rows(doubtful, dataset),
        duplicates=duplicate_rows(dataset, MOST_SUSPECTS) if dataset is not None else (),
        written_config=args.write_config,
        notices=notices,
    )


def run_notices(run: RunEvidence) -> Sequence[str]:
    notices = []
    if not run.has_signals:
        notices.append("The run recorded no signals of health, so most root causes cannot be told; train it again.")
    if run.config is None:
        notices.append(f"The run's config is not known: {run.run.config_problem}.")
    return notices


def worth_loading(diagnosis: Diagnosis, doubtful: Sequence[Suspect]) -> bool:
    """Whether the data has something to show: loading it takes seconds."""
    about_samples = {"label_errors", "leakage", "shuffled_labels"}
    return bool(doubtful) or any(found.cause.id in about_samples for found in diagnosis.findings)


def load_data(run: RunEvidence, notices: list[str]) -> Dataset | None:
    """The run's data, where it is still there and the same; a notice where it is not."""
    if run.config is None:
        return None
    with loading():
        from common.engine.assembly import load_data as load

    try:
        dataset = load(run.config, write_files=False)
    except ToolError as error:
        notices.append(f"The data could not be loaded, so samples are numbered: {error}")
        return None
    if dataset.fingerprint != run.run.dataset.get("fingerprint"):
        notices.append("The data is no longer what the run was trained on, so samples are numbered.")
        return None
    return dataset


def write_config(args: argparse.Namespace, diagnosis: Diagnosis, planned: NextConfig) -> None:
    """Write the next config; what is written is read back, and must be the same."""
    from common.diagnosis.next_config import next_config_text

    header = [diagnosis.headline(), "The run's config, with what mends the primary issue; every field is written out."]
    if not planned.changes:
        header.append("No setting is to be changed.")
    args.write_config.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.write_config, next_config_text(planned, header), "--write-config")


def write_text(path: Path, text: str, flag: str) -> None:
    from common import atomic

    with disk_errors(path, flag):
        atomic.write_text(path, text)


@contextlib.contextmanager
def disk_errors(path: Path, flag: str = "--output") -> Iterator[None]:
    """Turn an OSError of the block into an error for the user."""
    try:
        yield
    except OSError as error:
        raise EnvironmentLackError(
            f"cannot be written ({error.strerror or error})",
            path=path,
            field=flag,
            hint="choose another folder, or make room",
        ) from error


def tell(
    console: Console, args: argparse.Namespace, run: RunEvidence, diagnosis: Diagnosis, parts: ReportParts
) -> None:
    """The verdict, its evidence in a few lines, and where everything was written."""
    from common.diagnosis.report import verdict

    console.result(diagnosis.headline())
    if diagnosis.primary is not None:
        for fact in diagnosis.primary.finding.facts:
            console.info(f"  {fact.what}: {fact.value} (healthy: {fact.healthy})")
    console.info(verdict(run, diagnosis))
    for found in diagnosis.findings[1:]:
        console.info(f"Also: {found.cause.title} ({found.cause.guide}, confidence {100 * found.confidence:.0f}%)")
    console.info(f"Report: {args.output}")
    if parts.written_config is not None:
        console.info(f"Next config: {parts.written_config}")


def as_json(run: RunEvidence, diagnosis: Diagnosis, planned: NextConfig | None, parts: ReportParts,
            args: argparse.Namespace) -> dict[str, Any]:  # fmt: skip
    """The diagnosis for programs."""
    from common.diagnosis.next_config import merged_changes

    return {
        "issue": diagnosis.issue,
        "cause": diagnosis.primary.cause.id if diagnosis.primary else None,
        "confidence": diagnosis.confidence,
        "findings": [found_as_json(found) for found in diagnosis.findings],
        "suspicions": [found_as_json(found) for found in diagnosis.suspicions],
        "changes": [] if planned is None else [
            {"field": key, "old": old, "new": new} for key, old, new in merged_changes(planned.changes)],
        "suspicious_samples": [vars(row) for row in (*parts.suspects, *parts.duplicates)],
        "notices": list(parts.notices),
        "report": str(args.output),
        "config": None if args.write_config is None else str(args.write_config),
    }  # fmt: skip


def found_as_json(found: Any) -> dict[str, Any]:
    return {
        "cause": found.cause.id,
        "guide": found.cause.guide,
        "title": found.cause.title,
        "confidence": found.confidence,
        "evidence": [vars(fact) for fact in found.finding.facts],
        "by_hand": found.cause.by_hand.text if found.cause.by_hand else None,
        "next_phase": found.cause.phase,
    }


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(program, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
