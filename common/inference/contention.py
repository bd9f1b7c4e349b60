"""Whether a measurement had the machine to itself. What disturbed it is counted and named; nothing is taken out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.inference.percentiles import Percentile, percentile
from common.inference.timing import Timings

# From here on the slowest 1% of the calls, hence p99, can be the scheduler's rather than the model's.
CONTENDED_SHARE_PCT = 1.0
# Calls back to back on the CPU leave no idle time: a process that runs for less than this had to wait for its turn.
RUNNING_PCT = 95.0
SLOWEST_PCT = 1.0
_PROC_STAT = Path("/proc/stat")
_STEAL_FIELD = 8


@dataclass(frozen=True)
class Contention:
    """What else happened during a series of calls.

    Attributes:
        num_calls, num_preempted: calls, and those during which the kernel took the processor away from this process.
        slowest_preempted_pct: share of the slowest 1% of the calls (at least one) that were among these, percent.
        undisturbed: p99 of the other calls alone: what the model would do without the neighbours, at best.
        running_pct: processor time that this process got per time that passed, percent, at most 100; None where calls
            leave it idle (a schedule, a GPU).
        steal_pct: share of time that the hypervisor gave to others, percent of all processors; None where unknown.
    """

    num_calls: int
    num_preempted: int
    slowest_preempted_pct: float
    undisturbed: Percentile
    running_pct: float | None
    steal_pct: float | None

    @property
    def preempted_pct(self) -> float:
        return 100.0 * self.num_preempted / self.num_calls

    @property
    def reasons(self) -> list[str]:
        """Why the measurement is contended; empty where it is clean."""
        reasons = []
        if self.preempted_pct > CONTENDED_SHARE_PCT:
            reasons.append(f"{self.preempted_pct:.1f}% of the calls were preempted")
        if self.running_pct is not None and self.running_pct < RUNNING_PCT:
            reasons.append(f"this process had a processor for only {self.running_pct:.0f}% of the time")
        if self.steal_pct is not None and self.steal_pct > CONTENDED_SHARE_PCT:
            reasons.append(f"the hypervisor took {self.steal_pct:.1f}% of the processor time")
        return reasons

    @property
    def verdict(self) -> str:
        """``clean`` or ``contended``."""
        return "contended" if self.reasons else "clean"


class StealWatch:
    """Time that a hypervisor took from this machine since the watch was made."""

    def __init__(self) -> None:
        self._begin = _steal_and_total()

    def steal_pct(self) -> float | None:
        end = _steal_and_total()
        if self._begin is None or end is None or end[1] <= self._begin[1]:
            return None
        return 100.0 * (end[0] - self._begin[0]) / (end[1] - self._begin[1])


def contention_of(timings: Timings, steal_pct: float | None, *, never_idle: bool) -> Contention:
    """What the counts in ``timings`` (of at least one call) say.

    Args:
        steal_pct: from a ``StealWatch`` over the same time.
        never_idle: calls were back to back and computed by the CPU.
    """
    preempted = timings.preemptions > 0
    num_slowest = max(1, round(timings.num_calls * SLOWEST_PCT / 100.0))
    slowest = np.argsort(timings.latency_ns, kind="stable")[-num_slowest:]
    return Contention(
        num_calls=timings.num_calls,
        num_preempted=int(preempted.sum()),
        slowest_preempted_pct=100.0 * float(preempted[slowest].mean()),
        undisturbed=percentile(timings.latency_ms[~preempted], 99.0),
        running_pct=min(100.0, 100.0 * timings.cpu_s / timings.wall_s) if never_idle else None,
        steal_pct=steal_pct,
    )


def _steal_and_total() -> tuple[int, int] | None:
    """Ticks since the machine started, stolen and in all; guest time is within user time already."""
    try:
        fields = _PROC_STAT.read_text().split("\n", 1)[0].split()
        ticks = [int(field) for field in fields[1 : _STEAL_FIELD + 1]]
    except (OSError, ValueError):
        return None
    return (ticks[-1], sum(ticks)) if len(ticks) == _STEAL_FIELD else None
