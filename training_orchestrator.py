#!/usr/bin/env python3
"""Train a classifier from a YAML config, reproducibly: one command, one run folder, the same bits every time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common import command
from common.exits import Exit
from common.signals import StopSignals

EXAMPLES = """\
  python training_orchestrator.py --config configs/training_config.yaml --mode baseline --output-dir results/baseline/
  python training_orchestrator.py --config configs/training_config.yaml --mode baseline --dry-run
  python training_orchestrator.py --config configs/training_config.yaml --set optimizer.learning_rate=3e-4 --epochs 5

The same command again goes on with an unfinished run; a finished run, or one of another config, is moved aside first.
exit codes: 0 done, 1 invalid config, 2 wrong usage, 3 unreadable input, 4 something is missing on this machine,
  5 the training failed, 130 interrupted, 143 stopped by a signal after saving"""


def make_parser() -> argparse.ArgumentParser:
    parser = command.new_parser(__doc__, EXAMPLES)
    parser.add_argument("--config", type=Path, default=Path("configs/training_config.yaml"), metavar="FILE",
                        help="what to train and how (default: %(default)s)")  # fmt: skip
    parser.add_argument("--mode", choices=("baseline", "optimization", "production"), default="baseline",
                        help="sets epochs, patience and test evaluation where the config leaves them out "
                             "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="the run's folder (default: results/MODE/)")
    parser.add_argument("--resume", action="store_true",
                        help="insist on going on with the run in the folder: an error where there is none")  # fmt: skip
    parser.add_argument("--seed", type=int, help="overrides reproducibility.seed")
    parser.add_argument("--epochs", type=int, help="overrides training.epochs")
    parser.add_argument("--device", metavar="auto|cpu|cuda|cuda:N", help="overrides training.device")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override any config field, as often as needed")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true",
                        help="build everything, try a few batches, print the plan, leave nothing behind")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="print every detail that training.log gets")
    return parser


def program(args: argparse.Namespace) -> Exit:
    with StopSignals() as stop:
        return train_as_asked(args, stop)


def train_as_asked(args: argparse.Namespace, stop: StopSignals) -> Exit:
    """Check the config, then train or dry-run."""
    # Imported here, so that --help and a wrong flag answer at once; the config is checked before torch is loaded.
    from common.config import load_config
    from common.console import Console

    loaded = load_config(args.config, mode=args.mode, overrides=args.overrides, flags=flag_overrides(args))
    console = Console(quiet=args.quiet, as_json=args.json, verbose=args.verbose)

    from common.engine.dry_run import dry_run
    from common.engine.run import train
    from common.engine.session import RunRequest

    request = RunRequest(
        loaded=loaded,
        mode=args.mode,
        output_dir=args.output_dir or Path("results") / args.mode,
        command_line=[Path(__file__).name, *sys.argv[1:]],
        must_resume=args.resume,
    )
    result = dry_run(request, console) if args.dry_run else train(request, console, stop)
    if args.json:
        command.print_json(result)
    return Exit.DONE


def flag_overrides(args: argparse.Namespace) -> dict[str, object]:
    """The config fields that have a flag of their own and were given."""
    flags = {"reproducibility.seed": args.seed, "training.epochs": args.epochs, "training.device": args.device}
    return {key: value for key, value in flags.items() if value is not None}


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(program, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
