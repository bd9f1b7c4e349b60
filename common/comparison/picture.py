"""The picture of a comparison, beside its report."""

from __future__ import annotations

from pathlib import Path

from common.comparison.evidence import Comparison
from common.comparison.runs import Side
from common.comparison_plots import Curves, plot_comparison


def draw(comparison: Comparison, path: Path) -> bool:
    """Draw the learning curves of both sides; False where no run has an epoch. Raises OSError."""
    sides = (comparison.baseline, comparison.optimized)
    if not any(run.epochs for side in sides for run in side.runs):
        return False
    title = f"{comparison.baseline.first.dataset.get('name', 'unknown data')}: {comparison.verdict}"
    plot_comparison(*(_curves(side) for side in sides), path, title)
    return True


def embedded(picture: str | None) -> str:
    """The picture in Markdown, by its name relative to the report."""
    if picture is None:
        return "No run has an epoch to draw."
    return f"![Loss and accuracy by epoch of both sides]({picture.replace(' ', '%20')})"


def _curves(side: Side) -> Curves:
    return Curves(side.name, [(run.epochs, run.best_epoch) for run in side.runs])
