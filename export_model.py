#!/usr/bin/env python3
"""Turn a checkpoint into files for deployment, and prove that they answer as it does before they appear."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.command import new_parser, print_json, run
from common.console import Console, format_bytes
from common.exits import Exit, UsageError
from common.loading import loading
from common.signals import StopSignals

if TYPE_CHECKING:
    from common.export.pipeline import ExportedFile, ExportRequest

EXAMPLES = """\
  python export_model.py --checkpoint checkpoints/production/final_model_best.pt --format onnx \\
    --output models/production_model.onnx
  python export_model.py --checkpoint checkpoints/production/final_model_best.pt --format torchscript \\
    --output models/production_model.pt
  python export_model.py --checkpoint checkpoints/production/final_model_best.pt --format onnx --quantize int8 \\
    --output models/production_model_quantized.onnx
  python export_model.py --checkpoint best_model.pt --format onnx torchscript pt2 --output models/model
"""
FORMAT_NAMES = ("onnx", "torchscript", "pt2")
INT8_METHODS = ("auto", "static", "dynamic")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = new_parser(
        "Export a trained model to ONNX, TorchScript or torch.export files, quantised where asked for. Every file is "
        "compared with the checkpoint on the whole test set first; one that differs is never written. Exit code 0: "
        "written; 1: it differs, cannot be exported, or the checkpoint is damaged; 3: no checkpoint of this trainer.",
        EXAMPLES,
    )
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="FILE", help="a .pt file of a training run")
    parser.add_argument(
        "--format", nargs="+", choices=FORMAT_NAMES, default=["onnx"], help="one or several (default: onnx)"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE",
        help="the file to write; with several formats each gets its own ending (.onnx, .pt, .pt2)",
    )  # fmt: skip
    parser.add_argument("--opset", type=int, default=17, metavar="N", help="ONNX opset, 13 to 20 (default: 17)")
    _add_quantisation(parser)
    _add_verification(parser)
    return parser


def _add_quantisation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("quantisation")
    group.add_argument("--quantize", choices=("int8", "fp16"), help="smaller numbers: int8 (ONNX only) or fp16")
    group.add_argument(
        "--int8-method", choices=INT8_METHODS, default="auto",
        help="static: calibrated; dynamic: scales taken from each batch; auto (default): static for convolutional "
        "networks, dynamic for the rest",
    )  # fmt: skip
    group.add_argument(
        "--calibration-data", type=Path, metavar="PATH",
        help="folder of class folders, .npz, .csv or .parquet (default: the training split)",
    )  # fmt: skip
    group.add_argument(
        "--calibration-samples", type=int, default=512, metavar="N",
        help="how many of them, drawn by a fixed seed, 128 or more (default: 512)",
    )  # fmt: skip
    group.add_argument(
        "--reduce-range", action=argparse.BooleanOptionalAction,
        help="7-bit weights, for CPUs without 8-bit dot products (default: as this CPU needs it)",
    )  # fmt: skip


def _add_verification(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("verification and measurement")
    group.add_argument(
        "--verify-data", type=Path, metavar="PATH",
        help="folder of class folders, .npz, .csv or .parquet (default: the training's test split, else validation)",
    )  # fmt: skip
    group.add_argument(
        "--tolerance", type=float, metavar="X",
        help="fp32: largest difference of logits (default: 1e-4); int8, fp16: points of accuracy that may be lost "
        "(default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--speed-seconds", type=float, default=1.0, metavar="S",
        help="how long each model is timed on one core, at batch size 1 (default: 1)",
    )  # fmt: skip


def program(args: argparse.Namespace) -> Exit:
    """Export; being asked to stop leaves nothing unfinished behind."""
    with StopSignals():
        return _export(args)


def _export(args: argparse.Namespace) -> Exit:
    """Export, then say what was written and how it compares."""
    request = _request(args)
    console = Console(quiet=args.quiet, as_json=args.json)

    with loading():
        from common.export.guide import write_guide
        from common.export.pipeline import export
        from common.export.report import report_paths, write_reports

    result = export(request, console)
    documents = write_reports(result)
    guide = write_guide(request.output.parent, documents, request.checkpoint)
    for file in result.files:
        _show(file, console)
        console.info(f"Report: {report_paths(file.path)[1]}")
    console.info(f"Guide: {guide}")
    console.info(f"Next: python test_inference.py --model {result.files[0].path} --test-data data/test/ --batch-size 1")
    if args.json:
        files = [{"path": str(file.path), **document} for file, document in zip(result.files, documents, strict=True)]
        print_json({"files": files, "guide": str(guide)})
    return Exit.DONE


def _request(args: argparse.Namespace) -> ExportRequest:
    """Raises UsageError for numbers that make no sense."""
    if args.tolerance is not None and not 0 <= args.tolerance < float("inf"):
        raise UsageError(f"must be 0 or more, not {args.tolerance}", field="--tolerance")
    if not 0 <= args.speed_seconds <= 3600:
        raise UsageError(f"must be from 0 to 3600, not {args.speed_seconds}", field="--speed-seconds")
    if args.calibration_samples < 128:
        raise UsageError(f"must be 128 or more, not {args.calibration_samples}", field="--calibration-samples")

    from common.export.pipeline import ExportRequest

    return ExportRequest(
        checkpoint=args.checkpoint,
        output=args.output,
        formats=tuple(args.format),
        opset=args.opset,
        precision=args.quantize or "fp32",
        int8_method=args.int8_method,
        reduce_range=args.reduce_range,
        calibration_data=args.calibration_data,
        calibration_samples=args.calibration_samples,
        verify_data=args.verify_data,
        tolerance=args.tolerance,
        speed_s=args.speed_seconds,
    )


def _show(file: ExportedFile, console: Console) -> None:
    metadata, check = file.metadata, file.verification
    opset = "" if metadata.opset is None else f" opset {metadata.opset}"
    size = format_bytes(file.size_bytes)
    if file.fp32_size_bytes is not None:
        size += f", {100 * file.size_bytes / file.fp32_size_bytes:.0f}% of fp32"
    console.result(f"Exported: {file.path} ({file.format}{opset}, {metadata.precision}, {size})")
    accuracy = ""
    if check.labelled:
        accuracy = f"accuracy {check.exported_acc:.2f}% (checkpoint {check.reference_acc:.2f}%), "
    console.result(
        f"Verified: {accuracy}agreement {check.agreement_pct:.2f}%, logits within {check.max_logit_difference:.1e}, "
        f"on {check.num_samples} samples ({check.data})"
    )
    console.result(f"Speed: {file.speed.median_ms:.3f} ms a sample on one core, {file.speed.verdict}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(program, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
