"""A model of any format, opened for inference: float32 inputs in, logits out, both in the memory of the CPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.exits import InputFileError, RunFailedError, ToolError, UsageError
from common.inference.model_files import model_format
from common.model_metadata import ModelMetadata

DEVICE_FIELD = "--device"
# As CUDA, ONNX Runtime, PyTorch and the C++ library say it.
_OUT_OF_MEMORY = ("out of memory", "failed to allocate", "can't allocate memory", "bad_alloc")


class Engine(ABC):
    """One opened model. Calls come from one thread at a time.

    Attributes:
        path, format: the file, and what it is (a key of ``model_files.FORMAT_NAMES``).
        metadata: what the model says of its classes and its input.
        runtime: name and version of what computes.
        device: ``cpu`` or ``cuda:N``.
        num_threads: of one call on the CPU.
        batch_size: the only one that the model takes; None where it takes any.
        notices: what the user should know of how it was opened.
    """

    def __init__(self, path: Path, metadata: ModelMetadata, runtime: str, device: str, num_threads: int) -> None:
        self.path = path
        self.format = model_format(path)
        self.metadata = metadata
        self.runtime = runtime
        self.device = device
        self.num_threads = num_threads
        self.batch_size: int | None = None
        self.notices: list[str] = []

    @abstractmethod
    def __call__(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray:
        """Logits (B, C) of inputs (B, *input_shape), contiguous and normalised. Copies to and from a GPU are part."""

    @abstractmethod
    def failure_types(self) -> tuple[type[Exception], ...]:
        """What the runtime raises where a model does not run."""

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    def try_out(self, inputs: npt.NDArray[np.float32]) -> None:
        """The first call, with its answer checked.

        Raises:
            UsageError: the model takes another batch size.
            InputFileError: the model does not run, or does not give one logit per class.
            RunFailedError: the device's memory does not suffice.
        """
        if self.batch_size not in (None, len(inputs)):
            message = f"{self.path} takes batches of {self.batch_size} only, not of {len(inputs)}"
            raise UsageError(message, field="--batch-size", hint="export it with a dynamic batch size")
        try:
            logits = self(inputs)
        except self.failure_types() as error:
            raise self._first_failure(error, inputs.shape) from error
        expected = (len(inputs), len(self.metadata.class_names))
        if tuple(logits.shape) != expected or not np.issubdtype(logits.dtype, np.floating):
            raise InputFileError(
                f"answers {logits.dtype} {tuple(logits.shape)} where logits {expected} were expected", path=self.path
            )

    def _first_failure(self, error: Exception, shape: tuple[int, ...]) -> ToolError:
        reason, message = reason_of(error), str(error).lower()
        if any(phrase in message for phrase in _OUT_OF_MEMORY):
            return RunFailedError(f"out of memory with a batch of {shape[0]} ({reason})", path=self.path,
                                  hint="use a smaller --batch-size")  # fmt: skip
        return InputFileError(f"cannot run inputs of shape {shape} ({reason})", path=self.path)


def open_model(path: str | Path, device: str = "auto", num_threads: int = 1) -> Engine:
    """Open a model file of any known format; only the runtime that it needs is imported.

    TorchScript and ``.pt2`` files are programs: opening one runs what its author put into it. ONNX files and
    checkpoints are data.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for the GPU where the model's runtime can use one.
        num_threads: of one call on the CPU, >= 1.
    Raises:
        InputFileError: missing, damaged, of no known format, or without metadata.
        CheckFailedError: a damaged checkpoint.
        EnvironmentLackError: the runtime is not installed, or CUDA is asked for and it has none.
        UsageError: no such device.
    """
    path = Path(path)
    _require_known_device(device)
    kind = model_format(path)
    if kind == "onnx":
        from common.inference.onnx_engine import open_onnx

        return open_onnx(path, device, num_threads)
    from common.inference import torch_engines

    return torch_engines.OPENERS[kind](path, device, num_threads)


def reason_of(error: Exception) -> str:
    """The line that matters of a message that may be many lines long, or the error's name."""
    lines = str(error).strip().split("\n")
    # TorchScript puts its own traceback first, and what went wrong last.
    line = lines[-1] if "TorchScript interpreter" in lines[0] else lines[0]
    return line[:300] or type(error).__name__


def _require_known_device(device: str) -> None:
    kind, _, number = device.partition(":")
    if device not in ("auto", "cpu", "cuda") and not (kind == "cuda" and number.isdecimal()):
        raise UsageError(f"`{device}` is no device", field=DEVICE_FIELD, hint="use auto, cpu, cuda or cuda:N")
