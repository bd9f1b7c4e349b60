"""One export from beginning to end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.console import Console
from common.exits import CheckFailedError
from common.export.building import Calibration, Candidate, Quantize, build, check_combination
from common.export.evaluation_data import (
    LabelledInputs,
    TrainingData,
    calibration_batches,
    verification_inputs,
)
from common.export.formats import FORMATS, output_paths
from common.export.onnx_format import DEFAULT_OPSET, check_opset
from common.export.source import ExportSource, load_source
from common.export.speed import Speed, measure_speed
from common.export.verification import Outputs, Verification, run_over, verify
from common.export.workspace import publish, workspace
from common.inference.engines import Engine, open_model
from common.inference.torch_engines import TorchEngine
from common.manifest import sha256_of_file
from common.model_metadata import ModelMetadata

DEFAULT_CALIBRATION_SAMPLES = 512
MIN_CALIBRATION_SAMPLES = 128
EAGER = "the checkpoint in PyTorch"


@dataclass(frozen=True)
class ExportRequest:
    """What is asked for; see ``export_model.py --help``."""

    checkpoint: Path
    output: Path
    formats: tuple[str, ...]
    opset: int = DEFAULT_OPSET
    precision: str = "fp32"
    int8_method: str = "auto"
    reduce_range: bool | None = None
    calibration_data: Path | None = None
    calibration_samples: int = DEFAULT_CALIBRATION_SAMPLES
    verify_data: Path | None = None
    tolerance: float | None = None
    speed_s: float = 1.0
    seed: int = 42


@dataclass(frozen=True)
class ExportedFile:
    """A file in place. ``fp32_size_bytes`` is that of the same model unquantised; None for fp32."""

    path: Path
    format: str
    metadata: ModelMetadata
    size_bytes: int
    sha256: str
    fp32_size_bytes: int | None
    quantization: dict[str, Any] | None
    verification: Verification
    speed: Speed


@dataclass(frozen=True)
class ExportResult:
    """All files of one export, and what the user should know about it."""

    source: ExportSource
    files: tuple[ExportedFile, ...]
    notices: tuple[str, ...]


def export(request: ExportRequest, console: Console) -> ExportResult:
    """Export, verify, measure, and only then put the files in place: all of them or none.

    Raises:
        CheckFailedError: a file does not answer as the checkpoint does, or the model cannot be written in a format.
        UsageError, InputFileError, EnvironmentLackError: as their messages say.
    """
    check_opset(request.opset)
    check_combination(request.formats, request.precision)
    paths = output_paths(request.output, request.formats)
    with workspace(paths, request.checkpoint) as folder, _threads_kept() as num_threads:
        source = load_source(request.checkpoint)
        training_data = TrainingData(source)
        inputs = verification_inputs(source, training_data, request.verify_data)
        notices = _notices(request, training_data, inputs)
        for notice in notices:
            console.warning(notice)
        checkpoint = _eager_engine(source, num_threads)
        reference = run_over(checkpoint, inputs)
        if inputs.is_test:
            source = source.with_test_accuracy(reference.accuracy_pct(inputs.labels))
        quantize = Quantize(
            request.precision,
            request.int8_method,
            request.reduce_range,
            lambda: _calibration(request, source, training_data, console),
        )
        candidates = []
        for name in request.formats:
            console.info(f"writing {FORMATS[name].title} in {request.precision}")
            candidates.append(build(source, name, request.opset, quantize, folder))
        verifications = _verified(candidates, inputs, reference, request, num_threads, console)
        speeds = _speeds(candidates, source, inputs, request.speed_s, console)
        files = tuple(
            _finished(candidate, paths[candidate.format], verification, speeds[candidate.format])
            for candidate, verification in zip(candidates, verifications, strict=True)
        )
        publish({candidate.path: paths[candidate.format] for candidate in candidates})
    return ExportResult(source, files, tuple(notices))


def _notices(request: ExportRequest, training_data: TrainingData, inputs: LabelledInputs) -> list[str]:
    notices = []
    if not inputs.labelled:
        notices.append(
            f"no test data ({training_data.problem}): verified on {inputs.description}, which say nothing about "
            "accuracy; name real data with --verify-data"
        )
    elif not inputs.is_test:
        notices.append(f"there is no test split: verified on {inputs.description}, which chose the checkpoint")
    if request.verify_data is not None and request.calibration_data == request.verify_data:
        notices.append("calibrated and verified on the same data: the accuracy after quantisation may look too good")
    return notices


def _calibration(
    request: ExportRequest, source: ExportSource, training_data: TrainingData, console: Console
) -> Calibration:
    description, batches = calibration_batches(
        source, training_data, request.calibration_data, request.calibration_samples, request.seed
    )
    if sum(map(len, batches)) < MIN_CALIBRATION_SAMPLES:
        console.warning(f"calibrated on {description} only; {MIN_CALIBRATION_SAMPLES} or more are better")
    return description, batches


def _verified(
    candidates: Sequence[Candidate],
    inputs: LabelledInputs,
    reference: Outputs,
    request: ExportRequest,
    num_threads: int,
    console: Console,
) -> list[Verification]:
    verifications = []
    for candidate in candidates:
        console.info(f"verifying {FORMATS[candidate.format].title} on {inputs.num_samples} samples")
        verification = verify(
            candidate.path, candidate.metadata, inputs, reference,
            tolerance=request.tolerance, num_threads=num_threads,
        )  # fmt: skip
        if not verification.passed:
            raise CheckFailedError(
                f"the {FORMATS[candidate.format].title} export in {candidate.metadata.precision} does not answer as "
                f"the checkpoint does, on {verification.data}: {'; '.join(verification.problems)}",
                path=request.checkpoint,
                hint="nothing was written; --tolerance allows more where that is meant",
            )
        verifications.append(verification)
    return verifications


def _speeds(
    candidates: Sequence[Candidate], source: ExportSource, inputs: LabelledInputs, duration_s: float, console: Console
) -> dict[str, Speed]:
    """One core, batch 1: quantised files against the same file in fp32, fp32 files against the checkpoint."""
    console.info("measuring speed on one core")
    baselines: dict[str, Engine] = {}
    models: dict[str, tuple[Engine, str]] = {}
    for candidate in candidates:
        baseline = EAGER if candidate.fp32 is None else f"{FORMATS[candidate.format].title} in fp32"
        if baseline not in baselines:
            fp32 = candidate.fp32
            baselines[baseline] = _eager_engine(source, 1) if fp32 is None else open_model(fp32, "cpu", 1)
        models[candidate.format] = (open_model(candidate.path, "cpu", 1), baseline)
    order = torch.arange(min(64, inputs.num_samples))
    samples = list(inputs.batches(source.metadata.preprocessing, order, batch_size=1))
    return measure_speed(models, baselines, samples, duration_s=duration_s)


def _finished(candidate: Candidate, path: Path, verification: Verification, speed: Speed) -> ExportedFile:
    return ExportedFile(
        path=path,
        format=candidate.format,
        metadata=candidate.metadata,
        size_bytes=candidate.path.stat().st_size,
        sha256=sha256_of_file(candidate.path),
        fp32_size_bytes=None if candidate.fp32 is None else candidate.fp32.stat().st_size,
        quantization=candidate.quantization,
        verification=verification,
        speed=speed,
    )


def _eager_engine(source: ExportSource, num_threads: int) -> TorchEngine:
    return TorchEngine(source.path, source.model, source.metadata, torch.device("cpu"), num_threads)


@contextmanager
def _threads_kept() -> Iterator[int]:
    """PyTorch's number of threads, which opening models with another number changes for the whole process."""
    num_threads = torch.get_num_threads()
    try:
        yield num_threads
    finally:
        torch.set_num_threads(num_threads)
