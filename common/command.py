"""The boundary between a tool and the shell: every error becomes one sentence and a documented exit code."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from common.exits import EnvironmentLackError, Exit, ToolError


def new_parser(description: str, examples: str) -> argparse.ArgumentParser:
    """A parser in the house style: description, flags, then examples as typed, with ``--json`` and ``--quiet``."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"examples:\n{examples.rstrip()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    parser.add_argument("--quiet", action="store_true", help="print results and errors only")
    return parser


def run(
    program: Callable[[argparse.Namespace], Exit],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
) -> int:
    """Parse ``argv`` and run ``program``, which knows nothing of exit codes but the one it returns.

    A ``ToolError`` is printed as one sentence (with ``--json`` also as an object on standard output); any other
    exception is a bug of ours and keeps its traceback.
    """
    args = parser.parse_args(argv)
    try:
        return int(program(args))
    except ToolError as error:
        _report(error, parser.prog, args.json)
        return int(error.exit)
    except ModuleNotFoundError as error:
        if (error.name or "common").split(".")[0] == "common":
            return _bug(parser.prog)
        hint = "install what requirements.txt lists: make setup"
        _report(EnvironmentLackError(f"the package {error.name} is not installed", hint=hint), parser.prog, args.json)
        return int(Exit.ENVIRONMENT)
    except BrokenPipeError:
        # `tool | head` closed the pipe. Point standard output elsewhere, or the interpreter complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.DONE)
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return int(Exit.INTERRUPTED)
    except Exception:
        return _bug(parser.prog)


def print_json(value: object) -> None:
    """Print a result for programs: strict JSON, on standard output; plain ASCII, which every terminal can show."""
    print(json.dumps(value, indent=2, allow_nan=False))


def _bug(prog: str) -> int:
    traceback.print_exc()
    print(f"{prog}: this is a bug in {prog}; please report it with the lines above", file=sys.stderr)
    return int(Exit.BUG)


def _report(error: ToolError, prog: str, as_json: bool) -> None:
    if as_json:
        print_json({"error": error.as_json()})
    print(f"{prog}: error: {error}", file=sys.stderr)
