"""What the harness adds to a call: ``python -m benchmarks.inference.harness_overhead [--turns 2000] [--threads 1]``.

The same session is called in turns by the harness and by a bare loop around ``session.run`` with nothing in it, whose
time is taken once for the whole block. Compared are times per call, of the bare loop, of the harness by its own record
(the latency that it reports), and of the harness by the wall clock (what it costs in all). Of all blocks the 5th
percentile is taken: on a busy machine most blocks are disturbed, and by more than the difference looked for.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.inference.models import inputs, small_cnn
from common import markdown
from common.inference.timing import Recorder, warm_up, without_collection

# Short enough that many blocks end before the scheduler turns to somebody else.
CALLS_PER_BLOCK = 10
# Whoever takes over finds the caches full of the other's data: its first calls are no one's fault.
LEAD_IN_CALLS = 2


def measure(turns: int, num_threads: int) -> str:
    """A Markdown table of microseconds per call."""
    with tempfile.TemporaryDirectory() as folder:
        engine = small_cnn(Path(folder) / "model.onnx", num_threads)
    batches = inputs()
    warm_up(engine, batches)
    bare_us, harness_us = [], []
    with without_collection():
        for turn in range(turns):
            for is_bare in (True, False) if turn % 2 == 0 else (False, True):
                if is_bare:
                    bare_us.append(_bare_block(engine, batches))
                else:
                    harness_us.append(_harness_block(engine, batches))
    recorded_us, in_all_us = zip(*harness_us, strict=True)
    base_us = _undisturbed(bare_us)
    rows = [["bare loop around session.run", f"{base_us:.2f}", ""]]
    for name, values in (("harness, latency as reported", recorded_us), ("harness, wall time per call", in_all_us)):
        value_us = _undisturbed(values)
        rows.append([name, f"{value_us:.2f}", f"{100 * (value_us / base_us - 1):+.2f}%"])
    return markdown.table(["Per call, in undisturbed blocks", "µs", "over the bare loop"], rows)


def _undisturbed(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[0]


def _bare_block(engine, batches) -> float:
    """Microseconds per call."""
    run, outputs, name = engine.session.run, ["logits"], "input"
    for batch in batches[:LEAD_IN_CALLS]:
        run(outputs, {name: batch})
    timed = batches[:CALLS_PER_BLOCK]
    begin_ns = time.perf_counter_ns()
    for batch in timed:
        run(outputs, {name: batch})
    return (time.perf_counter_ns() - begin_ns) / CALLS_PER_BLOCK / 1e3


def _harness_block(engine, batches) -> tuple[float, float]:
    """Microseconds per call: mean latency as recorded, and wall time, which has more edges here than in one series."""
    recorder = Recorder(engine, 1)
    recorder.run(iter(batches), until_ns=0, min_calls=LEAD_IN_CALLS)
    source = iter(batches)
    begin_ns = time.perf_counter_ns()
    recorder.run(source, until_ns=0, min_calls=CALLS_PER_BLOCK)
    wall_ns = time.perf_counter_ns() - begin_ns
    latency_ns = recorder.timings().latency_ns[LEAD_IN_CALLS:]
    return float(latency_ns.mean()) / 1e3, wall_ns / CALLS_PER_BLOCK / 1e3


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print(measure(arguments.turns, arguments.threads))
