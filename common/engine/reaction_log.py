"""How a reaction is told: the lines in the log, the event in metrics.json."""

from __future__ import annotations

from collections.abc import Sequence

from common.console import Console
from common.engine.progress import Progress
from common.engine.recorder import event
from common.exits import ToolError
from common.guides import Recommendation, load_guide, rank


def tell(console: Console, progress: Progress, guide: str, finding: str, actions: Sequence[str], outcome: str) -> dict:
    """Log a finding, what its guide recommends and what is done; returns the event, not yet among the others.

    Args:
        guide: its id, such as ``nan_loss``.
        actions: machine-readable names; empty where the run only says what it sees.
        outcome: one sentence on what is done, or what is suggested.
    """
    console.warning(f"[DIAGNOSTIC] {finding}")
    console.info(f"[AUTO-LOAD] diagnostics/{guide}.md")
    recommended = _recommendations(guide, console)
    for recommendation in recommended:
        console.detail(f"[AUTO-LOAD] {recommendation.id}: {recommendation.title}")
    console.info(f"[ACTIONS] {outcome}")
    return event(progress, guide, outcome, guide=f"diagnostics/{guide}.md", actions=actions) | {
        "finding": finding,
        "recommendations": [recommendation.id for recommendation in recommended],
    }


def _recommendations(guide: str, console: Console) -> list[Recommendation]:
    """What the guide recommends, best first. A guide that cannot be read does not end a training."""
    try:
        return rank(load_guide(guide).recommendations)
    except ToolError as error:
        console.warning(f"[AUTO-LOAD] {error}")
        return []
