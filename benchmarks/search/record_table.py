#!/usr/bin/env python3
"""Record a table of real trainings: every configuration of a small space with several seeds, by the shipped engine.

Nothing but the line in the table is kept of a training. Started again, it goes on where it stopped.

    python benchmarks/search/record_table.py digits_adam
    python benchmarks/search/record_table.py cancer_sgd --limit-s 200
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.search.tables import PLANS, Plan, read_rows
from common.config import load_config
from common.data import Dataset
from common.device import configure_determinism, select_device, set_num_threads
from common.engine.assembly import build_parts, load_data
from common.engine.parts import Parts
from common.engine.recorder import MutedRecorder
from common.engine.saver import Saver
from common.engine.trainer import Trainer
from common.engine.training_step import NonFiniteError
from common.parallel import World
from common.seeding import seed_everything
from common.signals import StopSignals

BASE = Path(__file__).resolve().parents[2] / "configs" / "training_config.yaml"


class PlainWatch:
    """Implements ``trainer.EpochWatch``: no reactions, so that a configuration alone decides its score."""

    def after_epoch(self, *, would_stop_early: bool) -> bool:
        return would_stop_early


def train(values: Mapping[str, Any], dataset: Dataset | None, stop: StopSignals) -> tuple[dict | None, Dataset]:
    """One training: its best epoch, None where the loss was no longer finite; and the data, for the next one."""
    config = load_config(BASE, flags=values).config
    configure_determinism(True, False)
    set_num_threads(1)
    dataset = dataset or load_data(config, write_files=False)
    seed_everything(config.reproducibility.seed)
    parts = build_parts(config, dataset, select_device("cpu"), World(), mode="optimization")
    try:
        return _best_epoch(parts, stop), dataset
    finally:
        parts.close()


def _best_epoch(parts: Parts, stop: StopSignals) -> dict | None:
    recorder = MutedRecorder()
    try:
        Trainer(
            parts, Saver(parts, None, None, recorder.save_failed, recorder.publish), recorder, PlainWatch(), stop
        ).run()
    except NonFiniteError:
        return None
    return parts.state.progress.best


def record(plan: Plan, limit_s: float) -> int:
    """Record what is missing; returns how many trainings are still to be done."""
    _drop_torn_line(plan.path)
    done = {(int(row["configuration"]), int(row["seed"])) for row in read_rows(plan.path)}
    wanted = [(number, seed, params) for number, params in enumerate(plan.configurations()) for seed in plan.seeds
              if (number, seed) not in done]  # fmt: skip
    names = ["configuration", *plan.space, "seed", "val_acc", "val_loss", "best_epoch", "time_s"]
    started, dataset = time.monotonic(), None
    with plan.path.open("a", encoding="utf-8", newline="") as file, StopSignals() as stop:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        if not done:
            writer.writeheader()
        for left, (number, seed, params) in zip(range(len(wanted), 0, -1), wanted, strict=True):
            if time.monotonic() - started > limit_s:
                return left
            begun = time.monotonic()
            best, dataset = train({**plan.base, **params, "reproducibility.seed": seed}, dataset, stop)
            time_s = f"{time.monotonic() - begun:.3f}"
            writer.writerow({"configuration": number, **params, "seed": seed, **_shown(best), "time_s": time_s})
            file.flush()
    return 0


def _drop_torn_line(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        content = path.read_bytes()
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def _shown(best: Mapping[str, Any] | None) -> dict[str, Any]:
    if best is None:
        return {}
    return {"val_acc": f"{best['val_acc']:.4f}", "val_loss": f"{best['val_loss']:.6f}", "best_epoch": best["epoch"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=sorted(PLANS))
    parser.add_argument("--limit-s", type=float, default=float("inf"), metavar="S", help="stop after this time")
    args = parser.parse_args()
    left = record(PLANS[args.table], args.limit_s)
    print(f"{args.table}: {f'{left} trainings left' if left else 'complete'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
