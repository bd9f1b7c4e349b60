#!/usr/bin/env python3
"""By how much the score that a search reports for its winner differs from the winner's score with fresh seeds.

Each study is a random search of 20 trials replayed from a recorded table: one seed for the trials, two others for the
best three, and the seeds that are left, which the search never sees, for the truth. Beside what is reported stand the
search's own maximum and plain means, each minus the truth, in points of validation accuracy.

    python benchmarks/search/winner.py

Exit code 1 where what is reported is off by more than 0.1 points in the mean on any table.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.search.replay import confirmations, mean_with_interval, replay
from benchmarks.search.tables import Table, load_table
from common.search_results.winner import all_values, choose_winner, fresh_values

TABLES = ("digits_adam_seeds", "digits_adam", "cancer_sgd")
NUM_TRIALS = 20
GOAL = 0.1


def errors(table: Table, study: int) -> Mapping[str, float] | None:
    """Each estimate minus the truth; None where a seed that is to tell the truth diverged."""
    columns = list(range(len(table.plan.seeds)))
    random.Random(study).shuffle(columns)
    found = replay(table, "random_search", NUM_TRIALS, study_seed=study, column=columns[0], lag=0)
    entries = confirmations(table, found, NUM_TRIALS, columns[:3])
    winner = choose_winner(entries, "maximize")
    if winner is None:
        return None
    chosen = next(entry for entry in entries if entry.number == winner.number)
    unseen = {trial: [table.scores[found.tried[trial]][column] for column in columns[3:]]
              for trial in (winner.number, entries[0].number)}  # fmt: skip
    if any(None in scores for scores in unseen.values()):
        return None
    truth = fmean(unseen[winner.number])
    return {
        "reported": winner.estimate - truth,
        "its mean over the two fresh seeds": fmean(fresh_values(chosen)) - truth,
        "its mean over all three seeds": fmean(all_values(chosen)) - truth,
        "the search's maximum, without confirmation": entries[0].values[0] - fmean(unseen[entries[0].number]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = {}
    for name in TABLES:
        table = load_table(name)
        measured = [found for study in range(args.studies) if (found := errors(table, study)) is not None]
        results[name] = {what: mean_with_interval([one[what] for one in measured]) for what in measured[0]}
        if not args.json:
            print(f"{name}: {len(measured)} of {args.studies} studies")
            for what, (mean, half) in results[name].items():
                print(f"  {what:44s} {mean:+.3f} ± {half:.3f}", flush=True)
    if args.json:
        print(json.dumps(results, indent=1))
    return int(any(abs(row["reported"][0]) > GOAL for row in results.values()))


if __name__ == "__main__":
    sys.exit(main())
