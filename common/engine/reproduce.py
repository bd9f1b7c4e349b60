"""Training a past run again beside itself, and finding the first place where the two part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from common.checkpoints import load_checkpoint
from common.config import LoadedConfig, load_config
from common.console import Console
from common.engine.run import train
from common.engine.session import RunRequest
from common.engine.startup import reasons_for_doubt
from common.environment import exactness_fingerprint, fingerprint_differences
from common.exits import InputFileError, UsageError
from common.manifest import read_manifest
from common.metrics_file import read_metrics
from common.run_folder import RunFolder
from common.signals import StopSignals
from common.step_trace import read_trace

# What a machine's load changes, and nothing else does.
_TIMES = {"time_s", "data_time_s", "samples_per_s", "cpu_util"}


@dataclass(frozen=True)
class Difference:
    """Where two runs part: the first epoch, and what is known of the step and the weights.

    ``fields`` are the epoch's differing values; ``step`` counts optimizer steps within the epoch from 1, None where no
    trace tells; ``tensor`` is the one with the largest difference in the checkpoints of ``checkpoint_epoch``, the first
    epoch from there on of which both runs kept one.
    """

    epoch: int
    fields: list[str]
    step: int | None
    checkpoint_epoch: int | None = None
    tensor: str | None = None
    max_difference: float | None = None
    num_tensors: int | None = None


def reproduce(
    original: Path,
    console: Console,
    stop: StopSignals,
    *,
    output_dir: Path | None,
    epochs: int | None,
    command_line: list[str],
) -> dict:
    """Run the saved config of ``original`` again and compare epoch by epoch.

    Args:
        output_dir: where the new run goes; None for ``ORIGINAL.reproduced``.
        epochs: replay only the first so many.
    Returns:
        ``{"reproduced": bool, "epochs_identical", "epochs_compared", "difference", "reasons", "folder"}``.
    Raises:
        InputFileError: ``original`` is no run folder, or has no completed epoch.
        UsageError: the new run would go into the original.
    """
    then = RunFolder(original)
    loaded, environment, metrics = _read_run(then)
    now = RunFolder(output_dir or original.with_name(f"{original.resolve().name}.reproduced"))
    if now.path.resolve() == original.resolve():
        raise UsageError("is the run to be reproduced", path=now.path, field="--output-dir")
    count = min(epochs or len(metrics["epochs"]), len(metrics["epochs"]))
    request = RunRequest(
        loaded=loaded,
        mode=environment["identity"]["mode"],
        output_dir=now.path,
        command_line=command_line,
        publish=False,
        stop_after_epochs=count,
    )
    replayed = train(request, console, stop)
    difference = first_difference(then, now, metrics["epochs"][:count], replayed["epochs"])
    return {
        "reproduced": difference is None,
        "epochs_identical": count if difference is None else difference.epoch - 1,
        "epochs_compared": count,
        "difference": None if difference is None else asdict(difference),
        "reasons": [] if difference is None else _reasons(loaded, environment, now),
        "folder": str(now.path),
    }


def verdict_lines(result: Mapping) -> list[str]:
    """The result for people."""
    total = result["epochs_compared"]
    if result["reproduced"]:
        return [f"reproduced: {total}/{total} epochs bit-identical"]
    found = Difference(**result["difference"])
    where = f"epoch {found.epoch}" + (f", step {found.step}" if found.step else "")
    lines = [
        f"not reproduced: {result['epochs_identical']}/{total} epochs bit-identical",
        f"First difference: {where}: {', '.join(found.fields)}",
    ]
    if found.tensor:
        lines.append(
            f"Weights after epoch {found.checkpoint_epoch}: {found.num_tensors} tensors differ, most {found.tensor}, "
            f"by up to {found.max_difference:.3g}"
        )
    return lines + [f"Likely reason: {reason}" for reason in result["reasons"]]


def first_difference(then: RunFolder, now: RunFolder, old: list[dict], new: list[dict]) -> Difference | None:
    """Where two runs of the same config part, or None where every epoch has the same bits."""
    for before, after in zip(old, new, strict=False):
        fields = [key for key in before if key in after and not _is_measured(key) and before[key] != after[key]]
        if fields:
            step = _first_differing_step(then, now, before)
            return Difference(before["num"], fields, step, **_largest_difference(then, now, before["num"]))
    if len(new) < len(old):
        return Difference(len(new) + 1, ["the new run ended earlier"], None)
    return None


def _is_measured(key: str) -> bool:
    return key in _TIMES or key.startswith("gpu_")


def _read_run(folder: RunFolder) -> tuple[LoadedConfig, dict, dict]:
    metrics = read_metrics(folder.metrics)
    if not metrics["epochs"]:
        raise InputFileError("has no completed epoch to compare with", path=folder.path)
    try:
        environment = json.loads(folder.environment.read_text(encoding="utf-8"))
        environment["identity"]["mode"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputFileError(f"cannot be read ({error})", path=folder.environment, hint="give a run folder") from error
    return load_config(folder.config), environment, metrics


def _first_differing_step(then: RunFolder, now: RunFolder, record: Mapping) -> int | None:
    """The first step, within the epoch of ``record``, whose loss or gradient norm has other bits; from 1."""
    num_steps, total = record["num_steps"], record["step"]
    old, new = (read_trace(folder.trace, total).view(np.int64) for folder in (then, now))
    differing = np.flatnonzero((old != new).any(axis=1))
    return None if len(differing) == 0 else int(differing[0]) - (total - num_steps) + 1


def _largest_difference(then: RunFolder, now: RunFolder, epoch: int) -> dict:
    pair = _common_checkpoints(then, now, epoch)
    if pair is None:
        return {}
    old, new = (load_checkpoint(path)["model_state_dict"] for path in pair[1:])
    distances = {name: _distance(old[name], new[name]) for name in old if not torch.equal(old[name], new[name])}
    if not distances:
        return {}
    tensor = max(distances, key=distances.__getitem__)
    return {
        "checkpoint_epoch": pair[0],
        "tensor": tensor,
        "max_difference": distances[tensor],
        "num_tensors": len(distances),
    }


def _common_checkpoints(then: RunFolder, now: RunFolder, epoch: int) -> tuple[int, Path, Path] | None:
    """The first epoch from ``epoch`` on of which both runs keep a checkpoint, and the two files."""
    by_epoch = []
    for folder in (then, now):
        entries = read_manifest(folder.checkpoints)
        by_epoch.append({entry.epoch: folder.checkpoints / name for name, entry in entries.items()})
    common = sorted(number for number in by_epoch[0] if number >= epoch and number in by_epoch[1])
    return (common[0], by_epoch[0][common[0]], by_epoch[1][common[0]]) if common else None


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.double() - b.double()).abs().max().item() if a.shape == b.shape else float("inf")


def _reasons(loaded: LoadedConfig, environment: Mapping, now: RunFolder) -> list[str]:
    current = json.loads(now.environment.read_text(encoding="utf-8"))
    reasons = fingerprint_differences(exactness_fingerprint(environment), exactness_fingerprint(current))
    reasons += reasons_for_doubt(loaded.config)
    return reasons or ["none known: the environments agree; suspect a changed file of the run, or the hardware"]
