"""Whether a search finds the same whatever is done to it: 1, 2 and 4 workers, and deaths at every moment there is.

    python -m benchmarks.search.same_trials --workers
    python -m benchmarks.search.same_trials --kills

The searches are Bayesian, on the wines, so that every proposal depends on results: 12 trials of 2 epochs for the
workers, 9 for the kills. Compared is all that ``trials.json`` says of trials and confirmations, but when and how often
they were begun.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.search.killed_searches import KILLED, ROOT, PreparedSearch

CONFIG = """\
model: {architecture: simple_mlp, dropout: 0.1, hidden_dims: [24]}
optimizer: {type: adam, learning_rate: 0.003, weight_decay: 0.0}
training: {epochs: 2, batch_size: 64, device: cpu, num_threads: 1}
early_stopping: {enabled: false, patience: 10, metric: val_loss}
reproducibility: {seed: 42, deterministic: true}
data: {source: wine}
"""
SPACE = """\
search_space:
  learning_rate: [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
  dropout: {low: 0.0, high: 0.5, step: 0.1}
  batch_size: [16, 32, 64]
"""
HOW = ("attempts", "started_at", "finished_at", "duration_s")


def command(output: str, num_trials: int, *more: object) -> list[str]:
    """The arguments of a search in a folder that ``prepare`` has made."""
    return ["--config", "config.yaml", "--search-space", "space.yaml", "--method", "bayesian", "--output", output,
            "--n-trials", str(num_trials), "--quiet", *map(str, more)]  # fmt: skip


def prepare(folder: Path) -> Path:
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "space.yaml").write_text(SPACE)
    return folder


def found(output: Path) -> Any:
    """All that a search found, but for how it came about."""
    document = json.loads((output / "trials.json").read_text())
    trials = [{key: value for key, value in trial.items() if key not in HOW} for trial in document["trials"]]
    return trials, document["confirmations"], document["study"]["winner"], document["study"]["end"]


def compare_workers(folder: Path) -> bool:
    """Search with 1, 2 and 4 workers; whether all find the same."""
    results = {}
    for jobs in (1, 2, 4):
        began = time.monotonic()
        subprocess.run(
            [sys.executable, ROOT / "hyperparam_search.py", *command(f"jobs{jobs}", 12, "--jobs", jobs)],
            cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        results[jobs] = found(folder / f"jobs{jobs}")
        same = results[jobs] == results[1]
        print(f"{jobs} workers: {'the same' if same else 'DIFFERENT'} ({time.monotonic() - began:.1f} s)", flush=True)
    return all(result == results[1] for result in results.values())


def compare_kills(folder: Path, every: int) -> bool:
    """Let a search die at every moment, or every so many; whether the next start of the command finds the same."""
    prepared, arguments = PreparedSearch(), command("out", 9, "--confirm", 1)
    whole = prepared.run(folder, arguments)
    assert whole.code == 0, whole.said
    expected, problems, kills = found(folder / "out"), [], 0
    for die_at in range(1, whole.moments + 1, every):
        shutil.rmtree(folder / "out")
        end = prepared.run(folder, arguments, die_at=die_at)
        again = prepared.run(folder, arguments)
        kills += end.code == KILLED
        if again.code != 0 or found(folder / "out") != expected:
            problems.append(die_at)
    prepared.close()
    print(f"{kills} deaths, at every {every}. of {whole.moments} moments: {kills - len(problems)} times the same, "
          f"{len(problems)} times not {problems or ''}")  # fmt: skip
    return not problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", action="store_true")
    parser.add_argument("--kills", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="die at every so many moments only")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = prepare(Path(name))
        done = [compare_workers(folder)] if args.workers else []
        done += [compare_kills(folder, args.every)] if args.kills else []
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
