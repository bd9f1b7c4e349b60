#!/usr/bin/env python3
"""Whether Bayesian search reaches with 20 trials what random search reaches with 50, on recorded tables.

Each of 40 studies is replayed with both: trial scores are the recorded ones of one seed, as in a real search. Regret
is by how much the mean over all recorded seeds of the configuration chosen lies below the best one's, in points of
validation accuracy. Chosen is what the search itself puts first ("picked"); beside it stand the choice after the best
three were trained again with two more seeds ("confirmed"), and the best of all that were tried, as if nothing were
chance ("tried").

    python benchmarks/search/regret.py
    python benchmarks/search/regret.py --tables cancer_sgd --lag 0 --first-study 1000

Settings of the sampler are chosen on the tables for tuning (TUNING_TABLES), never on the two that are the default:

    python benchmarks/search/regret.py --tables digits_sgd cancer_adam wine_adam
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.search.replay import Replay, confirmations, mean_with_interval, replay, true_scores
from benchmarks.search.tables import TUNING_TABLES, Table, load_table
from common.search.definition import DEFAULT_LAG
from common.search_results.winner import choose_winner

TABLES = ("digits_adam", "cancer_sgd")
ARMS = (("random", "random_search", 20), ("random", "random_search", 50), ("bayesian", "bayesian", 20))
CHOICES = ("picked", "confirmed", "tried")


def regrets(table: Table, truth: Sequence[float], found: Replay, num_trials: int, column: int) -> dict[str, float]:
    """The regret of each way to choose; the worst possible where every trial diverged."""
    best = found.best(num_trials)
    if not best:
        return dict.fromkeys(CHOICES, max(truth) - min(truth))
    columns = [column, *(other for other in range(len(table.plan.seeds)) if other != column)][:3]
    winner = choose_winner(confirmations(table, found, num_trials, columns), "maximize")
    confirmed = found.tried[winner.number if winner else best[0]]
    chosen = {"picked": truth[found.tried[best[0]]], "confirmed": truth[confirmed],
              "tried": max(truth[number] for number in found.tried[:num_trials])}  # fmt: skip
    return {choice: max(truth) - score for choice, score in chosen.items()}


def measure(table: Table, studies: Sequence[int], lag: int) -> dict[str, list[dict[str, float]]]:
    """The regrets of each arm, a mapping per study."""
    truth = true_scores(table)
    measured: dict[str, list[dict[str, float]]] = {}
    for name, method, num_trials in ARMS:
        for study in studies:
            column = study % len(table.plan.seeds)
            found = replay(table, method, num_trials, study_seed=study, column=column, lag=lag)
            measured.setdefault(f"{name} {num_trials}", []).append(regrets(table, truth, found, num_trials, column))
    return measured


def summary(measured: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and half width of the 95% interval: of each arm, and of Bayesian 20 minus random 50, study by study."""
    result = {arm: {choice: mean_with_interval([one[choice] for one in rows]) for choice in CHOICES}
              for arm, rows in measured.items()}  # fmt: skip
    pairs = list(zip(measured["bayesian 20"], measured["random 50"], strict=True))
    result["bayesian 20 - random 50"] = {
        choice: mean_with_interval([bayesian[choice] - random[choice] for bayesian, random in pairs])
        for choice in CHOICES
    }
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=(*TABLES, *TUNING_TABLES), default=TABLES)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--first-study", type=int, default=0, help="seed of the first study")
    parser.add_argument("--lag", type=int, default=DEFAULT_LAG)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = {}
    for name in args.tables:
        started = time.monotonic()
        studies = range(args.first_study, args.first_study + args.studies)
        results[name] = summary(measure(load_table(name), studies, args.lag))
        if not args.json:
            print(f"{name}, {args.studies} studies, lag {args.lag}, {time.monotonic() - started:.0f} s")
            for arm, row in results[name].items():
                cells = [f"{choice} {row[choice][0]:6.2f} ± {row[choice][1]:.2f}" for choice in CHOICES]
                print(f"  {arm:24s} {'   '.join(cells)}", flush=True)
    if args.json:
        print(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
