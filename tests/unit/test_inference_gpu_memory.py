"""Memory of this process on a GPU, by a driver that names it, one that does not, and one that says nothing."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pynvml

from common.inference.gpu_memory import GpuMemory, GpuMemoryWatch
from tests.unit.fake_nvml import FakeDevice, FakeNvml, Fault


class Driver(FakeNvml):
    """One device; ``processes`` are pairs of a process number and its bytes."""

    def __init__(self, processes: list[tuple[int, int | None]], memory: object = 1000, **options: int) -> None:
        super().__init__(FakeDevice("GPU-1", counters={"memory": memory}), **options)
        self.processes = processes

    def nvmlDeviceGetComputeRunningProcesses(self, device: FakeDevice) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes]


def read(driver: Driver, device: str = "cuda:0") -> GpuMemory:
    return GpuMemoryWatch(device, driver).read()


def test_the_memory_is_that_of_this_process():
    assert read(Driver([(1, 700), (os.getpid(), 300)])) == GpuMemory(300)


def test_the_only_process_is_this_one_whatever_its_number():
    assert read(Driver([(1, 700)])) == GpuMemory(700)


def test_without_this_process_among_several_the_rise_of_the_device_stands_in_and_is_named():
    found = read(Driver([(1, 700), (2, 300)], memory=[1000, 5000, 5000]))
    # The device's list of GPUs asks for no memory: the first reading is the watch's, the second that of read().
    assert found.used_bytes == 4000 and "does not name this process" in found.note


def test_a_process_without_a_number_of_bytes_is_not_taken_for_zero():
    found = read(Driver([(os.getpid(), None)], memory=[1000, 1500]))
    assert found == GpuMemory(500, "rise of the whole device, the driver does not name this process")


def test_nothing_is_made_up_where_the_driver_is_silent():
    silent = Driver([(1, 2), (3, 4)], memory=Fault(pynvml.NVML_ERROR_NOT_SUPPORTED))
    assert read(silent) == GpuMemory(None, "the driver does not name this process")
    assert read(Driver([], init_fault=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)) == GpuMemory(None, "no NVIDIA driver")
    assert read(Driver([(1, 2)]), "cuda:3").used_bytes is None
