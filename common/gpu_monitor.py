"""How busy the GPU is during training, sampled by a thread of its own that never holds the training up.

NVML's utilisation is the share of time in which some kernel ran, not the share of the chip that was in use
(NVML API reference, ``nvmlUtilization_t``).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common import nvml

CPU_RUN_NOTE = "CPU run"
JOULES_PER_MILLIJOULE = 1e-3
BYTES_PER_GB = 1e9
# Five hours at the default interval; of a longer epoch the last five hours are averaged.
MAX_SAMPLES = 100_000
# While the driver answers nothing but errors it is asked ever less often, down to this many intervals.
MAX_BACKOFF_INTERVALS = 32
# An epoch shorter than the interval sees no sample of its own; the newest one stands in while it is this fresh.
FRESH_S = 2.0
STOP_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class GpuUsage:
    """What the GPU (and the processor) did during one epoch. None: not known, and ``note`` says why.

    Attributes:
        gpu_util_pct: mean share of time in which a kernel ran, percent.
        gpu_mem_gb: largest memory in use on the device, by all processes and the driver, in 10^9 bytes.
        temperature_c: highest temperature, degrees Celsius.
        power_w: mean power of the board, watts.
        energy_j: energy the board took since the previous summary, joules.
        cpu_util_pct: busy share of all cores of the machine, all processes, percent.
        note: why something is None; None where nothing is.
    """

    gpu_util_pct: float | None = None
    gpu_mem_gb: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    cpu_util_pct: float | None = None
    note: str | None = None

    @property
    def util_text(self) -> str:
        """``74%``, or ``n/a (CPU run)``, ``n/a (no NVIDIA driver)`` and the like; never a made-up 0%."""
        return f"n/a ({self.note})" if self.gpu_util_pct is None else f"{self.gpu_util_pct:.0f}%"


@dataclass(frozen=True)
class Sample:
    """The counters at one moment, in GpuUsage's units except for the running total of energy; None: no answer."""

    time_s: float
    util_pct: float | None = None
    mem_gb: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    total_energy_j: float | None = None


# The name that a note gives to a counter, its field in Sample, and how to read it.
COUNTERS: tuple[tuple[str, str, Callable[[Any, Any], float]], ...] = (
    ("utilisation", "util_pct", lambda lib, device: float(lib.nvmlDeviceGetUtilizationRates(device).gpu)),
    ("memory", "mem_gb", lambda lib, device: lib.nvmlDeviceGetMemoryInfo(device).used / BYTES_PER_GB),
    (
        "temperature",
        "temperature_c",
        lambda lib, device: float(lib.nvmlDeviceGetTemperature(device, lib.NVML_TEMPERATURE_GPU)),
    ),
    ("power", "power_w", lambda lib, device: lib.nvmlDeviceGetPowerUsage(device) / 1e3),
    (
        "energy",
        "total_energy_j",
        lambda lib, device: lib.nvmlDeviceGetTotalEnergyConsumption(device) * JOULES_PER_MILLIJOULE,
    ),
)


class GpuMonitor:
    """Samples one GPU between ``start`` and ``stop``.

    All public calls come from the training's thread, return at once and never raise on account of the driver. The
    driver is only ever called by the monitor's own daemon thread, so that one that hangs holds nothing up.

    Args:
        cuda_index: the number behind ``cuda:`` among the visible devices; None for a run on the CPU.
        interval_s: time between two samples.
        cuda_uuid: the device's UUID as CUDA reports it. None asks torch at ``start`` if torch has CUDA running by
            then, and else goes by ``CUDA_VISIBLE_DEVICES``.
        library: an object with pynvml's functions; None loads pynvml.
    """

    def __init__(
        self,
        cuda_index: int | None,
        interval_s: float = 0.2,
        *,
        cuda_uuid: str | None = None,
        library: Any | None = None,
    ) -> None:
        self._cuda_index = cuda_index
        self._interval_s = interval_s
        self._cuda_uuid = cuda_uuid
        self._library = library
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)  # since the last summary; guarded by the lock
        self._missing: tuple[str, ...] = ()
        self._fault: str | None = None  # as of the latest reading
        self._epoch_fault: str | None = None  # the latest since the last summary
        self._last: Sample | None = None
        self._cpu_s = _cpu_seconds()

    def __enter__(self) -> GpuMonitor:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to sample; on a CPU run only the processor's share is taken, without a thread."""
        self._cpu_s = _cpu_seconds()
        if self._cuda_index is None or self._thread is not None:
            return
        if self._cuda_uuid is None:
            self._cuda_uuid = nvml.uuid_from_torch(self._cuda_index)
        self._thread = threading.Thread(target=self._watch, name="gpu-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the sampling; a driver that does not answer is left behind after two seconds."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def epoch_summary(self) -> GpuUsage:
        """The usage since the last call, or since ``start``."""
        cpu_util_pct = self._cpu_util_pct()
        if self._cuda_index is None:
            return GpuUsage(cpu_util_pct=cpu_util_pct, note=CPU_RUN_NOTE)
        samples, missing, fault = self._take()
        previous = self._last
        if samples:
            self._last = samples[-1]
        else:
            samples, previous = _fresh(previous, max(FRESH_S, 2 * self._interval_s)), None
        return summarise(samples, previous, cpu_util_pct, _note(samples, missing, fault))

    def _take(self) -> tuple[list[Sample], tuple[str, ...], str | None]:
        with self._lock:
            taken = list(self._samples), self._missing, self._epoch_fault
            self._samples.clear()
            self._epoch_fault = self._fault  # one that lasts belongs to the next epoch too
        return taken

    def _cpu_util_pct(self) -> float | None:
        (busy_before_s, total_before_s), self._cpu_s = self._cpu_s, _cpu_seconds()
        busy_s, total_s = self._cpu_s
        elapsed_s = total_s - total_before_s
        return min(100.0, max(0.0, 100.0 * (busy_s - busy_before_s) / elapsed_s)) if elapsed_s > 0 else None

    def _watch(self) -> None:
        try:
            with nvml.session(self._library) as library:
                device = nvml.find_device(library, self._cuda_index or 0, cuda_uuid=self._cuda_uuid)
                self._sample(library, device)
        except nvml.NvmlUnavailableError as error:
            with self._lock:
                self._fault = self._epoch_fault = str(error)

    def _sample(self, library: Any, device: Any) -> None:
        reader = CounterReader(library, device)
        wait_intervals = 1
        while not self._stopping.is_set():
            sample, fault = reader.read()
            with self._lock:
                self._missing, self._fault = reader.missing, fault
                self._epoch_fault = fault or self._epoch_fault
                if sample is not None:
                    self._samples.append(sample)
            wait_intervals = 1 if fault is None else min(2 * wait_intervals, MAX_BACKOFF_INTERVALS)
            self._stopping.wait(wait_intervals * self._interval_s)


class CounterReader:
    """Reads one device's counters; one that the device lacks is asked for once, a passing fault again next time."""

    def __init__(self, library: Any, device: Any) -> None:
        self._library = library
        self._device = device
        self.missing: tuple[str, ...] = ()

    def read(self) -> tuple[Sample | None, str | None]:
        """The counters now, None if none answered; and the driver's fault, None if there was none."""
        values: dict[str, float] = {}
        fault = None
        for name, field, read in COUNTERS:
            if name in self.missing:
                continue
            try:
                values[field] = read(self._library, self._device)
            except self._library.NVMLError as error:
                if nvml.is_permanent(self._library, error):
                    self.missing += (name,)
                else:
                    fault = f"driver error: {error}"
        return (Sample(time.monotonic(), **values) if values else None), fault


def summarise(
    samples: Sequence[Sample], previous: Sample | None, cpu_util_pct: float | None = None, note: str | None = None
) -> GpuUsage:
    """Condense the samples of one epoch.

    Args:
        samples: in order of time; may be empty.
        previous: the last sample of the epoch before, from which the energy counts; None at the beginning.
    """
    return GpuUsage(
        gpu_util_pct=_mean([s.util_pct for s in samples]),
        gpu_mem_gb=_largest([s.mem_gb for s in samples]),
        temperature_c=_largest([s.temperature_c for s in samples]),
        power_w=_mean([s.power_w for s in samples]),
        energy_j=_energy_j([s for s in (previous, *samples) if s is not None]),
        cpu_util_pct=cpu_util_pct,
        note=note,
    )


def _energy_j(samples: Sequence[Sample]) -> float | None:
    """The difference of the energy counter or, on boards without one, the integral of power by the trapezoid rule."""
    totals = [s.total_energy_j for s in samples if s.total_energy_j is not None]
    if totals:
        # The counter begins again when the driver is reloaded.
        return totals[-1] - totals[0] if len(totals) > 1 and totals[-1] >= totals[0] else None
    powered = [(s.time_s, s.power_w) for s in samples if s.power_w is not None]
    areas = [(t1 - t0) * (p0 + p1) / 2 for (t0, p0), (t1, p1) in itertools.pairwise(powered)]
    return sum(areas) if areas else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _fresh(sample: Sample | None, age_s: float) -> list[Sample]:
    return [sample] if sample is not None and time.monotonic() - sample.time_s <= age_s else []


def _note(samples: Sequence[Sample], missing: Sequence[str], fault: str | None) -> str | None:
    if fault is not None:
        return fault
    if missing:
        return f"this device does not report {', '.join(missing)}"
    return None if samples else "no sample from the driver"


def _cpu_seconds() -> tuple[float, float]:
    """Seconds that all cores together were busy, and busy or idle, since the machine started."""
    import psutil

    times = psutil.cpu_times()._asdict()
    # Linux counts a guest's time twice: within user and nice, and on its own.
    total_s = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    return total_s - times["idle"] - times.get("iowait", 0.0), total_s
