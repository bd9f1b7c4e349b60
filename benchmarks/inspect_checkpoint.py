#!/usr/bin/env python3
"""How long checkpoint_inspector.py takes for a 1.6 GB checkpoint, and how much memory: the whole process, as typed.

The checkpoint holds 300 weights and Adam's state for them, written into a temporary folder and removed again. Each
figure is the median over the rounds; the file is in the page cache, as it is right after training wrote it.

    python benchmarks/inspect_checkpoint.py
    python benchmarks/inspect_checkpoint.py --size-gb 0.4 --rounds 9
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NUM_WEIGHTS = 300
INSPECT = ("checkpoint_inspector.py", "--checkpoint")
# name, arguments before the file, arguments after it, limit in seconds, limit in MB
CASES = (
    ("--help", ("checkpoint_inspector.py", "--help"), (), 0.15, None),
    ("describe", INSPECT, ("--no-verify",), 0.3, 40.0),
    ("describe --json", INSPECT, ("--no-verify", "--json"), None, None),
    ("verify every byte and value", INSPECT, ("--verify",), None, None),
)


def write_checkpoint(path: Path, size_gb: float) -> None:
    """A checkpoint of ``size_gb`` (powers of 1000) with weights and Adam's two moments, in float32."""
    import torch

    numel = int(size_gb * 1e9 / 4 / 3 / NUM_WEIGHTS)
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(numel, generator=generator) for _ in range(3)]
    weights = {f"layer{number}.weight": values[0].clone() for number in range(NUM_WEIGHTS)}
    state = {
        number: {"step": torch.tensor(100.0), "exp_avg": values[1].clone(), "exp_avg_sq": values[2].clone()}
        for number in range(NUM_WEIGHTS)
    }
    optimizer = {"state": state, "param_groups": [{"lr": 1e-3, "params": list(range(NUM_WEIGHTS))}]}
    with path.open("wb") as file:
        torch.save(
            {"epoch": 5, "step": 100, "model_state_dict": weights, "optimizer_state_dict": optimizer, "val_acc": 78.9},
            file,
        )


def measure(command: list[str]) -> tuple[float, float]:
    """Wall-clock seconds and peak resident memory in MB of one process."""
    start_s = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed_s = time.perf_counter() - start_s
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(command)} failed")
    return elapsed_s, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    """Write the file, measure every case, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--size-gb", type=float, default=1.6, help="size of the checkpoint")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each case")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        # In a process of its own: a parent's peak would count as its children's, which start as copies of it.
        code = f"import inspect_checkpoint as b; b.write_checkpoint(b.Path({str(path)!r}), {args.size_gb})"
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)
        print(f"{path.stat().st_size / 1e9:.2f} GB, {3 * NUM_WEIGHTS} large tensors, median of {args.rounds} runs")
        for name, before, after, limit_s, limit_mb in CASES:
            file = [str(path)] if "--checkpoint" in before else []
            runs = [measure([sys.executable, *before, *file, *after]) for _ in range(args.rounds)]
            seconds, mb = (statistics.median(column) for column in zip(*runs, strict=True))
            limits = [f"{limit} {unit}" for limit, unit in ((limit_s, "s"), (limit_mb, "MB")) if limit]
            print(f"{name:<28} {seconds:6.3f} s  {mb:6.1f} MB" + (f"  (limit {', '.join(limits)})" if limits else ""))


if __name__ == "__main__":
    main()
