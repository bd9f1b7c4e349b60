"""What to do about a diagnosis: its guides' recommendations, and the baseline's config with them carried out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.config import Config, dump_config
from common.diagnosis.diagnosing import Diagnosis
from common.diagnosis.evidence import RunEvidence
from common.diagnosis.findings import Cause
from common.guides import AppliedChange, Guide, Recommendation, apply_changes

GENERAL_GUIDE = "general_improvement"
# Of what helps without anything being wrong, the first two: a comparison can tell only about what was changed.
NUM_GENERAL = 2


@dataclass(frozen=True)
class NextConfig:
    """A config, what was changed in it, and which recommendations that came from."""

    config: Config
    changes: Sequence[AppliedChange]
    recommendations: Sequence[Recommendation]


def recommendations_of(cause: Cause, guides: Mapping[str, Guide]) -> list[Recommendation]:
    """What mends the cause, in the order in which to try it."""
    found = []
    for name in cause.recommendations:
        guide_id, _, recommendation_id = name.rpartition("/")
        found.append(guides[guide_id or cause.guide].recommendation(recommendation_id))
    return found


def next_config(run: RunEvidence, config: Config, diagnosis: Diagnosis, guides: Mapping[str, Guide]) -> NextConfig:
    """``config`` with what mends the primary issue, and nothing else; where nothing is wrong and a target is missed,
    with the first general improvements.

    Raises:
        InputFileError: a recommendation contradicts something else in the config.
    """
    chosen: list[Recommendation] = []
    if diagnosis.primary is not None:
        first, *others = recommendations_of(diagnosis.primary.cause, guides) or [None]
        chosen = [] if first is None else [*[first] * diagnosis.primary.finding.times, *others]
    elif misses_target(run):
        chosen = list(guides[GENERAL_GUIDE].recommendations[:NUM_GENERAL])
    changed, applied = apply_changes(config, chosen)
    return NextConfig(changed, applied, chosen)


def misses_target(run: RunEvidence) -> bool:
    """Whether a target was set and not reached."""
    target = None if run.config is None else run.config.target.val_acc
    return target is not None and (run.best_val_acc is None or run.best_val_acc < target)


def next_config_text(planned: NextConfig, header: Sequence[str]) -> str:
    """The config as YAML, each changed field with what it was and why: ``dropout: 0.2  # was 0.0: ...``.

    ``load_config`` gives an equal config.
    """
    why = {recommendation.id: recommendation.title for recommendation in planned.recommendations}
    reasons: dict[str, Counter[str]] = {}
    for change in planned.changes:
        reasons.setdefault(change.key, Counter())[why[change.recommendation_id].lower()] += 1
    notes = {
        key: f"was {json.dumps(old)}: {'; '.join(map(_counted, reasons[key].items()))}"
        for key, old, _ in merged_changes(planned.changes)
    }
    return dump_config(planned.config, header, notes)


def _counted(reason: tuple[str, int]) -> str:
    text, times = reason
    return text if times == 1 else f"{text}, {times} times"


def merged_changes(changes: Sequence[AppliedChange]) -> list[tuple[str, Any, Any]]:
    """Key, value before all changes and value after them, of each field that was changed."""
    was: dict[str, Any] = {}
    now: dict[str, Any] = {}
    for change in changes:
        was.setdefault(change.key, change.old)
        now[change.key] = change.new
    return [(key, old, now[key]) for key, old in was.items()]
