#!/usr/bin/env python3
"""Train a classifier from a YAML config, reproducibly: one command, one run folder, the same bits every time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common import command
from common.exits import Exit, UsageError
from common.loading import loading
from common.signals import StopSignals

if TYPE_CHECKING:
    from common.console import Console
    from common.engine.session import RunRequest

EXAMPLES = """\
  python training_orchestrator.py --config configs/training_config.yaml --mode baseline --output-dir results/baseline/
  python training_orchestrator.py --config configs/training_config.yaml --mode baseline --dry-run
  python training_orchestrator.py --config configs/training_config.yaml --set optimizer.learning_rate=3e-4 --epochs 5
  python training_orchestrator.py --config configs/training_config.yaml --seeds 42 43 44 --output-dir results/seeds/
  python training_orchestrator.py --reproduce results/baseline/
  torchrun --nproc-per-node 2 training_orchestrator.py --config configs/training_config.yaml

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
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED",
                        help="train once per seed into DIR/seed_SEED/ and summarise; goes on where it was "
                             "stopped")  # fmt: skip
    parser.add_argument("--reproduce", type=Path, metavar="RUN_DIR",
                        help="train the run in RUN_DIR again, beside it, and compare bit by bit; with --epochs N only "
                             "its first N epochs; exit code 1 where it differs")  # fmt: skip
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
    """Check the config, then train, or do one of the things that stand in for it."""
    # Imported where needed, so that --help and a wrong flag answer at once, and a wrong config before torch is loaded.
    check_combinations(args)
    from common.console import Console

    console = Console(quiet=args.quiet, as_json=args.json, verbose=args.verbose)
    if args.reproduce:
        return reproduce_as_asked(args, console, stop)
    requests = {seed: new_request(args, seed) for seed in args.seeds or [None]}
    if args.seeds:
        with loading():
            from common.engine.seeds import summary_lines, train_seeds

        result = train_seeds(output_dir(args), requests, console, stop)
        for line in summary_lines(result):
            console.result(line)
    elif args.dry_run:
        with loading():
            from common.engine.dry_run import dry_run

        result = dry_run(requests[None], console)
    else:
        with loading():
            from common.engine.run import train

        result = train(requests[None], console, stop)
    if args.json and result:  # of several processes that train together, one tells
        command.print_json(result)
    return Exit.DONE


def new_request(args: argparse.Namespace, seed: int | None) -> RunRequest:
    """What is to be trained, with one of several seeds where there are several."""
    from common.config import load_config
    from common.engine.session import RunRequest

    flags = flag_overrides(args) | ({} if seed is None else {"reproducibility.seed": seed})
    return RunRequest(
        loaded=load_config(args.config, mode=args.mode, overrides=args.overrides, flags=flags),
        mode=args.mode,
        output_dir=output_dir(args) if seed is None else output_dir(args) / f"seed_{seed}",
        command_line=[Path(__file__).name, *sys.argv[1:]],
        must_resume=args.resume,
    )


def reproduce_as_asked(args: argparse.Namespace, console: Console, stop: StopSignals) -> Exit:
    """Train a past run again and say whether the bits are the same."""
    with loading():
        from common.engine.reproduce import reproduce, verdict_lines

    result = reproduce(
        args.reproduce,
        console,
        stop,
        output_dir=args.output_dir,
        epochs=args.epochs,
        command_line=[Path(__file__).name, *sys.argv[1:]],
    )
    for line in verdict_lines(result):
        console.result(line)
    if args.json:
        command.print_json(result)
    return Exit.DONE if result["reproduced"] else Exit.NO


def output_dir(args: argparse.Namespace) -> Path:
    return args.output_dir or Path("results") / args.mode


def check_combinations(args: argparse.Namespace) -> None:
    """Raises UsageError for flags that do not go together."""
    alone = {"--reproduce": args.reproduce, "--seeds": args.seeds, "--dry-run": args.dry_run}
    given = [flag for flag, value in alone.items() if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} do not go together", field=given[0])
    if args.seeds and args.seed is not None:
        raise UsageError("--seed and --seeds do not go together", field="--seeds")
    if args.seeds and len(set(args.seeds)) < len(args.seeds):
        raise UsageError("a seed is named twice", field="--seeds")
    if args.reproduce and (args.overrides or args.seed is not None or args.device or args.resume):
        raise UsageError("the run's own config is used as it is", field="--reproduce",
                         hint="leave out --set, --seed, --device and --resume")  # fmt: skip


def flag_overrides(args: argparse.Namespace) -> dict[str, object]:
    """The config fields that have a flag of their own and were given."""
    flags = {"reproducibility.seed": args.seed, "training.epochs": args.epochs, "training.device": args.device}
    return {key: value for key, value in flags.items() if value is not None}


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(program, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
