#!/usr/bin/env python3
"""Search for better hyperparameters: repeatable, resumable, and on as many processors and machines as there are."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from common import command
from common.exits import Exit, UsageError
from common.loading import loading

if TYPE_CHECKING:
    from common.console import Console
    from common.search.planning import Plan
    from common.search.request import SearchRequest
    from common.search_results.records import StudyRecord

EXAMPLES = """\
  python hyperparam_search.py --search-space configs/search_space.yaml --n-trials 20 --method random_search \\
    --output results/hyperparam_search/
  python hyperparam_search.py --n-trials 20 --dry-run
  python hyperparam_search.py --method grid_search --epochs 10 --jobs 4
  python hyperparam_search.py --method bayesian --n-trials 50 --timeout 2h
  python hyperparam_search.py --n-trials 100 --storage postgresql://me@server/studies
  optuna-dashboard sqlite:///results/hyperparam_search/study.db

The same command again goes on where the search ended; the number of trials may be raised. The same command with the
same --storage on another machine takes part. However many workers there are, the trials and their results are the same.
exit codes: 0 done (also when the time is up), 1 invalid config or search space, 2 wrong usage, 3 unreadable input,
  4 something is missing on this machine, 5 no trial could be trained, 130 interrupted, 143 stopped by a signal"""

METHODS = {
    "random_search": "random_search",
    "grid_search": "grid_search",
    "bayesian": "bayesian",
    "bayesian_optimization": "bayesian",
}
METRICS = ("val_acc", "val_loss", "val_f1", "val_precision", "val_recall")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600}


def make_parser() -> argparse.ArgumentParser:
    parser = command.new_parser(__doc__, EXAMPLES)
    parser.add_argument("--search-space", type=Path, default=Path("configs/search_space.yaml"), metavar="FILE",
                        help="which hyperparameters, and which values of each (default: %(default)s)")  # fmt: skip
    parser.add_argument("--config", type=Path, default=Path("configs/training_config.yaml"), metavar="FILE",
                        help="everything else about the training (default: %(default)s)")  # fmt: skip
    parser.add_argument("--n-trials", type=positive, metavar="N",
                        help="how many configurations to try (default: 20; with grid_search all of them)")  # fmt: skip
    parser.add_argument("--method", choices=tuple(METHODS), default="random_search",
                        help="random_search for a start, grid_search for small spaces, bayesian (or "
                             "bayesian_optimization) to learn from results (default: %(default)s)")  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("results/hyperparam_search"), metavar="DIR",
                        help="the search's folder (default: %(default)s/)")  # fmt: skip
    parser.add_argument("--metric", choices=METRICS, default="val_acc",
                        help="what to search for, at each trial's best epoch by checkpointing.monitor "
                             "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--epochs", type=positive, metavar="N", help="overrides training.epochs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override any field of the config, as often as needed")  # fmt: skip
    parser.add_argument("--seed", type=int, help="draws the configurations (default: the config's)")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N",
                        help="trainings at the same time; changes no result (default: %(default)s)")  # fmt: skip
    parser.add_argument("--timeout", type=seconds, metavar="TIME",
                        help="stop after so long, such as 90s, 30m or 2h, with the results so far")  # fmt: skip
    parser.add_argument("--confirm", type=not_negative, default=3, metavar="N",
                        help="train the best N again with two fresh seeds, and choose by the mean; 0 turns it off "
                             "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--prune", action="store_true",
                        help="give up trials that fall behind the median of the earlier ones")  # fmt: skip
    parser.add_argument("--lag", type=not_negative, metavar="N",
                        help="bayesian and --prune: a trial sees the results of those at least N+1 before it, so N+1 "
                             "workers never wait; less of it learns sooner (default: 2)")  # fmt: skip
    parser.add_argument("--storage", metavar="URL",
                        help="postgresql://user@host/database, which several machines can work on, or "
                             "sqlite:///FILE (default: DIR/study.db)")  # fmt: skip
    parser.add_argument(
        "--study", metavar="NAME", help="the study's name in the storage (default: made from what it is)"
    )
    parser.add_argument("--resume", action="store_true", help="insist on going on: an error where there is no study")
    parser.add_argument("--keep-checkpoints", action="store_true",
                        help="keep the checkpoints of all trials, not of the best three only")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true",
                        help="check everything, print the plan and the first trials, write nothing")  # fmt: skip
    return parser


def program(args: argparse.Namespace) -> Exit:
    deadline_s = None if args.timeout is None else time.time() + args.timeout
    # Imported where needed, so that --help and a wrong flag answer at once, and a wrong space before torch is loaded.
    from common.search.stopping import SearchStop

    with SearchStop(deadline_s) as stop, ExitStack() as at_the_end:
        trainer = None
        if is_trained_elsewhere(args):
            from common.search.trainer_process import TrainerProcess

            trainer = at_the_end.enter_context(closing(TrainerProcess()))
        from common.console import Console

        console = Console(quiet=args.quiet, as_json=args.json)
        with loading():
            request = new_request(args)
        for notice in (*request.base.notices, *request.plan.space.notices):
            console.warning(notice)
        if args.dry_run:
            show_plan(args, request, console)
            return Exit.DONE
        with loading():
            from common.search.searching import search

        study, files = search(request, console, stop, trainer)
    show_result(args, study, files, console)
    return Exit.DONE


def is_trained_elsewhere(args: argparse.Namespace) -> bool:
    """Whether torch is best loaded by another process meanwhile: one worker, and nothing here that needs torch too."""
    is_bayesian = METHODS[args.method] == "bayesian"  # its model is torch's
    return args.jobs == 1 and not args.dry_run and not is_bayesian and "torch" not in sys.modules


def new_request(args: argparse.Namespace) -> SearchRequest:
    """Everything that is asked for, checked."""
    from common.config import load_config
    from common.search.request import SearchRequest

    base = load_config(args.config, overrides=args.overrides, flags={"training.epochs": args.epochs})
    return SearchRequest(
        base=base,
        plan=new_plan(args, base),
        output=args.output,
        jobs=args.jobs,
        storage=args.storage,
        study=args.study,
        must_resume=args.resume,
        keep_checkpoints=args.keep_checkpoints,
        command_line=(Path(__file__).name, *sys.argv[1:]),
    )


def new_plan(args: argparse.Namespace, base) -> Plan:
    """What is to be tried, known without torch."""
    from common.search.planning import DEFAULT_LAG, Plan
    from common.search.space import read_search_space

    space = read_search_space(args.search_space, base)
    if args.epochs is not None and any(entry.path == "training.epochs" for entry in space.entries):
        raise UsageError("is in the search space too", field="--epochs", hint="leave one of the two out")
    return Plan(
        space=space,
        method=METHODS[args.method],
        wanted_trials=args.n_trials,
        seed=base.config.reproducibility.seed if args.seed is None else args.seed,
        metric=args.metric,
        confirm=args.confirm,
        prune=args.prune,
        lag=DEFAULT_LAG if args.lag is None else args.lag,
    )


def show_plan(args: argparse.Namespace, request: SearchRequest, console: Console) -> None:
    from common.search.planning import plan_text

    epochs = request.base.config.training.epochs
    console.result(plan_text(request.plan, epochs, request.output))
    if args.json:
        command.print_json(request.plan.as_plain(epochs))


def show_result(args: argparse.Namespace, study: StudyRecord, files: Sequence[Path], console: Console) -> None:
    from common.search_results.writing import winner_lines

    for line in winner_lines(study):
        console.result(line)
    best = next((path for path in files if path.name == "best_config.yaml"), None)
    if best is not None:
        console.info(f"Next: python training_orchestrator.py --config {best} --mode optimization")
    if args.json:
        command.print_json(as_json(study, files))


def as_json(study: StudyRecord, files: Sequence[Path]) -> dict[str, object]:
    """The result for programs: what won, and where everything stands."""
    winner = next((trial for trial in study.trials if trial.number == study.winner), None)
    confirmed = next((entry for entry in study.confirmations if entry.number == study.winner), None)
    states = [trial.state for trial in study.trials]
    return {
        "study": study.name,
        "end": study.end,
        "metric": study.metric,
        "trials": {state: states.count(state) for state in sorted(set(states))},
        "winner": None if winner is None else {
            "number": winner.number,
            "params": dict(winner.params),
            "value": winner.value,
            "values": None if confirmed is None else list(confirmed.values),
            "seeds": None if confirmed is None else list(confirmed.seeds),
        },
        "files": [str(path) for path in files],
    }  # fmt: skip


def positive(text: str) -> int:
    return _whole(text, 1)


def not_negative(text: str) -> int:
    return _whole(text, 0)


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"`{text}` is no time: write 90s, 30m or 2h")
    return float(match[1]) * _UNITS_S[match[2]]


def _whole(text: str, least: int) -> int:
    if not re.fullmatch(r"\d{1,9}", text) or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, not `{text}`")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(program, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
