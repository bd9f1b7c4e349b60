"""ONNX models by ONNX Runtime. Imports no torch, so that a fresh process can measure the runtime alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.exits import EnvironmentLackError, InputFileError
from common.inference.engines import DEVICE_FIELD, Engine, reason_of
from common.model_metadata import ONNX_KEY, ModelMetadata, parse_metadata

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# Failures come as exceptions too; without this ONNX Runtime would also print them.
_FATAL_ONLY = 4
_REMEDY = "pip uninstall onnxruntime, then pip install onnxruntime-gpu; or use --device cpu"


class OnnxEngine(Engine):
    """``session.run`` on NumPy arrays."""

    def __init__(self, path: Path, session: Any, metadata: ModelMetadata, device: str, num_threads: int) -> None:
        super().__init__(path, metadata, f"ONNX Runtime {_onnxruntime().__version__}", device, num_threads)
        self.session = session
        [model_input] = session.get_inputs()
        self._run = session.run
        self._input_name = model_input.name
        self._outputs = [metadata.output_name]
        first = model_input.shape[0] if model_input.shape else None
        self.batch_size = first if isinstance(first, int) else None

    def __call__(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray:
        return self._run(self._outputs, {self._input_name: inputs})[0]

    def failure_types(self) -> tuple[type[Exception], ...]:
        return runtime_errors()


def open_onnx(path: Path, device: str, num_threads: int) -> OnnxEngine:
    """See ``engines.open_model``."""
    runtime = _onnxruntime()
    notices: list[str] = []
    wanted = _cuda_index(device)
    if wanted is not None and CUDA not in runtime.get_available_providers():
        if device != "auto":
            message = f"ONNX Runtime {runtime.__version__} is installed without CUDA"
            raise EnvironmentLackError(message, field=DEVICE_FIELD, hint=_REMEDY)
        wanted = None
    session = new_session(path, num_threads, wanted)
    if wanted is not None and CUDA not in session.get_providers():
        # It warns and goes on without the GPU: a silent CPU number is what must not happen.
        lack = f"ONNX Runtime {runtime.__version__} could not start CUDA (no driver, or CUDA and cuDNN do not match)"
        if device != "auto":
            raise EnvironmentLackError(lack, field=DEVICE_FIELD, hint="check nvidia-smi, or use --device cpu")
        notices.append(f"{lack}; measured on the CPU")
        wanted = None
    metadata = parse_metadata(session.get_modelmeta().custom_metadata_map.get(ONNX_KEY), path)
    _require_our_interface(session, metadata, path)
    engine = OnnxEngine(path, session, metadata, "cpu" if wanted is None else f"cuda:{wanted}", num_threads)
    engine.notices = notices
    return engine


def new_session(path: Path, num_threads: int, cuda_index: int | None, *, profile_prefix: str | None = None) -> Any:
    """An ``InferenceSession`` on the GPU ``cuda_index``, or on the CPU for None.

    Raises:
        InputFileError: the file is no sound ONNX model.
    """
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    providers: list[Any] = [CPU]
    if cuda_index is not None:
        if hasattr(runtime, "preload_dlls"):  # finds the CUDA libraries of the NVIDIA packages that torch brings
            runtime.preload_dlls()
        providers.insert(0, (CUDA, {"device_id": cuda_index}))
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except runtime_errors() as error:
        raise InputFileError(f"is no model that ONNX Runtime can load ({reason_of(error)})", path=path) from error


def runtime_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions, which share no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*found, RuntimeError, ValueError)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        hint = "pip install onnxruntime (onnxruntime-gpu for a GPU)"
        raise EnvironmentLackError("ONNX models need the package onnxruntime", hint=hint) from error
    return onnxruntime


def _cuda_index(device: str) -> int | None:
    return None if device == "cpu" else int(device.partition(":")[2] or 0)


def _require_our_interface(session: Any, metadata: ModelMetadata, path: Path) -> None:
    inputs, outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
    if len(inputs) != 1 or inputs[0].type != "tensor(float)":
        described = ", ".join(f"{value.name}: {value.type}" for value in inputs)
        raise InputFileError(f"takes ({described}), not one float32 input", path=path, hint="export the model again")
    if metadata.output_name not in outputs:
        raise InputFileError(f"has no output {metadata.output_name}, only {', '.join(outputs)}", path=path)
