"""The real monitor thread against a made-up driver with every kind of failure, and against no driver at all."""

from __future__ import annotations

import math
import sys
import time

import pynvml
import pytest
from fake_nvml import FakeDevice, FakeNvml, Fault

from common import gpu_monitor, nvml
from common.gpu_monitor import GpuMonitor, GpuUsage, Sample, summarise

BUSY = {"util": 74, "memory": 5_500_000_000, "temperature": 61, "power_mw": 310_000, "energy_mj": 9_000_000}
LOST = Fault(pynvml.NVML_ERROR_GPU_IS_LOST)
UUID = "GPU-11111111-0000-0000-0000-000000000000"


@pytest.fixture(autouse=True)
def no_visible_devices_from_outside(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def wait_until(condition, deadline_s: float = 60.0) -> None:
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, "the condition never came true"
        time.sleep(0.001)


def driver_present() -> bool:
    try:
        with nvml.session():
            return True
    except nvml.NvmlUnavailableError:
        return False


def test_a_cpu_run_has_no_thread_and_says_so():
    with GpuMonitor(None) as monitor:
        assert monitor._thread is None
        usage = monitor.epoch_summary()
    assert usage.util_text == "n/a (CPU run)"
    assert (usage.gpu_util_pct, usage.gpu_mem_gb, usage.power_w, usage.energy_j) == (None, None, None, None)


def test_cpu_utilisation_is_a_percentage_of_all_cores():
    with GpuMonitor(None) as monitor:
        usages = []

        def measured() -> bool:
            sum(i * i for i in range(10_000))
            usages.append(monitor.epoch_summary().cpu_util_pct)
            return (usages[-1] or 0) > 0

        wait_until(measured)
    assert 0 < usages[-1] <= 100


@pytest.mark.skipif(driver_present(), reason="this machine has an NVIDIA driver")
def test_without_a_driver_the_run_goes_on():
    with GpuMonitor(0, interval_s=0.001) as monitor:
        wait_until(lambda: not monitor._thread.is_alive())
        usages = [monitor.epoch_summary() for _ in range(3)]
    assert [usage.util_text for usage in usages] == ["n/a (no NVIDIA driver)"] * 3


def test_without_the_package_the_run_goes_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with GpuMonitor(0) as monitor:
        wait_until(lambda: not monitor._thread.is_alive())
        assert monitor.epoch_summary().note == "the package nvidia-ml-py is not installed"


def test_samples_the_device_that_cuda_means(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", UUID)
    library = FakeNvml(FakeDevice("GPU-00000000", counters={**BUSY, "util": 1}), FakeDevice(UUID, counters=BUSY))
    with GpuMonitor(0, interval_s=0.001, library=library) as monitor:
        wait_until(lambda: library.readings["energy_mj"] >= 3)
        usage = monitor.epoch_summary()
    assert (usage.gpu_util_pct, usage.gpu_mem_gb, usage.temperature_c, usage.power_w) == (74, 5.5, 61, 310)
    assert usage.energy_j == 0
    assert usage.note is None
    assert usage.util_text == "74%"
    assert library.shut_down.is_set()


def test_each_summary_covers_the_time_since_the_last_one():
    device = FakeDevice(UUID, counters=dict(BUSY))
    library = FakeNvml(device)
    with GpuMonitor(0, interval_s=0.001, library=library) as monitor:

        def three_more_samples() -> None:  # the first may have been under way already
            seen = library.readings["energy_mj"]
            wait_until(lambda: library.readings["energy_mj"] >= seen + 3)

        three_more_samples()
        monitor.epoch_summary()
        device.counters.update(util=20, temperature=40, energy_mj=9_002_500)
        three_more_samples()
        monitor.epoch_summary()  # may still hold a sample of before
        three_more_samples()
        usage = monitor.epoch_summary()
        assert (usage.gpu_util_pct, usage.temperature_c, usage.energy_j) == (20, 40, 0)
        device.counters.update(energy_mj=9_010_000)
        three_more_samples()
        assert monitor.epoch_summary().energy_j == pytest.approx(7.5)


def test_an_epoch_without_a_sample_of_its_own_takes_the_newest():
    library = FakeNvml(FakeDevice(UUID, counters=BUSY))
    with GpuMonitor(0, interval_s=3600, library=library) as monitor:
        wait_until(lambda: monitor._samples)
        first, second = monitor.epoch_summary(), monitor.epoch_summary()
    assert first.gpu_util_pct == second.gpu_util_pct == 74
    assert second.note is None
    assert second.energy_j is None  # nothing was measured in between


def test_a_sample_too_old_is_no_answer(monkeypatch):
    monkeypatch.setattr(gpu_monitor, "FRESH_S", 0.0)
    library = FakeNvml(FakeDevice(UUID, counters=BUSY))
    library.hang_from_reading = 1
    monitor = GpuMonitor(0, interval_s=0.0, library=library)
    monitor.start()
    assert library.hanging.wait(60)
    assert monitor.epoch_summary().gpu_util_pct == 74
    stale = monitor.epoch_summary()
    library.released.set()
    monitor.stop()
    assert (stale.gpu_util_pct, stale.note) == (None, "no sample from the driver")


def test_a_driver_that_hangs_holds_nothing_up(monkeypatch):
    monkeypatch.setattr(gpu_monitor, "STOP_TIMEOUT_S", 0.01)
    library = FakeNvml(FakeDevice(UUID, counters=BUSY))
    library.hang_from_reading = 0
    monitor = GpuMonitor(0, library=library)
    monitor.start()
    assert library.hanging.wait(60)
    assert monitor.epoch_summary().note == "no sample from the driver"
    monitor.stop()
    assert monitor._thread.is_alive() and monitor._thread.daemon
    library.released.set()
    wait_until(lambda: not monitor._thread.is_alive())


def test_counters_that_a_mig_instance_lacks_are_named_and_asked_for_once():
    instance = FakeDevice("MIG-1", counters={"memory": 2_000_000_000})
    library = FakeNvml(FakeDevice(UUID, counters=BUSY, instances=[instance]))
    with GpuMonitor(0, interval_s=0.001, library=library) as monitor:
        wait_until(lambda: library.readings["memory"] >= 3)
        usage = monitor.epoch_summary()
    note = "this device does not report utilisation, temperature, power, energy"
    assert usage == GpuUsage(gpu_mem_gb=2.0, cpu_util_pct=usage.cpu_util_pct, note=note)
    assert usage.util_text == f"n/a ({note})"
    assert library.readings["util"] == library.readings["energy_mj"] == 1


def test_a_fault_in_the_middle_is_told_and_recovered_from():
    device = FakeDevice(UUID, counters=dict(BUSY))
    library = FakeNvml(device)
    with GpuMonitor(0, interval_s=0.001, library=library) as monitor:
        wait_until(lambda: monitor._samples)
        device.counters.update(dict.fromkeys(BUSY, LOST))
        wait_until(lambda: monitor._fault is not None)
        broken = monitor.epoch_summary()
        assert (broken.gpu_util_pct, broken.note) == (74, "driver error: GPU is lost")
        device.counters.update(BUSY)
        wait_until(lambda: monitor._fault is None)
        monitor.epoch_summary()
        wait_until(lambda: monitor._samples)
        assert monitor.epoch_summary().note is None


def test_a_fault_that_lasts_is_told_in_every_epoch_and_asked_about_ever_less_often():
    device = FakeDevice(UUID, counters=dict.fromkeys(BUSY, LOST))
    library = FakeNvml(device)
    with GpuMonitor(0, interval_s=0.0001, library=library) as monitor:
        wait_until(lambda: library.readings["energy_mj"] >= 3)
        usages = [monitor.epoch_summary() for _ in range(3)]
    assert {usage.util_text for usage in usages} == {"n/a (driver error: GPU is lost)"}


def test_one_failing_counter_leaves_the_others():
    counters = {**BUSY, "power_mw": Fault(pynvml.NVML_ERROR_UNKNOWN)}
    library = FakeNvml(FakeDevice(UUID, counters=counters))
    with GpuMonitor(0, interval_s=0.001, library=library) as monitor:
        wait_until(lambda: monitor._samples)
        usage = monitor.epoch_summary()
    assert (usage.gpu_util_pct, usage.power_w, usage.note) == (74, None, "driver error: Unknown Error")


def test_a_device_that_is_not_there_is_told():
    with GpuMonitor(3, library=FakeNvml(FakeDevice(UUID))) as monitor:
        wait_until(lambda: not monitor._thread.is_alive())
        assert monitor.epoch_summary().util_text == "n/a (the driver shows no GPU 3)"


def test_stop_needs_no_start_and_both_may_come_twice():
    GpuMonitor(0).stop()
    monitor = GpuMonitor(0, library=FakeNvml(FakeDevice(UUID, counters=BUSY)))
    monitor.start()
    thread = monitor._thread
    monitor.start()
    assert monitor._thread is thread
    monitor.stop()
    monitor.stop()
    assert not thread.is_alive()


def test_summary_takes_means_and_peaks():
    samples = [Sample(1.0, 10.0, 1.0, 50.0, 100.0, 7.0), Sample(2.0, 30.0, 3.0, 40.0, 300.0, 19.0)]
    assert summarise(samples, None) == GpuUsage(20.0, 3.0, 50.0, 200.0, 12.0)
    assert summarise(samples, Sample(0.0, total_energy_j=5.0)).energy_j == 14.0


def test_energy_without_a_counter_is_the_integral_of_power():
    samples = [Sample(10.0, power_w=100.0), Sample(11.0, power_w=200.0), Sample(13.0, power_w=300.0)]
    assert summarise(samples, None).energy_j == pytest.approx(150 + 500)
    assert summarise(samples[1:], samples[0]).energy_j == pytest.approx(150 + 500)
    assert summarise(samples[:1], None).energy_j is None


def test_an_energy_counter_that_began_again_gives_no_negative_energy():
    assert summarise([Sample(1.0, total_energy_j=50.0), Sample(2.0, total_energy_j=1.0)], None).energy_j is None


def test_nothing_sampled_gives_nothing():
    assert summarise([], None) == GpuUsage()
    assert not math.isnan(summarise([], None).cpu_util_pct or 0.0)
