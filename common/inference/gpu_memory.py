"""How much of a GPU's memory this process holds, as the driver counts it: weights, activations and CUDA's own part."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from common import nvml


@dataclass(frozen=True)
class GpuMemory:
    """``used_bytes`` is None where the driver does not say; ``note`` says why, or what else was counted."""

    used_bytes: int | None
    note: str | None = None


class GpuMemoryWatch:
    """Reads the memory of one GPU before and after. ``library`` is an object with pynvml's functions; None loads it."""

    def __init__(self, device: str, library: Any | None = None) -> None:
        self._cuda_index = int(device.partition(":")[2] or 0)
        self._library = library
        self._before_bytes: int | None = None
        with contextlib.suppress(nvml.NvmlUnavailableError), self._session() as (found, handle):
            self._before_bytes = int(found.nvmlDeviceGetMemoryInfo(handle).used)

    def read(self) -> GpuMemory:
        """What this process holds now.

        In a container the driver names processes by numbers of the machine outside, so that ours is not found. The
        only process on the device must be ours; among several, the rise of the whole device since the watch was made
        stands in.
        """
        try:
            with self._session() as (library, handle):
                return self._of_this_process(library, handle)
        except nvml.NvmlUnavailableError as error:
            return GpuMemory(None, str(error))

    def _of_this_process(self, library: Any, handle: Any) -> GpuMemory:
        processes = library.nvmlDeviceGetComputeRunningProcesses(handle)
        ours = [process for process in processes if process.pid == os.getpid()] or (
            processes if len(processes) == 1 else []
        )
        if ours and ours[0].usedGpuMemory is not None:
            return GpuMemory(int(ours[0].usedGpuMemory))
        if self._before_bytes is None:
            return GpuMemory(None, "the driver does not name this process")
        rise_bytes = int(library.nvmlDeviceGetMemoryInfo(handle).used) - self._before_bytes
        return GpuMemory(max(rise_bytes, 0), "rise of the whole device, the driver does not name this process")

    @contextlib.contextmanager
    def _session(self) -> Iterator[tuple[Any, Any]]:
        with nvml.session(self._library) as library:
            uuid = nvml.uuid_from_torch(self._cuda_index)
            yield library, nvml.find_device(library, self._cuda_index, cuda_uuid=uuid)
