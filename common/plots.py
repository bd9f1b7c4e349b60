"""Pictures of a run, as PNG files: learning curves and the confusion matrix.

Drawn through matplotlib's objects rather than pyplot, which takes half a second more to import and keeps global state.
Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), told apart by every kind of eye, and each curve
has a line style of its own too. The same values give the same bytes, whatever the user's matplotlib settings.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from common.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

DOTS_PER_INCH = 120
BLUE, VERMILION, GREEN, INK, FAINT = "#0072B2", "#D55E00", "#009E73", "#222222", "#8A8A8A"
STYLE = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so it is the same everywhere
    "font.size": 13,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#E4E4E4",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
# Beyond this ratio of largest to smallest value a linear axis would hide the small ones.
LOG_RATIO_LOSS = 300.0
LOG_RATIO_LEARNING_RATE = 10.0
MAX_EPOCHS_WITH_DOTS = 40
MAX_ANNOTATED_CLASSES = 20
MAX_CLASSES_WITH_PERCENT = 10
MAX_CLASS_LABELS = 50
DARK_ABOVE_PCT = 30.0  # cells from here on are dark enough for white text


def plot_learning_curves(
    epochs: Sequence[Mapping[str, Any]], best_epoch: int | None, path: str | Path, title: str
) -> None:
    """Loss, accuracy and learning rate over the epochs, training against validation.

    Args:
        epochs: as in metrics.json: ``num, train_loss, val_loss, train_acc, val_acc`` (percent) and ``lr``. A value
            may be None or missing: an epoch whose training loss is None is marked as not finite, any other gap is
            bridged, since validation need not run in every epoch.
        best_epoch: its number, marked in every panel; None marks nothing.
        path: of the PNG file, replaced in one step.
        title: one line above the picture.
    Raises:
        ValueError: there is no epoch.
        OSError: the file cannot be written.
    """
    if not epochs:
        raise ValueError("no epochs to plot")
    has_rate = any(finite_value(epoch, "lr") is not None for epoch in epochs)
    with house_style():
        figure = new_figure(8.0, 8.2 if has_rate else 7.0)
        heights = [3, 3, 1.15] if has_rate else [3, 3]
        panels = figure.subplots(len(heights), sharex=True, height_ratios=heights)
        figure.subplots_adjust(left=0.135, right=0.965, top=0.885, bottom=0.08, hspace=0.3)
        plain_text(figure.suptitle(title, x=0.135, y=0.975, ha="left", fontsize=15, fontweight="bold"))
        _draw_loss(panels[0], epochs, best_epoch)
        _draw_accuracy(panels[1], epochs, best_epoch)
        if has_rate:
            _draw_learning_rate(panels[2], epochs)
        figure.align_ylabels(panels)
        finish_epoch_axis(panels, [int(epoch["num"]) for epoch in epochs], best_epoch)
        save_figure(figure, path)


def plot_confusion_matrix(matrix_CC: npt.ArrayLike, class_names: Sequence[str], path: str | Path, title: str) -> None:
    """Counts of true against predicted class; the colour is the share of the row, so that rare classes show too.

    Up to 20 classes every count is written into its cell, up to 10 with the row's percentage.

    Args:
        matrix_CC: counts, integers >= 0, shape (C, C); row: true class, column: predicted class.
        class_names: C names in the order of the class indices.
        path: of the PNG file, replaced in one step.
        title: one line above the picture.
    Raises:
        ValueError: the matrix is not square, or the number of names is another.
        OSError: the file cannot be written.
    """
    counts_CC = np.asarray(matrix_CC, dtype=np.int64)
    if counts_CC.ndim != 2 or counts_CC.shape != (len(class_names), len(class_names)) or not len(class_names):
        raise ValueError(f"a confusion matrix {counts_CC.shape} does not fit {len(class_names)} class names")
    support_C1 = counts_CC.sum(axis=1, keepdims=True)
    share_pct_CC = np.ma.masked_where(support_C1.repeat(len(counts_CC), 1) == 0, 100 * counts_CC) / support_C1.clip(1)
    with house_style():
        side = min(12.0, max(4.2, 1.6 + 0.7 * len(class_names)))
        figure = new_figure(side + 1.2, side)
        axes = figure.add_subplot()
        _draw_shares(figure, axes, share_pct_CC)
        _label_classes(axes, class_names, has_empty_rows=bool((support_C1 == 0).any()))
        if len(class_names) <= MAX_ANNOTATED_CLASSES:
            _write_counts(axes, counts_CC, share_pct_CC)
        plain_text(axes.set_title(title, loc="left", fontsize=15, fontweight="bold", pad=14))
        save_figure(figure, path, bbox_inches="tight", pad_inches=0.2)


def _draw_loss(axes: Axes, epochs: Sequence[Mapping[str, Any]], best_epoch: int | None) -> None:
    _draw_pair(axes, epochs, "train_loss", "val_loss", best_epoch, "{:.4g}")
    not_finite = [epoch["num"] for epoch in epochs if finite_value(epoch, "train_loss") is None]
    if not_finite:
        low = [0.04] * len(not_finite)
        axes.plot(not_finite, low, "x", color=INK, transform=axes.get_xaxis_transform(), label="not finite")
    values = [
        v for epoch in epochs for key in ("train_loss", "val_loss") if (v := finite_value(epoch, key)) is not None
    ]
    log = _spans(values, LOG_RATIO_LOSS)
    if log:
        axes.set_yscale("log")
    axes.set_ylabel("Cross-entropy (log)" if log else "Cross-entropy loss")
    legend_above(axes)


def _draw_accuracy(axes: Axes, epochs: Sequence[Mapping[str, Any]], best_epoch: int | None) -> None:
    _draw_pair(axes, epochs, "train_acc", "val_acc", best_epoch, "{:.1f}%")
    bottom, top = axes.get_ylim()
    middle = (bottom + top) / 2
    axes.set_ylim(max(min(bottom, middle - 2.0), -3.0), min(max(top, middle + 2.0), 103.0))
    axes.set_ylabel("Accuracy (%)")
    legend_above(axes)


def _draw_pair(
    axes: Axes, epochs: Sequence[Mapping[str, Any]], train: str, val: str, best_epoch: int | None, number: str
) -> None:
    dot = {"marker": "o", "markersize": 4.5} if len(epochs) <= MAX_EPOCHS_WITH_DOTS else {}
    _draw_curve(axes, epochs, train, color=BLUE, linestyle="--", label="training", **dot)
    _draw_curve(axes, epochs, val, color=VERMILION, linestyle="-", label="validation", **dot)
    if not axes.lines:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finite value", color=FAINT, ha="center", transform=axes.transAxes)
    axes.margins(y=0.09)  # room for the ring around the best epoch
    best = next((finite_value(epoch, val) for epoch in epochs if epoch["num"] == best_epoch), None)
    if best is not None:
        label = f"best epoch {best_epoch}: {number.format(best)}"
        ring = {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 1.8, "markersize": 11}
        axes.plot([best_epoch], [best], "o", linestyle="none", label=label, zorder=5, **ring)


def _draw_learning_rate(axes: Axes, epochs: Sequence[Mapping[str, Any]]) -> None:
    dot = {"marker": "o", "markersize": 4.5} if len(epochs) == 1 else {}
    _draw_curve(axes, epochs, "lr", color=GREEN, linestyle="-", drawstyle="steps-mid", **dot)
    rates = [rate for epoch in epochs if (rate := finite_value(epoch, "lr")) is not None]
    if _spans(rates, LOG_RATIO_LEARNING_RATE):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.15 * max(rates) or 1.0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        axes.locator_params(axis="y", nbins=3)
    axes.set_ylabel("Learning\nrate")


def _draw_curve(axes: Axes, epochs: Sequence[Mapping[str, Any]], key: str, **look: Any) -> None:
    points = [(epoch["num"], value) for epoch in epochs if (value := finite_value(epoch, key)) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), linewidth=2.0, **look)


def finish_epoch_axis(panels: Sequence[Axes], numbers: Sequence[int], best_epoch: int | None) -> None:
    """Whole epochs along the shared x axis of ``panels``, and the best one marked in each."""
    from matplotlib.ticker import MaxNLocator

    panels[-1].set_xlim(numbers[0] - 0.5, numbers[-1] + max(0.5, 0.02 * len(numbers)))
    panels[-1].xaxis.set_major_locator(MaxNLocator(nbins=11, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    panels[-1].set_xlabel("Epoch")
    for axes in panels:
        axes.tick_params(length=0)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=INK, linestyle=":", linewidth=1.3, zorder=1.5)


def legend_above(axes: Axes) -> None:
    """The legend in one row above the panel, where it covers no data."""
    if axes.get_legend_handles_labels()[0]:
        place = {"loc": "lower left", "bbox_to_anchor": (-0.012, 0.985), "ncols": 4}
        axes.legend(frameon=False, fontsize=12, handlelength=1.8, handletextpad=0.6, columnspacing=1.3, **place)


def _draw_shares(figure: Figure, axes: Axes, share_pct_CC: np.ma.MaskedArray) -> None:
    from matplotlib.colors import PowerNorm

    axes.grid(False)
    axes.set_facecolor("#EDEDED")  # rows without an example
    # The square root makes an error rate of a few percent visible beside a diagonal near 100.
    picture = axes.imshow(share_pct_CC, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=100), aspect="equal")
    bar = figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.03, ticks=[0, 1, 5, 10, 25, 50, 75, 100])
    bar.set_label("Share of the true class (%)")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    edges = np.arange(len(share_pct_CC) + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    if len(share_pct_CC) <= MAX_CLASS_LABELS:
        axes.grid(True, which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _label_classes(axes: Axes, class_names: Sequence[str], *, has_empty_rows: bool) -> None:
    positions = range(0, len(class_names), math.ceil(len(class_names) / MAX_CLASS_LABELS))
    many = len(positions) > MAX_ANNOTATED_CLASSES
    names = [_shortened(str(class_names[position]), 16 if many else 24) for position in positions]
    rotation = 90 if many else 45 if max(map(len, names)) > 3 else 0
    look = {"rotation": rotation, "ha": "right", "rotation_mode": "anchor"} if rotation else {}
    if many and rotation:
        look["va"] = "center"
    size = 10 if many else 13
    axes.set_xticks(positions, names, fontsize=size, **look)
    axes.set_yticks(positions, names, fontsize=size)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        plain_text(label)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class (grey: no examples)" if has_empty_rows else "True class")


def _write_counts(axes: Axes, counts_CC: npt.NDArray[np.int64], share_pct_CC: np.ma.MaskedArray) -> None:
    with_percent = len(counts_CC) <= MAX_CLASSES_WITH_PERCENT
    size, lift = (13, 5) if with_percent else (11, 0)
    for row, column in np.argwhere(counts_CC > 0).tolist():
        share_pct = float(share_pct_CC[row, column])
        look = {"ha": "center", "va": "center", "textcoords": "offset points"}
        look["color"] = "white" if share_pct > DARK_ABOVE_PCT else INK
        axes.annotate(str(counts_CC[row, column]), (column, row), xytext=(0, lift), fontsize=size, **look)
        if with_percent:
            axes.annotate(_percent(share_pct), (column, row), xytext=(0, -11), fontsize=10, **look)


def _percent(share_pct: float) -> str:
    # Neither an error nor a miss may be rounded away.
    if 0 < share_pct < 1 or 99 < share_pct < 100:
        return f"{min(max(share_pct, 0.1), 99.9):.1f}%"
    return f"{share_pct:.0f}%"


def _shortened(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def finite_value(epoch: Mapping[str, Any], key: str) -> float | None:
    """The value of an epoch, None where it is missing or not finite."""
    value = epoch.get(key)
    return None if value is None or not math.isfinite(value) else float(value)


def _spans(values: Sequence[float], ratio: float) -> bool:
    return bool(values) and min(values) > 0 and max(values) / min(values) >= ratio


def plain_text(text: Text) -> None:
    """Show a text as it is written."""
    # Names come from folders and configs: a dollar sign in them is no formula.
    text.set_parse_math(False)


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Draw in the look of all our pictures while the block runs, whatever the user's settings are."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes, which speak for themselves.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure, its size in inches, at 120 dots per inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path, **options: Any) -> None:
    """Write the figure as PNG in one step; ``options`` go to matplotlib. Raises OSError."""
    buffer = io.BytesIO()
    # Without the software's version the bytes depend on the picture alone.
    figure.savefig(buffer, format="png", metadata={"Software": None}, **options)
    write_bytes(path, buffer.getbuffer())
