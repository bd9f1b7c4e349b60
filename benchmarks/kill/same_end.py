"""Whether two runs ended alike, to the last bit of everything but when and how fast they ran."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from common import manifest

# When a run took place, for how long, and how busy the machine was meanwhile.
TIMES = {
    "started_at", "finished_at", "duration_s", "elapsed_s", "time_s", "data_time_s", "samples_per_s", "cpu_util",
    "gpu_util", "gpu_mem_gb", "gpu_temperature_c", "gpu_power_w", "gpu_energy_j",
}  # fmt: skip
# Files in which an interruption may be read, or whose text has times in it; their presence is compared all the same.
TELLS_TIMES = {".run.lock", "training.log", "environment.json", "baseline_results.md", "optimization_results.md",
               "production_results.md", "metrics.json", "manifest.json"}  # fmt: skip


def differences(run: Path, whole: Path, *, ignored_events: tuple[str, ...] = ()) -> list[str]:
    """What distinguishes ``run`` from ``whole``, the folder of a run that was never disturbed; empty if nothing does.

    Compared are the names of all files but TensorBoard's; the bytes of each file without times in it; metrics.json and
    every checkpoint without their times, tensors to the last bit; and that the manifest fits the checkpoints.

    Args:
        ignored_events: kinds of events that only ``run`` may have in its metrics and checkpoints.
    """
    found = [*_different_names(run, whole), *_unsound(run)]
    both = sorted(_names(run) & _names(whole))
    for name in both:
        one, other = run / name, whole / name
        if name.endswith(".pt"):
            found += _different_values(_checkpoint(one, ignored_events), _checkpoint(other, ignored_events), name)
        elif one.name not in TELLS_TIMES and one.read_bytes() != other.read_bytes():
            found.append(f"{name}: other bytes")
    metrics = [_without(json.loads((path / "metrics.json").read_text()), ignored_events) for path in (run, whole)]
    return found + list(_different_values(*metrics, "metrics.json"))


def _names(run: Path) -> set[str]:
    names = {str(path.relative_to(run)) for path in run.rglob("*") if not path.is_dir()}
    return {name for name in names if not name.startswith("tensorboard/")}


def _different_names(run: Path, whole: Path) -> Iterator[str]:
    names, expected = _names(run), _names(whole)
    yield from (f"{name}: should not be there" for name in sorted(names - expected))
    yield from (f"{name}: is missing" for name in sorted(expected - names))


def _unsound(run: Path) -> Iterator[str]:
    """Checkpoints and manifest that do not fit each other."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return
    entries = manifest.read_manifest(folder)
    files = {path.name: path for path in manifest.checkpoint_files(folder)}
    if set(entries) != set(files):
        yield f"manifest.json lists {sorted(entries)}, there are {sorted(files)}"
    for name in sorted(set(entries) & set(files)):
        if manifest.sha256_of_file(files[name]) != entries[name].sha256:
            yield f"{name}: its SHA-256 is not the one in manifest.json"


def _checkpoint(path: Path, ignored_events: tuple[str, ...]) -> Any:
    return _without(torch.load(path, map_location="cpu", weights_only=True), ignored_events)


def _without(value: Any, ignored_events: tuple[str, ...]) -> Any:
    """The same nested value without times and without the events to be ignored."""
    if isinstance(value, Mapping):
        return {key: _without(inner, ignored_events) for key, inner in value.items() if key not in TIMES}
    if isinstance(value, (list, tuple)):
        return [_without(inner, ignored_events) for inner in value
                if not (isinstance(inner, Mapping) and inner.get("kind") in ignored_events)]  # fmt: skip
    if isinstance(value, str) and value.startswith(("[", "{")):  # records that a checkpoint holds as JSON text
        with contextlib.suppress(ValueError):
            return _without(json.loads(value), ignored_events)
    return value


def _different_values(one: Any, other: Any, where: str) -> Iterator[str]:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if _described(one) != _described(other):
            yield f"{where}: another tensor"
    elif isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            yield f"{where}: has {list(one)}, not {list(other)}"
        for key in one.keys() & other.keys():
            yield from _different_values(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{where}: {len(one)} items, not {len(other)}"
        for number, (item, expected) in enumerate(zip(one, other, strict=False)):
            yield from _different_values(item, expected, f"{where}[{number}]")
    elif repr(one) != repr(other):  # so that NaN is NaN, and 0.0 is not -0.0
        yield f"{where}: {one!r}, not {other!r}"


def _described(tensor: torch.Tensor) -> tuple:
    flat = tensor.contiguous().view(-1)
    return tensor.dtype, tensor.shape, flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
