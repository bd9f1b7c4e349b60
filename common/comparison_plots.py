"""The picture of a comparison: learning curves of both sides, over their seeds, with the best epochs marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.plots import (
    BLUE,
    INK,
    VERMILION,
    finish_epoch_axis,
    finite_value,
    house_style,
    new_figure,
    plain_text,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, VERMILION)
RINGS = ("o", "D")  # told apart by shape too, where the two colours meet
MAX_EPOCHS_WITH_DOTS = 20
# Curves that end close together are told apart better on a logarithmic axis.
LOG_RATIO = 20.0
FEWEST_VALUES_TO_ZOOM = 60
ZOOM_BELOW = 0.35
PANELS = (("loss", "Cross-entropy loss"), ("acc", "Accuracy (%)"))


@dataclass(frozen=True)
class Curves:
    """One side: its name, and ``(epochs as in metrics.json, best epoch or None)`` of each run."""

    name: str
    runs: Sequence[tuple[Sequence[Mapping[str, Any]], int | None]]


def plot_comparison(baseline: Curves, optimized: Curves, path: str | Path, title: str) -> None:
    """Loss and accuracy over the epochs: training dashed, validation solid; several seeds as mean and range.

    The mean goes as far as all seeds of a side do; what single seeds did beyond is drawn thin. A side without an
    epoch is left out.

    Args:
        path: of the PNG file, replaced in one step.
        title: one line above the picture.
    Raises:
        ValueError: no run has an epoch.
        OSError: the file cannot be written.
    """
    numbers = sorted(
        {int(epoch["num"]) for side in (baseline, optimized) for epochs, _ in side.runs for epoch in epochs}
    )
    if not numbers:
        raise ValueError("no epochs to plot")
    with house_style():
        figure = new_figure(8.6, 8.2)
        panels = figure.subplots(2, sharex=True)
        figure.subplots_adjust(left=0.135, right=0.965, top=0.795, bottom=0.08, hspace=0.12)
        plain_text(figure.suptitle(title, x=0.135, y=0.975, ha="left", fontsize=15, fontweight="bold"))
        for axes, (kind, label) in zip(panels, PANELS, strict=True):
            for side, colour, ring in zip((baseline, optimized), COLOURS, RINGS, strict=True):
                _draw_side(axes, side, kind, colour, ring, dotted=len(numbers) <= MAX_EPOCHS_WITH_DOTS)
            _finish_panel(axes, kind, label)
        finish_epoch_axis(panels, numbers, None)
        figure.align_ylabels(panels)
        handles, labels = panels[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.12, 0.94), ncols=2, frameon=False,
                      fontsize=12, handlelength=2.4, columnspacing=1.0)  # fmt: skip
        save_figure(figure, path)


def _draw_side(axes: Axes, side: Curves, kind: str, colour: str, ring: str, *, dotted: bool) -> None:
    dot = {"marker": "o", "markersize": 3.5} if dotted else {}
    validation = {"linestyle": "-", "linewidth": 2.3, "label": f"{side.name}, validation", "zorder": 3}
    training = {"linestyle": "--", "linewidth": 1.5, "alpha": 0.75, "label": f"{side.name}, training"}
    _draw_mean(axes, side, f"val_{kind}", color=colour, **validation, **dot)
    _draw_mean(axes, side, f"train_{kind}", color=colour, **training, **dot)
    _draw_band(axes, side, f"val_{kind}", colour)
    best = [(best, value) for epochs, best in side.runs for epoch in epochs
            if epoch["num"] == best and (value := finite_value(epoch, f"val_{kind}")) is not None]  # fmt: skip
    if best:
        look = {"markerfacecolor": "white", "markeredgecolor": colour, "markeredgewidth": 1.9, "linestyle": "none"}
        if len(best) == 1:
            axes.axvline(best[0][0], color=colour, linestyle=":", linewidth=1.3, zorder=1.5)
        size = 9 if len(best) == 1 else 6
        axes.plot(*zip(*best, strict=True), ring, zorder=5, markersize=size, label=_best_label(side, best), **look)


def _draw_mean(axes: Axes, side: Curves, key: str, **look: Any) -> None:
    """The mean over the seeds, as far as all of them go; a single run as it is."""
    values = _values_by_epoch(side, key)
    shared = [(num, sum(found) / len(found)) for num, found in values.items() if len(found) == len(side.runs)]
    if shared:
        axes.plot(*zip(*shared, strict=True), **look)


def _draw_band(axes: Axes, side: Curves, key: str, colour: str) -> None:
    if len(side.runs) < 2:
        return
    values = _values_by_epoch(side, key)
    shared = {num: found for num, found in values.items() if len(found) == len(side.runs)}
    low, high = [min(found) for found in shared.values()], [max(found) for found in shared.values()]
    axes.fill_between(list(shared), low, high, color=colour, alpha=0.16, linewidth=0,
                      label=f"{side.name}, range of {len(side.runs)} seeds")  # fmt: skip
    end = max(shared, default=0)
    for epochs, _ in side.runs:
        beyond = [(epoch["num"], value) for epoch in epochs
                  if epoch["num"] >= end and (value := finite_value(epoch, key)) is not None]  # fmt: skip
        if len(beyond) > 1:
            axes.plot(*zip(*beyond, strict=True), color=colour, linewidth=0.8, alpha=0.6)


def _values_by_epoch(side: Curves, key: str) -> dict[int, list[float]]:
    values: dict[int, list[float]] = {}
    for epochs, _ in side.runs:
        for epoch in epochs:
            if (value := finite_value(epoch, key)) is not None:
                values.setdefault(int(epoch["num"]), []).append(value)
    return dict(sorted(values.items()))


def _best_label(side: Curves, best: Sequence[tuple[int, float]]) -> str:
    """The legend is that of the accuracy panel, so the values are percent."""
    mean = sum(value for _, value in best) / len(best)
    if len(best) > 1:
        return f"{side.name}, best epochs, mean {mean:.1f}%"
    return f"{side.name}, best epoch {best[0][0]}: {mean:.1f}%"


def _finish_panel(axes: Axes, kind: str, label: str) -> None:
    drawn = [
        float(value) for line in axes.lines for value in line.get_ydata() if line.get_transform() == axes.transData
    ]
    axes.margins(y=0.07)
    axes.set_ylabel(label)
    if not drawn:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finite value", color=INK, ha="center", transform=axes.transAxes)
    elif kind == "loss" and min(drawn) > 0 and max(drawn) / min(drawn) >= LOG_RATIO:
        axes.set_yscale("log")
        axes.set_ylabel("Cross-entropy (log)")
    elif kind == "acc":
        _zoom_on_the_plateau(axes, sorted(drawn))


def _zoom_on_the_plateau(axes: Axes, drawn: Sequence[float]) -> None:
    """Where a few early epochs would take most of the panel, they are cut off, and the label says so."""
    bottom, top = axes.get_ylim()
    plateau = drawn[len(drawn) // 10]
    if len(drawn) >= FEWEST_VALUES_TO_ZOOM and drawn[-1] - plateau < ZOOM_BELOW * (drawn[-1] - drawn[0]):
        bottom = plateau - 0.15 * max(drawn[-1] - plateau, 1.0)
        top = drawn[-1] + 0.1 * max(drawn[-1] - plateau, 1.0)
        axes.set_ylabel("Accuracy (%)\nearly epochs cut off")
    axes.set_ylim(max(bottom, -3.0), min(top, 103.0))
