"""The monitor on a real GPU: the right device, plausible values, utilisation that follows the work."""

from __future__ import annotations

import time

import pytest

from common import nvml
from common.gpu_monitor import GpuMonitor

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


def work_until(condition, deadline_s: float = 60.0) -> None:
    a = torch.randn(2048, 2048, device="cuda")
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, "the condition never came true"
        for _ in range(20):
            a = torch.nn.functional.normalize(a @ a)
        torch.cuda.synchronize()


def test_finds_the_device_that_torch_uses():
    torch.zeros(1, device="cuda")
    with nvml.session() as library:
        by_torch = nvml.find_device(library, 0, cuda_uuid=nvml.uuid_from_torch(0))
        # A UUID that CUDA reports and the name that CUDA reports belong together.
        assert library.nvmlDeviceGetName(by_torch).split(" MIG ")[0] in torch.cuda.get_device_name(0)


def test_sees_the_gpu_at_work():
    with GpuMonitor(0, interval_s=0.05) as monitor:
        seen = []

        def busy() -> bool:
            seen.append(monitor.epoch_summary())
            return bool(seen[-1].gpu_util_pct) or "utilisation" in (seen[-1].note or "")

        work_until(busy)
    usage = seen[-1]
    assert usage.gpu_mem_gb > 0
    if usage.gpu_util_pct is not None:
        assert 0 < usage.gpu_util_pct <= 100
    if usage.temperature_c is not None:
        assert 0 < usage.temperature_c < 120
    if usage.power_w is not None:
        assert 0 < usage.power_w < 2000
