#!/usr/bin/env python3
"""Check configuration files: syntax, required sections and fields, types, ranges, fixed seed, contradictions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.command import new_parser, print_json, run
from common.exits import Exit, InputFileError, UsageError

if TYPE_CHECKING:
    from common.config.problems import Problem

EXAMPLES = """\
  python config_validator.py --config configs/training_config.yaml
  python config_validator.py --config configs/*.yaml --strict
  python config_validator.py --config configs/training_config.yaml --mode production
  python config_validator.py --config configs/search_space.yaml
  python config_validator.py --config configs/training_config.yaml --format github
  python config_validator.py --print-schema > configs/schema.json
"""

UNREADABLE = "unreadable"
GITHUB_LIMIT = 10  # annotations that GitHub shows of one step


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = new_parser(
        "Check training configs: syntax, required sections and fields, types, ranges, fixed seed; and search spaces. "
        "Exit code 0: valid; 1: not valid; 3: a file cannot be read.",
        EXAMPLES,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--config", nargs="+", action="extend", metavar="FILE", help="one config or several, checked one by one"
    )
    what.add_argument("--print-schema", action="store_true", help="print the JSON Schema of a config, for editors")
    what.add_argument("--print-reference", action="store_true", help="print every field in Markdown tables")
    parser.add_argument(
        "--mode",
        choices=["baseline", "optimization", "production"],
        help="check for this mode of training, and warn where the config departs from it",
    )
    parser.add_argument("--strict", action="store_true", help="warnings fail too")
    parser.add_argument(
        "--format",
        choices=["text", "json", "github"],
        default="text",
        help="how the findings are shown: for people, for programs (same as --json), as GitHub annotations",
    )
    return parser


def program(args: argparse.Namespace) -> Exit:
    """Check every file and say what was found; or print the schema or the reference."""
    if not args.config:
        _print_document(args)
        return Exit.DONE
    if any(not path for path in args.config):
        raise UsageError("an empty file name", field="--config")
    reports = [FileReport(path, _problems_of(path, args.mode), strict=args.strict) for path in args.config]
    if args.json or args.format == "json":
        print_json({"valid": all(report.valid for report in reports), "files": [r.as_json() for r in reports]})
    elif args.format == "github":
        _print_annotations(reports)
    else:
        _print_text(reports, quiet=args.quiet)
    if any(report.unreadable for report in reports):
        return Exit.BAD_INPUT
    return Exit.DONE if all(report.valid for report in reports) else Exit.NO


class FileReport:
    """What was found in one file."""

    def __init__(self, path: str, problems: list[Problem], *, strict: bool) -> None:
        self.path = path
        self.problems = problems
        self.strict = strict
        self.num_errors = sum(problem.severity == "error" for problem in problems)
        self.num_warnings = len(problems) - self.num_errors

    @property
    def valid(self) -> bool:
        """Whether the file passes: no error, and with ``strict`` no warning."""
        return self.num_errors == 0 and not (self.strict and self.num_warnings)

    @property
    def unreadable(self) -> bool:
        """Whether there was nothing to check, since the file could not be read."""
        return any(problem.code == UNREADABLE for problem in self.problems)

    def verdict(self, *, alone: bool) -> str:
        """One line: ``✓ Config valid``, or how many errors and warnings there are."""
        from common.config.characters import printable
        from common.config.problems import count

        warnings = count(self.num_warnings, "warning")
        path = printable(self.path)
        if self.valid:
            verdict = "✓ Config valid" if alone else f"✓ Config valid: {path}"
            return f"{verdict} ({warnings})" if self.num_warnings else verdict
        if self.num_errors == 0:
            return f"✗ Config not valid: {path} ({warnings}, with --strict)"
        also = f", {warnings}" if self.num_warnings else ""
        return f"✗ Config not valid: {path} ({count(self.num_errors, 'error')}{also})"

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "path": self.path,
            "valid": self.valid,
            "num_errors": self.num_errors,
            "num_warnings": self.num_warnings,
            "problems": [problem.as_json() for problem in self.problems],
        }


def _problems_of(path: str, mode: str | None) -> list[Problem]:
    from common.config import Problem, check_config
    from common.search.space import check_search_space, is_search_space

    try:
        return check_search_space(path) if is_search_space(path) else check_config(path, mode=mode)
    except InputFileError as error:
        return [Problem(path, UNREADABLE, error.message, hint=error.hint)]


def _print_document(args: argparse.Namespace) -> None:
    if args.print_schema:
        from common.config.editor_schema import schema_text

        print(schema_text(), end="")
    else:
        from common.config.reference import reference_text

        print(reference_text(), end="")


def _print_text(reports: Sequence[FileReport], *, quiet: bool) -> None:
    from common.config.problems import render
    from common.console import Console

    console = Console()
    for report in reports:
        for problem in report.problems:
            if problem.severity == "error" or report.strict or not quiet:
                console.result(render(problem) + "\n")
        console.result(report.verdict(alone=len(reports) == 1))


def _print_annotations(reports: Sequence[FileReport]) -> None:
    from common.console import Console

    console = Console()
    # Errors first: GitHub shows only so many.
    problems = [problem for report in reports for problem in report.problems]
    for problem in sorted(problems, key=lambda problem: problem.severity != "error"):
        console.result(_annotation(problem))
    for report in reports:
        console.result(report.verdict(alone=len(reports) == 1))
    if len(problems) > GITHUB_LIMIT:
        console.result(f"{len(problems)} findings; GitHub shows {GITHUB_LIMIT} of a step, and all are in its log")


def _annotation(problem: Problem) -> str:
    """A workflow command of GitHub Actions (docs.github.com, "Workflow commands", setting an error message)."""
    properties = {
        "file": problem.path,
        "line": problem.line,
        "col": problem.column,
        "endColumn": problem.end_column,
        "title": problem.code,
    }
    shown = ",".join(f"{key}={_escaped(str(value), ':,')}" for key, value in properties.items() if value is not None)
    message = problem.sentence() + (f"; {problem.hint}" if problem.hint else "")
    return f"::{problem.severity} {shown}::{_escaped(message)}"


def _escaped(text: str, more: str = "") -> str:
    from common.config.characters import printable

    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return printable(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(program, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
