"""Where and how a training computes: the device, determinism, threads, precision."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from common.exits import EnvironmentLackError, UsageError

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def select_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` means here; ``cuda`` is always given its number.

    Raises:
        UsageError: another name.
        EnvironmentLackError: CUDA is asked for, and there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (name != "cuda" and not number.isdecimal()):
        raise UsageError(f"`{name}` is no device", field="training.device", hint="use auto, cpu, cuda or cuda:N")
    return _cuda_device(int(number or 0))


def configure_determinism(deterministic: bool, benchmark: bool = False) -> list[str]:
    """Make the same inputs give the same bits, or let PyTorch choose the fastest kernels. Call before CUDA starts.

    ``benchmark`` picks convolution kernels by timing them, which another run may decide otherwise; it has no effect
    together with ``deterministic``.

    Returns:
        One line for people per setting.
    """
    if deterministic:
        # cuBLAS reads this once, when it starts. Source: https://docs.nvidia.com/cuda/cublas/#results-reproducibility
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    # It only helps to find reads of uninitialised memory, and costs time in every allocation.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = benchmark and not deterministic
    ignored = " (benchmark has no effect while deterministic)" if benchmark and deterministic else ""
    return [
        f"Deterministic algorithms: {'on' if deterministic else 'off'}",
        f"cuDNN benchmark: {'on' if torch.backends.cudnn.benchmark else 'off'}{ignored}",
    ]


def set_num_threads(num_threads: int | None) -> int:
    """Set how many CPU threads an operation may use, and return it. Results repeat at a fixed number only.

    Args:
        num_threads: >= 1, or None for what the environment says: OMP_NUM_THREADS or MKL_NUM_THREADS where set, else
            PyTorch's own choice, but no more than the CPUs that this process may run on.
    Raises:
        UsageError: below 1.
    """
    if num_threads is None:
        chosen = torch.get_num_threads()
        if not any(os.environ.get(variable) for variable in _THREAD_VARIABLES):
            chosen = min(chosen, available_cpus())
    elif num_threads >= 1:
        chosen = num_threads
    else:
        raise UsageError(f"must be at least 1, not {num_threads}", field="training.num_threads")
    torch.set_num_threads(chosen)
    return chosen


def available_cpus() -> int:
    """CPUs that this process may use: its affinity mask, cut to the container's quota (cgroup v2), at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = _CPU_QUOTA.read_text().split()
        if quota != "max":
            allowed = min(allowed, math.ceil(int(quota) / int(period)))
    return max(allowed, 1)


@dataclass(frozen=True)
class Autocast:
    """A precision on a device: ``context()`` makes a new context to run the model's forward pass under."""

    context: Callable[[], contextlib.AbstractContextManager]
    needs_grad_scaler: bool


def autocast_for(device: torch.device, precision: str) -> Autocast:
    """What it takes to compute in ``fp32``, ``bf16`` or ``fp16`` on ``device``; weights stay fp32 throughout.

    fp16 gradients underflow without a GradScaler; bf16 has the exponent range of fp32 and needs none.

    Raises:
        UsageError: another precision.
        EnvironmentLackError: the device cannot compute in it.
    """
    if precision == "fp32":
        return Autocast(contextlib.nullcontext, needs_grad_scaler=False)
    if precision not in ("bf16", "fp16"):
        raise UsageError(f"`{precision}` is no precision", field="training.precision", hint="use fp32, bf16 or fp16")
    if precision == "fp16" and device.type == "cpu":
        raise EnvironmentLackError("CPUs do not train in fp16", field="training.precision", hint="use bf16")
    if precision == "bf16" and device.type == "cuda" and not _has_bf16(device):
        message = f"{torch.cuda.get_device_name(device)} has no bf16"
        raise EnvironmentLackError(message, field="training.precision", hint="use fp16")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return Autocast(lambda: torch.autocast(device.type, dtype), needs_grad_scaler=precision == "fp16")


def _cuda_device(number: int) -> torch.device:
    if not torch.cuda.is_available():
        lack = "this PyTorch is built without CUDA" if torch.version.cuda is None else "PyTorch finds no usable GPU"
        raise EnvironmentLackError(f"there is no GPU: {lack}", field="training.device", hint="use auto or cpu")
    count = torch.cuda.device_count()
    if number >= count:
        devices = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise EnvironmentLackError(f"there is no cuda:{number}", field="training.device", hint=f"there is {devices}")
    return torch.device("cuda", number)


def _has_bf16(device: torch.device) -> bool:
    # Tensor cores compute in bf16 from Ampere on; before that it is emulated, slower than fp32.
    return torch.cuda.get_device_capability(device) >= (8, 0)
