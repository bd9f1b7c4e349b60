"""Which NVML device stands behind ``cuda:i``, for every form of CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pynvml
import pytest
from fake_nvml import FakeDevice, FakeNvml

from common import nvml

A = FakeDevice("GPU-aaaa1111-0000-0000-0000-000000000000")
B = FakeDevice("GPU-aaaa2222-0000-0000-0000-000000000000")
C = FakeDevice("GPU-cccc3333-0000-0000-0000-000000000000")
MIG_0 = FakeDevice("MIG-d0000000-0000-0000-0000-000000000000", gpu_instance=7)
MIG_1 = FakeDevice("MIG-d1111111-0000-0000-0000-000000000000", gpu_instance=8, compute_instance=1)
PARENT = FakeDevice("GPU-dddd4444-0000-0000-0000-000000000000", instances=[None, MIG_0, MIG_1])


@pytest.mark.parametrize(
    ("visible", "index", "expected"),
    [
        (None, 0, A),
        (None, 2, C),
        ("2,0", 0, C),
        ("2,0", 1, A),
        (" 1 , 2", 1, C),
        ("01", 0, B),
        ("GPU-cccc3333-0000-0000-0000-000000000000,GPU-aaaa1111", 0, C),
        ("GPU-cccc3333-0000-0000-0000-000000000000,GPU-aaaa1111", 1, A),
        ("GPU-c", 0, C),
    ],
)
def test_finds_the_device_that_cuda_counts(visible, index, expected):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert nvml.find_device(FakeNvml(A, B, C), index, environment=environment) is expected


@pytest.mark.parametrize(
    ("visible", "index", "reason"),
    [
        ("", 0, "shows no device 0"),
        ("-1", 0, "shows no device 0"),
        ("0", 1, "shows no device 1"),
        ("0,-1,1", 1, "shows no device 1"),
        ("1,1", 0, "shows no device 0"),
        ("7", 0, "the driver shows no GPU 7"),
        ("GPU-aaaa", 0, "more than one device fits"),
        ("GPU-eeee", 0, "no device has"),
        ("MIG-d0000000", 0, "no device has"),
        ("GPU-cccc3333,0", 1, "shows no device 1"),
    ],
)
def test_says_why_no_device_is_meant(visible, index, reason):
    with pytest.raises(nvml.NvmlUnavailableError, match=reason):
        nvml.find_device(FakeNvml(A, B, C), index, environment={"CUDA_VISIBLE_DEVICES": visible})


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("MIG-d1111111-0000-0000-0000-000000000000", MIG_1),
        ("MIG-d0", MIG_0),
        ("MIG-GPU-dddd4444-0000-0000-0000-000000000000/7/0", MIG_0),
        ("MIG-GPU-dddd4444-0000-0000-0000-000000000000/8/1", MIG_1),
        ("1", MIG_0),  # CUDA takes the first instance of a GPU in MIG mode
        ("GPU-dddd4444", MIG_0),
        ("0", A),
    ],
)
def test_finds_mig_instances(visible, expected):
    found = nvml.find_device(FakeNvml(A, PARENT), 0, environment={"CUDA_VISIBLE_DEVICES": visible})
    assert found is expected


def test_the_uuid_that_cuda_reports_settles_it():
    # CUDA may count the fastest GPU first, so its number 0 need not be the first on the bus.
    library = FakeNvml(A, B, C)
    assert nvml.find_device(library, 0, cuda_uuid=B.uuid.removeprefix("GPU-"), environment={}) is B
    assert nvml.find_device(library, 0, cuda_uuid=B.uuid, environment={"CUDA_VISIBLE_DEVICES": "2"}) is B
    # For an instance CUDA may report the parent: the instance asked for by name goes first.
    asked = {"CUDA_VISIBLE_DEVICES": MIG_1.uuid}
    assert nvml.find_device(FakeNvml(A, PARENT), 0, cuda_uuid=PARENT.uuid, environment=asked) is MIG_1
    assert nvml.find_device(FakeNvml(A, PARENT), 0, cuda_uuid=MIG_1.uuid, environment={}) is MIG_1


def test_different_gpus_by_index_need_the_order_of_the_bus():
    library = FakeNvml(A, FakeDevice("GPU-ffff", name="Fake T4"))
    with pytest.raises(nvml.NvmlUnavailableError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        nvml.find_device(library, 1, environment={})
    assert nvml.find_device(library, 1, environment={"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}).name == "Fake T4"


@pytest.mark.parametrize(
    ("code", "phrase"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "no NVIDIA driver"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "no NVIDIA driver"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "driver error: RM has detected"),
    ],
)
def test_a_session_that_cannot_start_says_why(code, phrase):
    with pytest.raises(nvml.NvmlUnavailableError, match=phrase), nvml.session(FakeNvml(init_fault=code)):
        pass


def test_a_session_shuts_the_library_down_also_after_a_fault():
    library = FakeNvml(A)
    with pytest.raises(nvml.NvmlUnavailableError, match="driver error: GPU is lost"), nvml.session(library):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    assert library.shut_down.is_set()


def test_without_the_package_the_session_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(nvml.NvmlUnavailableError, match="nvidia-ml-py is not installed"), nvml.session():
        pass


def test_lists_gpus_with_their_memory_where_known():
    known = FakeDevice("GPU-1", counters={"memory": 5})
    listed = nvml.list_gpus(FakeNvml(known, FakeDevice("GPU-2", name="Fake T4")))
    assert listed == [
        nvml.GpuIdentity("Fake H100", "GPU-1", 80_000_000_000),
        nvml.GpuIdentity("Fake T4", "GPU-2", None),
    ]


def test_torch_is_asked_for_the_uuid_only_where_it_runs_cuda(monkeypatch):
    properties = [SimpleNamespace(uuid="aaaa"), SimpleNamespace(uuid="bbbb")]
    running = SimpleNamespace(is_initialized=lambda: True, get_device_properties=properties.__getitem__)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=running))
    assert nvml.uuid_from_torch(1) == "bbbb"
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: False)))
    assert nvml.uuid_from_torch(1) is None
    monkeypatch.delitem(sys.modules, "torch")
    assert nvml.uuid_from_torch(1) is None
    assert "torch" not in sys.modules
