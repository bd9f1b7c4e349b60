#!/usr/bin/env python3
"""What killing does to a training: nothing. And what it costs to be sure of that.

    python benchmarks/kill/kill.py --kills 200 --seed 0     # about an hour on two cores
    python benchmarks/kill/kill.py --kills 0                # only the costs
    python benchmarks/kill/kill.py --only kills --case wine --kills 20

Trainings of several configs are killed with SIGKILL at random moments and started again with the same command. Each
must end byte-identical to one that nobody disturbed, in weights, metrics, predictions, checkpoints and trace. Then
bytes of every checkpoint that a run leaves are changed, and saving, going on and the price of both are timed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.kill import costs
from benchmarks.kill.cases import CASES, write_images
from benchmarks.kill.killing import PHASES, Tally, kill_runs
from common import markdown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="in all, over all cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", choices=sorted(CASES), nargs="+", default=sorted(CASES))
    parser.add_argument("--only", choices=("kills", "costs"), help="leave the other part out")
    parser.add_argument("--flips", type=int, default=1000, help="damaged bytes per file (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="of each timing (default: %(default)s)")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    failed = False
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        if args.only != "costs" and args.kills:
            failed = not kill(args, Path(folder))
        if args.only != "kills":
            costs.report(Path(folder) / "costs", flips=args.flips, rounds=args.rounds)
    return int(failed)


def kill(args: argparse.Namespace, folder: Path) -> bool:
    """Kill as often as asked and print the table; True where nothing was hurt."""
    images = write_images(folder / "data")
    tallies = []
    for number, name in enumerate(args.case):
        kills = (number + 1) * args.kills // len(args.case) - number * args.kills // len(args.case)
        print(f"{CASES[name].name}: {kills} kills", file=sys.stderr, flush=True)
        tallies.append(kill_runs(CASES[name], kills, args.seed + number, folder / name, images, tell=_tell))
    print(table(tallies))
    for tally in tallies:
        for problem in tally.problems:
            print(f"- {problem}")
    return not any(tally.problems for tally in tallies)


def table(tallies: list[Tally]) -> str:
    """How many kills landed where, and how many runs ended as they should, in Markdown."""
    rows = [
        [tally.case.name, tally.num_kills, *(tally.kills[phase] for phase in PHASES), _share(tally)]
        for tally in tallies
    ]
    kills = [sum(tally.kills[phase] for tally in tallies) for phase in PHASES]
    runs, identical = sum(tally.runs for tally in tallies), sum(tally.identical for tally in tallies)
    rows.append(["all", sum(kills), *kills, f"{identical} of {runs}"])
    return markdown.table(["Training", "Kills", *(f"in {phase}" for phase in PHASES), "Runs byte-identical"], rows)


def _share(tally: Tally) -> str:
    return f"{tally.identical} of {tally.runs}"


def _tell(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
