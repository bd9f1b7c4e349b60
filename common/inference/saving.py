"""What a measurement leaves behind, so that others can check it: the result, every single time, the environment."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import atomic
from common.environment import collect_environment
from common.inference.measurement import Measurement

RESULT, SAMPLES, ENVIRONMENT = "inference.json", "samples.npz", "environment.json"


def save(
    folder: Path, document: dict[str, Any], measurements: Sequence[Measurement], names: Sequence[str],
    command_line: Sequence[str],
) -> None:  # fmt: skip
    """Write ``inference.json``, ``samples.npz`` and ``environment.json`` into ``folder``, each in one step.

    Args:
        names: one per measurement, which its arrays' names begin with.
    Raises:
        OSError: they cannot be written.
    """
    first = measurements[0]
    environment = collect_environment(
        device=first.engine.device,
        command_line=command_line,
        dataset_fingerprint=first.requests.dataset.fingerprint,
        num_threads=first.engine.num_threads,
        deterministic=False,
        precision=first.engine.metadata.precision,
    )
    arrays: dict[str, np.ndarray] = {}
    for name, measurement in zip(names, measurements, strict=True):
        arrays.update({f"{name}_{key}": value for key, value in sample_arrays(measurement).items()})
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    atomic.write_bytes(folder / SAMPLES, buffer.getbuffer())
    atomic.write_text(folder / ENVIRONMENT, _json(environment))
    atomic.write_text(folder / RESULT, _json(document))


def sample_arrays(measurement: Measurement) -> dict[str, np.ndarray]:
    """Every call in order, in ns, and every answer; see ``Timings``, ``EndToEnd`` and ``Accuracy``."""
    timings, end_to_end = measurement.timings, measurement.end_to_end
    return {
        "started_ns": timings.started_ns,
        "latency_ns": timings.latency_ns,
        "model_ns": timings.model_ns,
        "preemptions": timings.preemptions,
        "end_to_end_ns": end_to_end.latency_ns,
        "prepare_ns": end_to_end.prepare_ns,
        "predictions": measurement.accuracy.predictions_N,
        "labels": measurement.requests.labels,
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
