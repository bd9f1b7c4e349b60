"""Pictures of a diagnosis: the curves with the evidence marked, and a sheet of the suspicious samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from common.diagnosis.diagnosing import Diagnosis
from common.diagnosis.evidence import RunEvidence
from common.plots import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    VERMILION,
    finish_epoch_axis,
    finite_value,
    house_style,
    legend_above,
    new_figure,
    plain_text,
    save_figure,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARK = "#F0E442"
LOG_RATIO = 300.0
SHEET_COLUMNS = 8


def draw_evidence(run: RunEvidence, diagnosis: Diagnosis, path: Path) -> None:
    """Loss and accuracy over the epochs; the panel and the epochs that show the primary issue are marked, and the
    yardsticks stand beside the curves.

    Raises:
        ValueError: there is no epoch.
        OSError: the file cannot be written.
    """
    if not run.epochs:
        raise ValueError("no epochs to draw")
    with house_style():
        figure = new_figure(8.0, 7.0)
        loss, accuracy = figure.subplots(2, sharex=True)
        figure.subplots_adjust(left=0.115, right=0.965, top=0.875, bottom=0.085, hspace=0.28)
        title = diagnosis.primary.cause.title if diagnosis.primary else "nothing is wrong"
        heading = f"{title[:1].upper()}{title[1:]}"
        size = 15 if len(heading) < 55 else 12
        plain_text(figure.suptitle(heading, x=0.115, y=0.98, ha="left", fontsize=size, fontweight="bold"))
        _draw_loss(loss, run)
        _draw_accuracy(accuracy, run)
        _mark(loss, accuracy, diagnosis)
        finish_epoch_axis([loss, accuracy], [int(epoch["num"]) for epoch in run.epochs], run.run.best_epoch)
        save_figure(figure, path)


def draw_samples(images: Sequence[npt.NDArray], captions: Sequence[str], path: Path, title: str) -> None:
    """A sheet of images with a caption under each.

    Args:
        images: uint8 or float on the scale 0 to 1, (C, H, W) with 1 or 3 channels.
        captions: as many; two short lines each.
    Raises:
        OSError: the file cannot be written.
    """
    rows = math.ceil(len(images) / SHEET_COLUMNS)
    with house_style():
        figure = new_figure(10.0, 0.8 + 1.75 * rows)
        plain_text(figure.suptitle(title, x=0.02, y=1 - 0.2 / (0.8 + 1.75 * rows), ha="left", va="top", fontsize=14,
                                   fontweight="bold"))  # fmt: skip
        figure.subplots_adjust(
            left=0.02, right=0.98, bottom=0.4 / (0.8 + 1.75 * rows), top=1 - 0.7 / (0.8 + 1.75 * rows), hspace=0.55
        )
        cells = np.atleast_1d(figure.subplots(rows, SHEET_COLUMNS)).ravel()
        for cell in cells:
            cell.set_axis_off()
        for cell, image, caption in zip(cells, images, captions, strict=False):
            cell.imshow(_displayable(image), cmap="gray_r" if image.shape[0] == 1 else None, interpolation="nearest")
            plain_text(cell.set_title(caption, fontsize=9, y=-0.12, va="top", linespacing=1.15))
        save_figure(figure, path)


def _draw_loss(axes: Axes, run: RunEvidence) -> None:
    _curve(axes, run, "train_loss", "training", BLUE, "--")
    _curve(axes, run, "val_loss", "validation", VERMILION, "-")
    values = [line.get_ydata() for line in axes.lines]
    known = np.concatenate(values) if values else np.empty(0)
    if known.size and known.min() > 0 and known.max() / known.min() >= LOG_RATIO:
        axes.set_yscale("log")
    if run.num_classes:
        axes.axhline(math.log(run.num_classes), color=FAINT, linestyle="-.", linewidth=1.3, label="nothing learnt")
    axes.set_ylabel("Cross-entropy loss")
    legend_above(axes)


def _draw_accuracy(axes: Axes, run: RunEvidence) -> None:
    _curve(axes, run, "train_acc", "training", BLUE, "--")
    _curve(axes, run, "val_acc", "validation", VERMILION, "-")
    axes.axhline(run.majority_acc_pct, color=FAINT, linestyle="-.", linewidth=1.3, label="one class always")
    if run.yardstick_acc_pct is not None:
        axes.axhline(run.yardstick_acc_pct, color=GREEN, linestyle=":", linewidth=1.8, label="simple method")
    axes.set_ylim(-3, 103)
    axes.set_ylabel("Accuracy (%)")
    legend_above(axes)


def _curve(axes: Axes, run: RunEvidence, key: str, label: str, colour: str, style: str) -> None:
    points = [(epoch["num"], value) for epoch in run.epochs if (value := finite_value(epoch, key)) is not None]
    if points:
        dot = {"marker": "o", "markersize": 4.0} if len(points) <= 40 else {}
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=2.0, label=label, **dot)


def _mark(loss: Axes, accuracy: Axes, diagnosis: Diagnosis) -> None:
    """Write the first fact of the primary issue into the panel that shows it, and shade the epochs it speaks of."""
    if diagnosis.primary is None:
        return
    finding = diagnosis.primary.finding
    axes = loss if finding.curve in ("train_loss", "val_loss") else accuracy
    if finding.epochs:
        axes.axvspan(min(finding.epochs) - 0.4, max(finding.epochs) + 0.4, color=MARK, alpha=0.4, zorder=0)
    fact = finding.facts[0]
    note = axes.annotate(_shortened(f"{fact.what}: {fact.value}"), (0.99, 0.5), xycoords="axes fraction", ha="right",
                         va="center", fontsize=10.5, color=INK,
                         bbox={"facecolor": "white", "edgecolor": FAINT, "alpha": 0.85, "pad": 4})  # fmt: skip
    plain_text(note)


def _shortened(text: str, length: int = 84) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _displayable(image: npt.NDArray) -> npt.NDArray:
    """(C, H, W) as matplotlib wants it, floats stretched to their own range."""
    shown = np.moveaxis(image, 0, -1)
    if shown.dtype != np.uint8:
        low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
        shown = (np.nan_to_num(shown) - low) / max(high - low, 1e-12)
    return shown[..., 0] if shown.shape[-1] == 1 else shown
