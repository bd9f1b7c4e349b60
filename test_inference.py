#!/usr/bin/env python3
"""Measure how fast and how accurately a model answers, on real test data."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common import command
from common.exits import EnvironmentLackError, Exit, UsageError
from common.loading import loading

if TYPE_CHECKING:
    from common.console import Console
    from common.inference.session import SessionResult

EXAMPLES = """\
  python test_inference.py --model models/production_model.onnx --test-data data/test/ --batch-size 1 --device cuda
  python test_inference.py --model checkpoints/production/final_model_best.pt --batch-size 1 8 32 --plot latency.png
  python test_inference.py --model models/production_model.onnx --rate 200 --duration 30
  python test_inference.py --model models/production_model.onnx --max-latency-ms 50 --min-accuracy 80 --json
  python test_inference.py --model models/production_model_quantized.onnx --compare models/production_model.onnx

Latency is that of one call of the model from inputs in memory to logits in memory; end-to-end times, from the stored
sample to the class, stand apart. Every percentile has enough samples for 99% confidence or none is given.
TorchScript and .pt2 files are programs: opening one runs what its author put into it. Open only those you trust.
exit codes: 0 measured, 1 a requirement is missed or not proven, 2 wrong usage, 3 unreadable model or data,
  4 no CUDA, no runtime, or the output cannot be written, 5 out of memory"""


def make_parser() -> argparse.ArgumentParser:
    parser = command.new_parser(__doc__, EXAMPLES)
    parser.add_argument("--model", type=Path, required=True, metavar="FILE",
                        help="an ONNX, TorchScript or .pt2 model, or a checkpoint")  # fmt: skip
    parser.add_argument("--test-data", type=Path, default=Path("data/test"), metavar="PATH",
                        help="image folders named after the classes, .npz, .csv or .parquet (data/test/)")  # fmt: skip
    parser.add_argument("--batch-size", type=positive_count, nargs="+", default=[1], metavar="N",
                        help="samples per call; several make a table (default: 1)")  # fmt: skip
    parser.add_argument("--device", default="auto", metavar="DEVICE",
                        help="cpu, cuda, cuda:N or auto (the default); cuda never falls back to the CPU")  # fmt: skip
    parser.add_argument("--threads", type=positive_count, metavar="N",
                        help="threads of one call on the CPU (default: the CPUs this process may use)")  # fmt: skip
    parser.add_argument("--duration", type=positive_number, default=5.0, metavar="SECONDS",
                        help="of the timed calls; up to ten times that where p99 needs it (%(default)g)")  # fmt: skip
    parser.add_argument("--rate", type=positive_number, metavar="PER_SECOND",
                        help="requests arrive at this rate at random, and latency counts from arrival")  # fmt: skip
    parser.add_argument("--compare", type=Path, metavar="FILE", help="a second model, measured in turns with the first")
    parser.add_argument("--max-latency-ms", type=positive_number, metavar="MS",
                        help="exit code 1 unless p99 is at most this with 99%% confidence")  # fmt: skip
    parser.add_argument("--min-accuracy", type=percentage, metavar="PERCENT",
                        help="exit code 1 unless the test accuracy is at least this, such as 82.5")  # fmt: skip
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="histogram and timeline of the latency")
    parser.add_argument("--output", type=Path, metavar="FOLDER",
                        help="keep the result, every single time and the environment there")  # fmt: skip
    return parser


def program(args: argparse.Namespace) -> Exit:
    """Measure, show and keep what was asked for; the exit code says whether the requirements are met."""
    check_usage(args)
    # Imported here, so that --help and a wrong flag answer at once.
    with loading():
        from common.console import Console
        from common.inference.session import SessionRequest, run_session

    with Console(quiet=args.quiet, as_json=args.json) as console:
        prepare_outputs(args)
        request = SessionRequest(
            model=args.model, compare=args.compare, test_data=args.test_data, batch_sizes=tuple(args.batch_size),
            device=args.device, num_threads=args.threads, duration_s=args.duration, rate_per_s=args.rate,
            max_latency_ms=args.max_latency_ms, min_accuracy_pct=args.min_accuracy,
        )  # fmt: skip
        result = run_session(request, console)
        show(result, args, console)
        keep(result, args, console)
    return Exit.DONE if all(gate.verdict == "met" for gate in result.gates) else Exit.NO


def positive_count(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def positive_number(text: str) -> float:
    """A finite number above zero."""
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def percentage(text: str) -> float:
    """0, or more than 1 to 100: what lies between is a fraction by mistake."""
    value = float(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not a percentage from 0 to 100")
    if 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} percent is hardly meant; write {100 * value:g} for {text}")
    return value


def check_usage(args: argparse.Namespace) -> None:
    """Raises UsageError for what contradicts itself, before anything is loaded."""
    if args.compare is not None and args.rate is not None:
        raise UsageError("two models in turns cannot keep a schedule", field="--rate", hint="leave out --compare")
    if len(set(args.batch_size)) < len(args.batch_size):
        raise UsageError("names a size twice", field="--batch-size")
    if args.plot is not None and args.plot.suffix.lower() != ".png":
        raise UsageError("is not the name of a PNG file", path=args.plot, field="--plot", hint="end it in .png")


def prepare_outputs(args: argparse.Namespace) -> None:
    """Make the folders for the results now: nobody wants to learn after the measurement that they cannot be.

    Raises:
        EnvironmentLackError: one cannot be made.
    """
    folders = {"--output": args.output, "--plot": args.plot and args.plot.parent}
    for field, folder in folders.items():
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentLackError(f"cannot be made ({error.strerror})", path=folder, field=field) from error


def show(result: SessionResult, args: argparse.Namespace, console: Console) -> None:
    """The documented block (for several batch sizes the table), what stands behind it, and the requirements."""
    from common.inference import report

    single = len(result.measurements) == 1
    if single:
        lines = report.documented_block(result.measurements[0])
    else:
        lines = [report.TITLE, "", report.batch_size_table(result.measurements)]
    first = result.measurements[0]
    for measurement in result.measurements:
        lines += report.overload_lines(measurement)
    if not args.quiet:
        lines += ["", *report.model_lines(first.engine), *report.test_data_lines(first, args.test_data)]
        for measurement in result.measurements:
            lines += ["", *report.details(measurement)]
    for comparison in result.comparisons:
        lines += ["", *report.comparison_lines(comparison)]
    if result.gates:
        lines += ["", *(report.gate_line(gate, several=not single) for gate in result.gates)]
    for line in lines:
        console.result(line)
    if args.json:
        command.print_json(result.document(args.test_data))


def keep(result: SessionResult, args: argparse.Namespace, console: Console) -> None:
    """Write what ``--plot`` and ``--output`` asked for.

    Raises:
        EnvironmentLackError: it cannot be written.
    """
    from common.inference.picture import plot_latency
    from common.inference.saving import save

    everything, names = result.all_measurements(), result.names()
    try:
        if args.plot is not None:
            other = f", other: {args.compare.name}" if args.compare else ""
            plot_latency(everything, names, args.plot, f"Latency: {args.model.name}{other}")
            console.info(f"Picture: {args.plot}")
        if args.output is not None:
            keys = [name.replace(" ", "_") for name in names]
            save(args.output, result.document(args.test_data), everything, keys, sys.argv)
            console.info(f"Result, samples and environment: {args.output}")
    except OSError as error:
        raise EnvironmentLackError(f"cannot be written ({error.strerror})", path=error.filename) from error


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(program, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
