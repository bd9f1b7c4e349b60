"""How a reaction is told: the lines in the log, the event in metrics.json."""

from __future__ import annotations

from collections.abc import Sequence

from common.console import Console
from common.engine.progress import Progress
from common.engine.recorder import event


def tell(console: Console, progress: Progress, guide: str, finding: str, actions: Sequence[str], outcome: str) -> dict:
    """Log a finding, the guide it belongs to and what is done about it; returns the event, not yet among the others.

    Args:
        guide: its id, such as ``nan_loss``.
        actions: machine-readable names; empty where the run only says what it sees.
        outcome: one sentence on what is done, or what is suggested.
    """
    console.warning(f"[DIAGNOSTIC] {finding}")
    console.info(f"[AUTO-LOAD] diagnostics/{guide}.md")
    console.info(f"[ACTIONS] {outcome}")
    return event(progress, guide, outcome, guide=f"diagnostics/{guide}.md", actions=actions) | {"finding": finding}
