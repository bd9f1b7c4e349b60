"""Models that PyTorch runs: our checkpoints, TorchScript, and programs that ``torch.export`` saved."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from common.checkpoints import load_checkpoint, load_model
from common.device import select_device
from common.exits import EnvironmentLackError, InputFileError
from common.inference.engines import DEVICE_FIELD, Engine, reason_of
from common.manifest import sha256_of_file
from common.model_metadata import ModelMetadata, read_archive_metadata

# What torch raises on damaged files and on inputs that a program was not made for.
_FAILURES = (RuntimeError, ValueError, TypeError, KeyError, AssertionError, AttributeError, NotImplementedError)


class TorchEngine(Engine):
    """A module in eval mode on a device."""

    def __init__(
        self, path: Path, module: Callable, metadata: ModelMetadata, device: torch.device, threads: int
    ) -> None:
        super().__init__(path, metadata, f"PyTorch {torch.__version__}", str(device), threads)
        self._module = module
        self._device = device
        torch.set_num_threads(threads)

    def __call__(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray:
        with torch.inference_mode():
            # Copying the logits back waits for the GPU.
            return self._module(torch.from_numpy(inputs).to(self._device)).cpu().numpy()

    def failure_types(self) -> tuple[type[Exception], ...]:
        return _FAILURES


def open_checkpoint(path: Path, device: str, num_threads: int) -> TorchEngine:
    """One of our checkpoints, in fp32."""
    chosen = _select_device(device)
    checkpoint = load_checkpoint(path)
    metadata = ModelMetadata(
        model_spec=dict(checkpoint["model_spec"]),
        checkpoint_sha256=sha256_of_file(path),
        val_acc=checkpoint.get("val_acc"),
    )
    return TorchEngine(path, load_model(checkpoint).to(chosen), metadata, chosen, num_threads)


def open_torchscript(path: Path, device: str, num_threads: int) -> TorchEngine:
    """A scripted or traced model: loading it runs its code."""
    chosen, metadata = _select_device(device), read_archive_metadata(path)
    with _load_errors(path, "TorchScript"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(path), map_location=chosen).eval()
    return TorchEngine(path, module, metadata, chosen, num_threads)


def open_exported(path: Path, device: str, num_threads: int) -> TorchEngine:
    """A program that ``torch.export`` saved."""
    from torch.export.passes import move_to_device_pass

    chosen, metadata = _select_device(device), read_archive_metadata(path)
    with _load_errors(path, "torch.export"), path.open("rb") as file:
        program = torch.export.load(file)
        if chosen.type != "cpu":  # constants and device arguments within the graph too
            program = move_to_device_pass(program, chosen)
        module = program.module()
    return TorchEngine(path, module, metadata, chosen, num_threads)


OPENERS: dict[str, Callable[[Path, str, int], Any]] = {
    "checkpoint": open_checkpoint,
    "torchscript": open_torchscript,
    "exported": open_exported,
}


def _select_device(device: str) -> torch.device:
    try:
        return select_device(device)
    except EnvironmentLackError as error:
        hint = "install a CUDA build of PyTorch (pytorch.org/get-started) and check nvidia-smi; or use --device cpu"
        raise EnvironmentLackError(error.message, field=DEVICE_FIELD, hint=hint) from error


@contextlib.contextmanager
def _load_errors(path: Path, what: str) -> Iterator[None]:
    # torch.export logs the traceback of every way of reading that it tries.
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except (*_FAILURES, OSError, EOFError) as error:
        raise InputFileError(f"cannot be loaded as a {what} model ({reason_of(error)})", path=path) from error
    finally:
        logger.setLevel(level)
