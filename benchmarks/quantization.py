#!/usr/bin/env python3
"""What quantisation brings, by architecture and method: size, speed at batch 1 on one core, and what it changes.

Networks are trained for a few passes over the bundled digits, exported, quantised in every way, and timed in turns, so
that what else the machine does hits all alike. Lost accuracy is of the test split, in points.

    python benchmarks/quantization.py                        # all architectures
    python benchmarks/quantization.py --case resnet18 --seconds 3
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import markdown
from common.data import Dataset, load_dataset
from common.export.evaluation_data import LabelledInputs
from common.export.onnx_format import DEFAULT_OPSET, onnx_model, serialized
from common.export.quantization import Int8Plan, to_fp16, to_int8
from common.export.source import ExportSource
from common.export.speed import measure_speed
from common.export.verification import run_over
from common.inference.engines import open_model
from common.model_metadata import ModelMetadata
from common.models import build_model, count_parameters
from common.run_folder import RunFolder

FP32 = "fp32"


@dataclass(frozen=True)
class Case:
    """What is trained, at which size of image, for how many passes."""

    architecture: str
    image_size: int
    epochs: int
    arguments: dict[str, Any]


CASES = {
    "cnn8": Case("simple_cnn", 8, 5, {}),
    "cnn32": Case("simple_cnn", 32, 3, {}),
    "cnn64": Case("simple_cnn", 64, 2, {}),
    "resnet18": Case("resnet18", 32, 1, {}),
    "transformer": Case("small_transformer", 8, 5, {}),
    "mlp": Case("simple_mlp", 8, 5, {"hidden_dims": [512, 512]}),
}


def trained(case: Case, dataset: Dataset) -> nn.Module:
    """The case's network after its passes over the training split, in eval mode."""
    torch.manual_seed(0)
    model = build_model(
        case.architecture, input_shape=dataset.input_shape, num_classes=dataset.num_classes, **case.arguments
    )
    split = dataset.splits["train"]
    inputs, optimizer = dataset.normalizer()(split.inputs), torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(case.epochs):
        for indices in torch.randperm(split.num_samples).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs[indices]), split.labels[indices]).backward()
            optimizer.step()
    return model.eval()


def exportable(case: Case, dataset: Dataset) -> ExportSource:
    """The trained network as the exporter wants it."""
    model = trained(case, dataset)
    spec = {
        "architecture": case.architecture,
        "input_shape": list(dataset.input_shape),
        "class_names": dataset.class_names,
        "preprocessing": dataset.preprocessing(),
        "num_parameters": count_parameters(model),
    }
    return ExportSource(Path(case.architecture), model, ModelMetadata(spec, ""), {}, RunFolder(Path()))


def variants(calibration: list) -> dict[str, tuple[str, Callable]]:
    """By name: the precision, and what makes it of an fp32 graph."""

    def int8(method: str, reduce_range: bool = False) -> Callable:
        return lambda proto: to_int8(proto, Int8Plan(method, reduce_range), calibration)

    return {
        FP32: ("fp32", lambda proto: proto),
        "int8 static": ("int8", int8("static")),
        "int8 static, reduced range": ("int8", int8("static", reduce_range=True)),
        "int8 dynamic": ("int8", int8("dynamic")),
        "fp16": ("fp16", to_fp16),
    }


def rows_of(name: str, seconds: float, folder: Path) -> list[tuple[str, ...]]:
    """One row of the table per variant of the case ``name``."""
    case = CASES[name]
    dataset = load_dataset("digits", image_size=case.image_size, write_files=False)
    source = exportable(case, dataset)
    preprocessing = dataset.preprocessing()
    training, test = (LabelledInputs(split, dataset.splits[split]) for split in ("train", "test"))
    chosen = torch.arange(0, training.num_samples, 5)
    engines = {}
    for variant, (precision, convert) in variants(list(training.batches(preprocessing, chosen))).items():
        proto = convert(onnx_model(source, source.model, DEFAULT_OPSET))
        path = folder / f"{name} {variant}.onnx"
        path.write_bytes(serialized(proto, replace(source.metadata, precision=precision, opset=DEFAULT_OPSET)))
        engines[variant] = open_model(path, "cpu", 1)
    outputs = {variant: run_over(engine, test) for variant, engine in engines.items()}
    models = {variant: (engine, FP32) for variant, engine in engines.items() if variant != FP32}
    samples = list(test.batches(preprocessing, torch.arange(64), batch_size=1))
    speeds = measure_speed(models, {FP32: engines[FP32]}, samples, duration_s=seconds)
    full = outputs[FP32]
    rows = []
    for variant, speed in speeds.items():
        sizes = [engines[each].path.stat().st_size for each in (variant, FP32)]
        lost = full.accuracy_pct(test.labels) - outputs[variant].accuracy_pct(test.labels)
        rows.append(
            (
                f"{name} ({count_parameters(source.model):,})", variant, f"{100 * sizes[0] / sizes[1]:.0f}%",
                f"{speed.baseline_ms:.3f}", f"{speed.median_ms:.3f}",
                f"{speed.speedup:.2f} ({speed.low:.2f} to {speed.high:.2f})", f"{lost:.2f}",
                f"{abs(full.logits_NC - outputs[variant].logits_NC).max():.1e}",
            )
        )  # fmt: skip
    return rows


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seconds", type=float, default=2.0, help="of calls of each model (default: 2)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    header = ["Network (parameters)", "Variant", "Size", "fp32 ms", "ms", "Times as fast", "Lost", "Logits within"]
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in args.case for row in rows_of(name, args.seconds, Path(folder))]
    print(markdown.table(header, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
