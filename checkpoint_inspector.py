#!/usr/bin/env python3
"""Say what a checkpoint holds and whether it is sound, without torch and without executing anything in it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Union

from common.command import new_parser, print_json, run
from common.console import Console
from common.exits import CheckFailedError, Exit, InputFileError, ToolError

if TYPE_CHECKING:
    from common.checkpoint_container.inspection import Inspection

# A path, with what was found there or the error that stands for it.
Outcome = tuple[Path, Union["Inspection", ToolError]]

EXAMPLES = """\
  python checkpoint_inspector.py --checkpoint checkpoints/baseline/best_model.pt
  python checkpoint_inspector.py --checkpoint best_model.pt --load --verbose
  python checkpoint_inspector.py --checkpoint results/baseline/ results/optimization/ --json
  python checkpoint_inspector.py --latest-good results/baseline/ --quiet
"""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = new_parser(
        "Show what saved checkpoints hold, and check that they are whole and loadable. "
        "Exit code 0: sound; 1: damaged, unsafe, NaN weights or not loadable; 3: missing or not a checkpoint.",
        EXAMPLES,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--checkpoint",
        nargs="+",
        action="extend",
        metavar="PATH",
        help="one checkpoint or several; of a folder (a run's folder too), all that are in it",
    )
    what.add_argument(
        "--latest-good",
        metavar="FOLDER",
        help="show the newest sound checkpoint in FOLDER, with no NaN among its weights; with --quiet its path alone",
    )
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        help="check every byte and every value (by default for files under 1 GB)",
    )
    parser.add_argument("--load", action="store_true", help="also load it with torch in a child process")
    parser.add_argument("--verbose", action="store_true", help="list contents, tensors and problems in full")
    return parser


def program(args: argparse.Namespace) -> Exit:
    """Inspect what was asked for, and say the worst that was found."""
    if args.latest_good is not None:
        inspection = _latest_good(args.latest_good, load=args.load)
        if args.quiet and not args.json:
            Console().result(str(inspection.path))
            return Exit.DONE
        outcomes: Iterable[Outcome] = [(inspection.path, inspection)]
    else:
        outcomes = _outcomes(args.checkpoint, args)
    if args.json:
        reports = [_as_json(path, outcome) for path, outcome in outcomes]
        code = _worst(report["exit_code"] for report in reports)
        print_json({"checkpoints": reports, "exit_code": int(code)})
        return code
    return _worst(_show(outcome, args, number) for number, (_, outcome) in enumerate(outcomes))


def _outcomes(paths: Sequence[str], args: argparse.Namespace) -> Iterator[Outcome]:
    """Each checkpoint with its inspection, or with the error that stands for one."""
    from common.checkpoint_container.inspection import inspect_checkpoint

    for given in paths:
        try:
            found = _expand(given)
        except ToolError as error:
            yield Path(given), error
            continue
        for path in found:
            try:
                yield path, inspect_checkpoint(path, check_bytes=args.verify, load=args.load)
            except ToolError as error:
                yield path, error


def _expand(given: str) -> list[Path]:
    """The checkpoint itself, or all in a folder.

    Raises:
        InputFileError: the folder holds none, or cannot be read.
    """
    from common.manifest import checkpoint_files, checkpoint_folder

    path = Path(given)
    if not path.is_dir():
        return [path]
    try:
        found = checkpoint_files(checkpoint_folder(path))
    except OSError as error:
        raise InputFileError(f"cannot be read ({error.strerror})", path=given) from None
    if not found:
        raise InputFileError("no checkpoints in this folder", path=given, hint="give a run's folder or a .pt file")
    return found


def _show(outcome: Inspection | ToolError, args: argparse.Namespace, number: int) -> Exit:
    from common.checkpoint_container.report import as_lines

    if isinstance(outcome, ToolError):
        print(f"checkpoint_inspector.py: error: {outcome}", file=sys.stderr)
        return outcome.exit
    lines = as_lines(outcome, "full" if args.verbose else "block" if args.quiet else "brief")
    Console().result(("\n" if number else "") + "\n".join(lines))
    return outcome.exit


def _as_json(path: Path, outcome: Inspection | ToolError) -> dict[str, object]:
    from common.checkpoint_container.report import as_json

    if isinstance(outcome, ToolError):
        print(f"checkpoint_inspector.py: error: {outcome}", file=sys.stderr)
        return {"path": str(path), "error": outcome.as_json(), "exit_code": int(outcome.exit)}
    return as_json(outcome)


def _latest_good(folder: str, *, load: bool) -> Inspection:
    """The newest sound checkpoint: no damage, nothing unsafe, no NaN among its weights.

    Raises:
        InputFileError: there is no such folder.
        CheckFailedError: none of its checkpoints is sound.
    """
    from common.checkpoint_container.inspection import inspect_checkpoint
    from common.manifest import checkpoint_files, checkpoint_folder, iterate_sound_checkpoints

    if not Path(folder).is_dir():
        raise InputFileError("no such folder", path=folder, field="--latest-good")
    for path in iterate_sound_checkpoints(folder):
        inspection = inspect_checkpoint(path, check_bytes=True, load=load)
        if inspection.exit is Exit.DONE:
            return inspection
        print(f"{path}: {inspection.reason_against_loading or 'NaN weights'}; looking at the next", file=sys.stderr)
    count = len(checkpoint_files(checkpoint_folder(folder)))
    hint = "checkpoint_inspector.py --checkpoint FOLDER says what is wrong with each" if count else None
    raise CheckFailedError(f"none of its {count} checkpoints is sound", path=folder, hint=hint)


def _worst(codes: Iterable[int]) -> Exit:
    """A checkpoint that is not sound weighs more than a path that is no checkpoint."""
    found = {Exit(code) for code in codes}
    if Exit.NO in found:
        return Exit.NO
    return max(found, default=Exit.DONE)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(program, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
