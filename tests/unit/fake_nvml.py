"""An NVML library object for machines without a GPU: pynvml's own errors and constants, made-up devices."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


@dataclass(eq=False)
class FakeDevice:
    """One GPU or MIG instance. A counter is a number, or a list of which each reading takes one; the last one stays.

    An NVML error code among them is raised: ``Fault(pynvml.NVML_ERROR_UNKNOWN)``.
    """

    uuid: str
    name: str = "Fake H100"
    counters: dict[str, Any] = field(default_factory=dict)
    instances: list[FakeDevice | None] | None = None  # None: no MIG; None within: an empty slot
    gpu_instance: int = 0
    compute_instance: int = 0


@dataclass(frozen=True)
class Fault:
    code: int


class FakeNvml:
    """What the code under test uses of pynvml. ``readings`` counts the calls per counter."""

    def __init__(self, *devices: FakeDevice, init_fault: int | None = None) -> None:
        self.devices = devices
        self.init_fault = init_fault
        self.readings: Counter[str] = Counter()
        self.shut_down = threading.Event()
        self.hanging = threading.Event()
        self.released = threading.Event()
        self.hang_from_reading: int | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("NVML_", "NVMLError")):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def nvmlInit(self) -> None:
        if self.init_fault is not None:
            raise pynvml.NVMLError(self.init_fault)

    def nvmlShutdown(self) -> None:
        self.shut_down.set()

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeDevice:
        return self.devices[index]

    def nvmlDeviceGetUUID(self, device: FakeDevice) -> str:
        return device.uuid

    def nvmlDeviceGetName(self, device: FakeDevice) -> str:
        return device.name

    def nvmlDeviceGetMigMode(self, device: FakeDevice) -> list[int]:
        if device.instances is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [pynvml.NVML_DEVICE_MIG_ENABLE, pynvml.NVML_DEVICE_MIG_ENABLE]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: FakeDevice) -> int:
        return len(device.instances or [])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: FakeDevice, slot: int) -> FakeDevice:
        instance = (device.instances or [])[slot]
        if instance is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return instance

    def nvmlDeviceGetGpuInstanceId(self, device: FakeDevice) -> int:
        return device.gpu_instance

    def nvmlDeviceGetComputeInstanceId(self, device: FakeDevice) -> int:
        return device.compute_instance

    def nvmlDeviceGetUtilizationRates(self, device: FakeDevice) -> Any:
        return SimpleNamespace(gpu=self._read(device, "util"))

    def nvmlDeviceGetMemoryInfo(self, device: FakeDevice) -> Any:
        return SimpleNamespace(used=self._read(device, "memory"), total=80_000_000_000)

    def nvmlDeviceGetTemperature(self, device: FakeDevice, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return self._read(device, "temperature")

    def nvmlDeviceGetPowerUsage(self, device: FakeDevice) -> int:
        return self._read(device, "power_mw")

    def nvmlDeviceGetTotalEnergyConsumption(self, device: FakeDevice) -> int:
        return self._read(device, "energy_mj")

    def _read(self, device: FakeDevice, counter: str) -> Any:
        if self.hang_from_reading is not None and self.readings[counter] >= self.hang_from_reading:
            self.hanging.set()
            self.released.wait()
        value = device.counters.get(counter, Fault(pynvml.NVML_ERROR_NOT_SUPPORTED))
        if isinstance(value, list):
            value = value[min(self.readings[counter], len(value) - 1)]
        self.readings[counter] += 1
        if isinstance(value, Fault):
            raise pynvml.NVMLError(value.code)
        return value
