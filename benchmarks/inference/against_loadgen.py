"""p50 and p99 beside MLPerf LoadGen's, on the same session: ``python -m benchmarks.inference.against_loadgen``.

LoadGen (single stream) and the harness take turns, several runs each, on the same ONNX Runtime session and the same
inputs. LoadGen is no requirement of this project: ``pip install mlcommons-loadgen``.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
from pathlib import Path

from benchmarks.inference.models import inputs, small_cnn
from common import markdown
from common.inference.contention import StealWatch, contention_of
from common.inference.percentiles import percentile
from common.inference.timing import closed_loop, warm_up

REPORTED_NS = re.compile(r"^(50|99)\.00 percentile latency \(ns\)\s*:\s*(\d+)", re.MULTILINE)


def loadgen_run(engine, batches, duration_s: float, folder: Path) -> dict[str, float]:
    """One single-stream test; p50 and p99 in ms as LoadGen's own summary has them."""
    import mlperf_loadgen as loadgen

    def issue(queries) -> None:
        for query in queries:
            engine(batches[query.index])
            # No answer is handed over: LoadGen keeps none in this mode, and wrapping it would be timed.
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query.id, 0, 0)])

    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.SingleStream
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(1e3 * duration_s)
    settings.min_query_count = 1000
    log = loadgen.LogSettings()
    log.enable_trace = False
    log.log_output.outdir = str(folder)
    under_test = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(len(batches), len(batches), lambda _: None, lambda _: None)
    loadgen.StartTestWithLogSettings(under_test, library, settings, log)
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(under_test)
    summary = (folder / "mlperf_log_summary.txt").read_text()
    return {f"p{pct}": int(value) / 1e6 for pct, value in REPORTED_NS.findall(summary)}


def harness_run(engine, batches, duration_s: float) -> dict[str, float | str]:
    """One series of the harness; p50 and p99 in ms, and whether it was disturbed."""
    watch = StealWatch()
    timings = closed_loop(engine, batches, duration_s=duration_s, min_calls=1000)
    verdict = contention_of(timings, watch.steal_pct(), never_idle=True).verdict
    values = {f"p{pct}": percentile(timings.latency_ms, pct).value_ms for pct in (50, 99)}
    return {**values, "verdict": verdict}


def compare(runs: int, duration_s: float, num_threads: int) -> str:
    """A Markdown table: median and range over the runs of each, and the ratio of the medians."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as name:
        engine = small_cnn(Path(name) / "model.onnx", num_threads)
        batches = inputs()
        warm_up(engine, batches)
        for number in range(runs):
            sides = [lambda: ours.append(harness_run(engine, batches, duration_s)),
                     lambda: theirs.append(loadgen_run(engine, batches, duration_s, Path(name)))]  # fmt: skip
            for side in sides if number % 2 == 0 else sides[::-1]:
                side()
    rows = [_row(key, [run[key] for run in ours], [run[key] for run in theirs]) for key in ("p50", "p99")]
    clean = sum(run["verdict"] == "clean" for run in ours)
    table = markdown.table(["Latency", "harness, ms (range)", "LoadGen, ms (range)", "ratio of medians"], rows)
    return f"{table}\n\n{clean} of {runs} runs of the harness were clean."


def _row(name: str, ours: list[float], theirs: list[float]) -> list[str]:
    cells = [f"{statistics.median(side):.4f} ({min(side):.4f} to {max(side):.4f})" for side in (ours, theirs)]
    return [name, *cells, f"{statistics.median(ours) / statistics.median(theirs):.3f}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--duration", type=float, default=5.0, help="seconds per run")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print(compare(arguments.runs, arguments.duration, arguments.threads))
