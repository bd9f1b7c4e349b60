"""The trained model that is exported, with what is known about it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.checkpoints import load_checkpoint, load_model
from common.exits import InputFileError
from common.manifest import sha256_of_file
from common.model_metadata import ModelMetadata, parse_metadata
from common.run_folder import RunFolder

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class ExportSource:
    """A checkpoint's model on the CPU: fp32, in eval mode, without gradients. ``metadata`` is that of an fp32 export;
    ``config`` is the training's, as a mapping; ``run`` is the folder of the training, where the checkpoint still lies
    in it."""

    path: Path
    model: nn.Module
    metadata: ModelMetadata
    config: Mapping[str, Any]
    run: RunFolder

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.metadata.input_shape

    def with_test_accuracy(self, test_acc: float | None) -> ExportSource:
        """The same with the accuracy in percent that the checkpoint reached on the test set."""
        return replace(self, metadata=replace(self.metadata, test_acc=test_acc))

    def example(self, batch_size: int) -> torch.Tensor:
        """Inputs to trace the model with, float32 (batch_size, *input_shape)."""
        return torch.randn(batch_size, *self.input_shape, generator=torch.Generator().manual_seed(0))


def load_source(path: str | Path) -> ExportSource:
    """Load a checkpoint of this trainer for export.

    Raises:
        InputFileError: missing, no checkpoint of this trainer, or its description of the model cannot be used.
        CheckFailedError: damaged, or asking for code to be run.
        UsageError: its architecture is an import path that cannot be imported here.
    """
    path = Path(path)
    checkpoint = load_checkpoint(path)
    # A link such as checkpoints/production leads to the run.
    run = RunFolder(path.resolve().parent.parent)
    metadata = _metadata(checkpoint, path, run)
    model = _model(checkpoint, path).requires_grad_(False)
    config = checkpoint.get("config")
    return ExportSource(path, model, metadata, config if isinstance(config, dict) else {}, run)


def _metadata(checkpoint: Mapping[str, Any], path: Path, run: RunFolder) -> ModelMetadata:
    try:
        metadata = ModelMetadata(
            model_spec=checkpoint["model_spec"],
            checkpoint_sha256=sha256_of_file(path),
            git_commit=_git_commit(run),
            val_acc=_finite_or_none(checkpoint.get("val_acc")),
        )
        # What every reader of the exported model will check.
        return parse_metadata(metadata.to_json(), path)
    except (InputFileError, TypeError, ValueError) as error:
        reason = error.message if isinstance(error, InputFileError) else str(error)
        raise InputFileError(
            f"does not describe its model well enough to export it ({reason})",
            path=path,
            hint="give a checkpoint that training_orchestrator.py wrote",
        ) from error


def _model(checkpoint: Mapping[str, Any], path: Path) -> nn.Module:
    try:
        return load_model(checkpoint)
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).split("\n")[0][:200]
        raise InputFileError(f"its weights do not fit the model that it describes ({reason})", path=path) from error


def _finite_or_none(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _git_commit(run: RunFolder) -> str | None:
    """The commit that the training noted down, or None where there is no such note."""
    try:
        environment = json.loads(run.environment.read_text(encoding="utf-8"))
        commit = environment["git"]["commit"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return commit if isinstance(commit, str) and _COMMIT.fullmatch(commit) else None
