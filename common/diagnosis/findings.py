"""What a rule says about a run, and what is known about each root cause before any run is looked at."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from common.diagnosis.evidence import RunEvidence

# From this confidence on a finding counts; below it, it is a suspicion that the report mentions.
COUNTS_FROM = 0.5


@dataclass(frozen=True)
class Fact:
    """One number behind a finding: what was measured, its value as text, and what would be healthy."""

    what: str
    value: str
    healthy: str


@dataclass(frozen=True)
class Finding:
    """What a rule found.

    Args:
        confidence: in [0, 1], how far the numbers are beyond what sound runs show.
        facts: those numbers, most telling first.
        curve: the field of an epoch that shows it best, marked in the picture, and the epochs to mark.
        epochs: their numbers; empty marks none.
        times: how often the first recommendation is to be applied, where the numbers say how far off a setting is.
    """

    confidence: float
    facts: tuple[Fact, ...]
    curve: str | None = None
    epochs: tuple[int, ...] = ()
    times: int = 1


@dataclass(frozen=True)
class ByHand:
    """What a person has to do where no setting helps: a stable id, and one instruction."""

    id: str
    text: str


@dataclass(frozen=True)
class Cause:
    """A root cause: an entry of the registry.

    Args:
        id: stable name.
        guide: the guide that covers it.
        title: what is wrong, one clause.
        why: how that leads to what is seen, one sentence.
        measure: the rule: what the run shows of this cause, or None.
        recommendations: ids of the guide's recommendations that mend it, in the order in which to try them; a name
            with a slash is one of another guide.
        by_hand: what no setting can do.
        phase: where to go from here: 4 (settings), or 2 (another baseline, since data or code change).
    """

    id: str
    guide: str
    title: str
    why: str
    measure: Callable[[RunEvidence], Finding | None]
    recommendations: tuple[str, ...] = ()
    by_hand: ByHand | None = None
    phase: int = 4


@dataclass(frozen=True)
class Diagnosed:
    """A cause that a run shows."""

    cause: Cause
    finding: Finding

    @property
    def confidence(self) -> float:
        return self.finding.confidence


def strength(value: float, doubtful: float, certain: float) -> float:
    """Confidence in [0, 0.99] of a number on a linear scale: 0.5 at ``doubtful``, 0.95 at ``certain``.

    ``certain`` may be the smaller of the two: then small values are the suspicious ones.
    """
    return min(0.99, max(0.0, 0.5 + 0.45 * (value - doubtful) / (certain - doubtful)))


def log_strength(value: float, doubtful: float, certain: float) -> float:
    """``strength`` on a logarithmic scale, for positive ratios; 0 counts as infinitely small."""
    smallest = 1e-300
    logs = (math.log(max(number, smallest)) for number in (value, doubtful, certain))
    return strength(*logs)
