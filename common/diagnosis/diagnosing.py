"""From a run's evidence to a diagnosis: every rule asked, the findings ranked, the verdict with its confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.diagnosis.evidence import RunEvidence
from common.diagnosis.findings import COUNTS_FROM, Cause, Diagnosed
from common.diagnosis.registry import CAUSES

HEALTHY = "none (healthy)"
# Below this a rule's answer is not worth mentioning.
MENTIONED_FROM = 0.25
# Nothing was found with everything looked at, and without the signals that most rules rest on.
MOST_SURE_OF_HEALTH = 0.95
SURE_WITHOUT_SIGNALS = 0.5


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a run, most important first, or that nothing is.

    Args:
        findings: the causes that count, ranked by the order of the registry.
        suspicions: what was seen of other causes, not enough to count, strongest first.
        healthy_confidence: how sure "nothing is wrong" is, in [0, 1]; only looked at where nothing is.
    """

    findings: tuple[Diagnosed, ...]
    suspicions: tuple[Diagnosed, ...]
    healthy_confidence: float

    @property
    def primary(self) -> Diagnosed | None:
        return self.findings[0] if self.findings else None

    @property
    def issue(self) -> str:
        """The guide's id, or ``none (healthy)``."""
        return self.primary.cause.guide if self.primary else HEALTHY

    @property
    def confidence(self) -> float:
        return self.primary.confidence if self.primary else self.healthy_confidence

    def headline(self) -> str:
        """The line that the report and the console open with."""
        return f"Primary issue: {self.issue} (confidence {100 * self.confidence:.0f}%)"


def diagnose(run: RunEvidence, causes: Sequence[Cause] = CAUSES) -> Diagnosis:
    """Ask every rule. What the ranking means stands beside ``registry.CAUSES``."""
    seen = [Diagnosed(cause, finding) for cause in causes if (finding := cause.measure(run)) is not None]
    findings = tuple(found for found in seen if found.confidence >= COUNTS_FROM)
    suspicions = [found for found in seen if MENTIONED_FROM <= found.confidence < COUNTS_FROM]
    suspicions.sort(key=lambda found: -found.confidence)
    return Diagnosis(findings, tuple(suspicions), _confidence_of_health(run, seen))


def _confidence_of_health(run: RunEvidence, seen: Sequence[Diagnosed]) -> float:
    strongest = max((found.confidence for found in seen if found.confidence < COUNTS_FROM), default=0.0)
    most = MOST_SURE_OF_HEALTH if run.has_signals and run.validated else SURE_WITHOUT_SIGNALS
    return min(most, 1.0 - strongest)
