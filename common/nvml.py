"""NVIDIA's management library: which of its devices is the one that CUDA calls number i.

NVML counts the physical devices of the machine; CUDA counts those that ``CUDA_VISIBLE_DEVICES`` lets through, in an
order of its own. Only the UUID means the same on both sides.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# What the library answers where a counter will never come, as opposed to a fault that may pass.
PERMANENT_ERRORS = (
    "NVML_ERROR_NOT_SUPPORTED",
    "NVML_ERROR_FUNCTION_NOT_FOUND",
    "NVML_ERROR_INVALID_ARGUMENT",
    "NVML_ERROR_NO_PERMISSION",
)
NO_DRIVER_ERRORS = ("NVML_ERROR_LIBRARY_NOT_FOUND", "NVML_ERROR_DRIVER_NOT_LOADED")


class NvmlUnavailableError(Exception):
    """Why nothing can be read from a GPU; a short phrase in lower case, such as ``no NVIDIA driver``."""


@dataclass(frozen=True)
class GpuIdentity:
    """One physical GPU as the driver names it."""

    name: str
    uuid: str
    memory_bytes: int | None


@contextlib.contextmanager
def session(library: Any | None = None) -> Iterator[Any]:
    """Yield the initialised library and shut it down again.

    Args:
        library: an object with pynvml's functions and constants; None loads pynvml.
    Raises:
        NvmlUnavailableError: there is no library, no driver, or the driver reports an error that the caller did not
            handle.
    """
    library = _load_library() if library is None else library
    try:
        library.nvmlInit()
        try:
            yield library
        finally:
            with contextlib.suppress(library.NVMLError):
                library.nvmlShutdown()
    except library.NVMLError as error:
        raise NvmlUnavailableError(_phrase(library, error)) from error


def is_permanent(library: Any, error: Any) -> bool:
    """Whether asking again is pointless: this device, driver or user will never get that counter."""
    return error.value in {getattr(library, name) for name in PERMANENT_ERRORS}


def list_gpus(library: Any) -> list[GpuIdentity]:
    """Every physical GPU that the driver shows, in NVML's order (by PCI bus)."""
    return [_identity(library, handle) for handle in _handles(library)]


def find_device(
    library: Any, cuda_index: int, *, cuda_uuid: str | None = None, environment: Mapping[str, str] = os.environ
) -> Any:
    """The NVML handle of CUDA's device ``cuda_index``: a physical GPU, or a MIG instance where CUDA uses one.

    Args:
        library: what ``session`` yields.
        cuda_index: the number behind ``cuda:``, counted among the visible devices.
        cuda_uuid: the UUID that CUDA itself reports for it, with or without the ``GPU-`` prefix. It settles the
            question; without it ``CUDA_VISIBLE_DEVICES`` (indices, ``GPU-`` or ``MIG-`` UUIDs, which may be
            abbreviated) is read as CUDA reads it.
        environment: where the two CUDA variables are looked up.
    Raises:
        NvmlUnavailableError: no device fits, or more than one could be meant.
    Source: CUDA C++ Programming Guide, "CUDA Environment Variables"; NVIDIA MIG User Guide, "Device enumeration".
    """
    variable = environment.get("CUDA_VISIBLE_DEVICES")
    entries = None if variable is None else visible_entries(variable)
    entry = _entry(entries, cuda_index)
    # CUDA may report the parent's UUID for a MIG instance, so an instance that was asked for by name goes first.
    if entry is not None and entry.startswith("MIG-"):
        return _find_mig_instance(library, entry)
    if cuda_uuid is not None:
        return _instance_in_use(library, _find_by_uuid(library, cuda_uuid))
    if entry is not None and entry.startswith("GPU-"):
        return _instance_in_use(library, _find_by_uuid(library, entry))
    handle = _find_by_index(library, cuda_index if entry is None else int(entry), environment)
    return _instance_in_use(library, handle)


def visible_entries(variable: str) -> list[str]:
    """The devices that a value of ``CUDA_VISIBLE_DEVICES`` lets through, in CUDA's order.

    As in CUDA, the list ends at the first entry that is no device, all entries are of the first one's kind, and one
    that occurs twice leaves no device at all.
    """
    prefix = next((kind for kind in ("GPU-", "MIG-") if variable.strip().startswith(kind)), "")
    entries: list[str] = []
    for part in variable.split(","):
        entry = part.strip()
        if not (entry.startswith(prefix) if prefix else entry.isdecimal()):
            break
        entry = entry if prefix else str(int(entry))
        if entry in entries:
            return []
        entries.append(entry)
    return entries


def uuid_from_torch(cuda_index: int) -> str | None:
    """The UUID that CUDA reports for its device ``cuda_index``; None unless this process runs CUDA through torch.

    Nothing is imported or started for it: a monitor must not be what starts CUDA.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return str(torch.cuda.get_device_properties(cuda_index).uuid)


def _load_library() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise NvmlUnavailableError("the package nvidia-ml-py is not installed") from error
    return pynvml


def _phrase(library: Any, error: Any) -> str:
    if error.value in {getattr(library, name) for name in NO_DRIVER_ERRORS}:
        return "no NVIDIA driver"
    return f"driver error: {error}"


def _entry(entries: list[str] | None, cuda_index: int) -> str | None:
    if entries is None:
        return None
    if cuda_index >= len(entries):
        raise NvmlUnavailableError(f"CUDA_VISIBLE_DEVICES shows no device {cuda_index}")
    return entries[cuda_index]


def _handles(library: Any) -> list[Any]:
    return [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]


def _identity(library: Any, handle: Any) -> GpuIdentity:
    try:
        memory_bytes = int(library.nvmlDeviceGetMemoryInfo(handle).total)
    except library.NVMLError:
        memory_bytes = None
    return GpuIdentity(library.nvmlDeviceGetName(handle), library.nvmlDeviceGetUUID(handle), memory_bytes)


def _find_by_index(library: Any, index: int, environment: Mapping[str, str]) -> Any:
    handles = _handles(library)
    if index >= len(handles):
        raise NvmlUnavailableError(f"the driver shows no GPU {index}")
    # Without this setting CUDA puts the fastest GPU first; among equal ones that is the order of the bus again.
    if environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        names = {library.nvmlDeviceGetName(handle) for handle in handles}
        if len(names) > 1:
            raise NvmlUnavailableError("different GPUs in unknown order, set CUDA_DEVICE_ORDER=PCI_BUS_ID")
    return handles[index]


def _find_by_uuid(library: Any, uuid: str) -> Any:
    return _only(library, [(h, library.nvmlDeviceGetUUID(h)) for h in _with_instances(library)], uuid)


def _find_mig_instance(library: Any, entry: str) -> Any:
    if entry.startswith("MIG-GPU-"):  # drivers before R470: MIG-GPU-<uuid>/<GPU instance>/<compute instance>
        named = [(instance, _legacy_name(library, gpu, instance)) for gpu, instance in _instances(library)]
    else:
        named = [(instance, library.nvmlDeviceGetUUID(instance)) for _, instance in _instances(library)]
    return _only(library, named, entry)


def _only(library: Any, named: list[tuple[Any, str]], wanted: str) -> Any:
    found = [handle for handle, name in named if _bare(name).startswith(_bare(wanted))]
    if len(found) != 1:
        raise NvmlUnavailableError(f"{'more than one device fits' if found else 'no device has'} the UUID {wanted}")
    return found[0]


def _bare(uuid: str) -> str:
    return uuid.lower().removeprefix("mig-").removeprefix("gpu-")


def _with_instances(library: Any) -> Iterator[Any]:
    yield from _handles(library)
    for _, instance in _instances(library):
        yield instance


def _instances(library: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs of a physical GPU and a MIG instance on it."""
    for handle in _handles(library):
        for instance in _mig_instances(library, handle):
            yield handle, instance


def _mig_instances(library: Any, handle: Any) -> Iterator[Any]:
    try:
        current_mode, _ = library.nvmlDeviceGetMigMode(handle)
    except library.NVMLError:  # GPUs without MIG say so by an error
        return
    if current_mode != library.NVML_DEVICE_MIG_ENABLE:
        return
    for slot in range(library.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with contextlib.suppress(library.NVMLError_NotFound):  # an empty slot
            yield library.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot)


def _instance_in_use(library: Any, handle: Any) -> Any:
    # On a GPU in MIG mode CUDA takes the first instance.
    return next(_mig_instances(library, handle), handle)


def _legacy_name(library: Any, gpu: Any, instance: Any) -> str:
    gpu_instance = library.nvmlDeviceGetGpuInstanceId(instance)
    compute_instance = library.nvmlDeviceGetComputeInstanceId(instance)
    return f"MIG-{library.nvmlDeviceGetUUID(gpu)}/{gpu_instance}/{compute_instance}"
