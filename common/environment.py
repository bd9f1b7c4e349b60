"""What a run's numbers depend on besides its config: software, machine, threads, code version, data."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from common import nvml

GIT_TIMEOUT_S = 10.0
# Instruction sets between which the maths libraries choose their kernels, as Linux names them (x86 and Arm).
RELEVANT_CPU_FLAGS = {
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
    *("avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2", "sme"),
}
CPU_GENERATION = (("family", "cpu family"), ("model", "model"), ("stepping", "stepping"))
# Settings that change results or speed without standing in any config.
RELEVANT_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "MKL_CBWR",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTORCH_CUDA_ALLOC_CONF",
)
# Packages whose version can change a bit of the result: arithmetic, and the decoding of pictures.
BIT_CHANGING_PACKAGES = ("torch", "numpy", "pillow")
# Listed apart from all others, for whoever reads the file.
MAIN_PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "pydantic",
    "pyyaml",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "tensorboard",
    "matplotlib",
)
# What fingerprint_differences calls each field of an exactness fingerprint.
FIELD_NAMES = {
    "python": "Python",
    "device": "device",
    "cpu_flags": "CPU instruction sets",
    "cpu_capability": "CPU kernels of torch",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "num_threads": "threads",
    "world_size": "processes",
    "deterministic": "deterministic operations",
    "precision": "precision",
    "compiled": "compiled model",
    "dataset": "dataset",
}


def collect_environment(
    device: str,
    command_line: Sequence[str],
    dataset_fingerprint: str | None,
    num_threads: int,
    deterministic: bool,
    precision: str,
    *,
    compiled: bool = False,
    world_size: int = 1,
    machine: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything for ``environment.json``, ready for strict JSON; None where this machine does not say.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``, as the run uses it.
        command_line: as typed, program first.
        dataset_fingerprint: of the data as loaded; None before any is.
        num_threads: of torch's intra-operation pool.
        deterministic: whether only deterministic operations are allowed.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        compiled: whether the model goes through ``torch.compile``.
        world_size: number of processes that train together.
        machine: what ``describe_machine`` returned earlier in this process, for who begins many runs; None looks anew.
    """
    facts = describe_machine(device) if machine is None else machine
    return {
        "schema_version": 1,
        "collected_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "hostname": socket.gethostname(),
        "command_line": list(command_line),
        "working_directory": os.getcwd(),
        **{name: facts[name] for name in ("git", "python", "platform", "cpu", "memory_bytes", "gpu", "torch_build")},
        "run": {
            "device": device,
            "num_threads": num_threads,
            "world_size": world_size,
            "deterministic": deterministic,
            "precision": precision,
            "compiled": compiled,
            "dataset_fingerprint": dataset_fingerprint,
        },
        "variables": {name: os.environ.get(name) for name in RELEVANT_VARIABLES},
        **{name: facts[name] for name in ("versions", "packages")},
    }


def describe_machine(device: str) -> dict[str, Any]:
    """What ``collect_environment`` says of the machine and its software, whatever the run; it takes tenths of a second.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``, as runs will use it.
    """
    packages = installed_packages()
    return {
        "git": git_state(Path.cwd()),
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
        },
        "platform": platform.platform(),
        "cpu": cpu_description(),
        "memory_bytes": _memory_bytes(),
        "gpu": gpu_description(device),
        "torch_build": _torch_build(),
        "versions": {name: packages.get(name) for name in MAIN_PACKAGES},
        "packages": packages,
    }


def exactness_fingerprint(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an environment on which the bits of a run's result depend; flat, ready for JSON.

    Args:
        environment: what ``collect_environment`` returned, now or in an older run's ``environment.json``. What an
            older version did not record counts as unknown (None).
    """
    run, python, packages = (_part(environment, name) for name in ("run", "python", "packages"))
    cpu, gpu, build = (_part(environment, name) for name in ("cpu", "gpu", "torch_build"))
    on_gpu = str(run.get("device")).startswith("cuda")
    return {
        "python": ".".join(str(python.get("version", "")).split(".")[:2]) or None,
        **{name: packages.get(name) for name in BIT_CHANGING_PACKAGES},
        "device": gpu.get("name") if on_gpu else cpu.get("model"),
        "cpu_flags": None if on_gpu else " ".join(map(str, cpu.get("flags") or [])) or None,
        "cpu_capability": None if on_gpu else cpu.get("torch_capability"),
        "cuda": build.get("cuda") if on_gpu else None,
        "cudnn": build.get("cudnn") if on_gpu else None,
        "num_threads": run.get("num_threads"),
        "world_size": run.get("world_size"),
        "deterministic": run.get("deterministic"),
        "precision": run.get("precision"),
        "compiled": run.get("compiled"),
        "dataset": run.get("dataset_fingerprint"),
    }


def fingerprint_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two exactness fingerprints, one readable phrase each: ``threads: 2 then, 1 now``.

    The order is that of ``now``; a field that only one of them has counts as unknown in the other.
    """
    return [f"{name}: {before} then, {after} now" for name, (after, before) in differing_fields([now, then]).items()]


def differing_fields(fingerprints: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """For each field in which exactness fingerprints differ, by its readable name, the value of each of them."""
    names = dict.fromkeys(name for fingerprint in fingerprints for name in fingerprint)
    values = {name: [fingerprint.get(name) for fingerprint in fingerprints] for name in names}
    return {
        FIELD_NAMES.get(name, name): [_spoken(value) for value in of_each]
        for name, of_each in values.items()
        if any(value != of_each[0] for value in of_each)
    }


def _part(environment: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = environment.get(name)
    return part if isinstance(part, Mapping) else {}


def _spoken(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def installed_packages() -> dict[str, str]:
    """Version of every installed distribution by its name in lower case with hyphens, sorted."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name, version = distribution.name, distribution.version
        if name and version:  # a half-removed package has neither
            found.setdefault(name.lower().replace("_", "-"), version)
    return dict(sorted(found.items()))


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and dirty flag of the repository around ``folder``; None where there is none, or no git.

    Dirty means that a tracked file differs from the commit; new files do not count, since every run writes some.
    """
    command = ["git", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        answer = subprocess.run(
            command,
            cwd=folder,
            env=_git_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = answer.stdout.decode("utf-8", "replace").splitlines()
    headers = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# ") and line.count(" ") > 1)
    commit = headers.get("branch.oid")
    return {
        "commit": None if commit == "(initial)" else commit,
        "branch": headers.get("branch.head"),
        "dirty": any(not line.startswith("# ") for line in lines),
    }


def _git_environment() -> dict[str, str]:
    # A git hook that starts us points these at the repository of the hook.
    inherited = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
    return {**inherited, "GIT_OPTIONAL_LOCKS": "0"}  # never in the way of a git command typed meanwhile


def cpu_description() -> dict[str, Any]:
    """Model, instruction sets that matter (sorted), architecture, cores and the cores this process may use."""
    import psutil

    fields = _cpuinfo_fields()
    present = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "model": _cpu_model(fields),
        "architecture": platform.machine(),
        "flags": sorted(RELEVANT_CPU_FLAGS & present),
        "torch_capability": _torch_cpu_capability(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def gpu_description(device: str) -> dict[str, Any] | None:
    """Driver, every GPU that it shows, and the name of the one that ``device`` means; None without a driver.

    ``name`` is None on a CPU run, and where it cannot be told which GPU is meant.
    """
    try:
        with nvml.session() as library:
            return {
                "driver": library.nvmlSystemGetDriverVersion(),
                "devices": [vars(gpu) for gpu in nvml.list_gpus(library)],
                "name": _name_in_use(library, device),
            }
    except nvml.NvmlUnavailableError:
        return None


def _name_in_use(library: Any, device: str) -> str | None:
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    cuda_index = int(index or 0)
    try:
        handle = nvml.find_device(library, cuda_index, cuda_uuid=nvml.uuid_from_torch(cuda_index))
        return library.nvmlDeviceGetName(handle)
    except nvml.NvmlUnavailableError:
        return None


def _cpuinfo_fields() -> dict[str, str]:
    """Fields of the first processor in /proc/cpuinfo; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpu_model(fields: Mapping[str, str]) -> str:
    name = fields.get("model name") or platform.processor() or platform.machine()
    # Virtual machines often say no more than the maker's name; these numbers tell the generations apart.
    parts = [f"{word} {fields[key]}" for word, key in CPU_GENERATION if key in fields]
    return f"{name} ({', '.join(parts)})" if parts else name


def _memory_bytes() -> int:
    import psutil

    return psutil.virtual_memory().total


def _torch_build() -> dict[str, Any] | None:
    """CUDA and cuDNN that torch was built with; None where this process has not loaded torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    return {"cuda": torch.version.cuda, "cudnn": cudnn, "commit": torch.version.git_version}


def _torch_cpu_capability() -> str | None:
    torch = sys.modules.get("torch")
    return None if torch is None else torch.backends.cpu.get_cpu_capability()
