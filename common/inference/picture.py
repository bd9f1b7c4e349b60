"""Latency as a picture: how it is distributed, and how it went over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.inference.measurement import Measurement
from common.inference.percentiles import Percentile
from common.inference.wording import milliseconds
from common.plots import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    VERMILION,
    house_style,
    legend_above,
    new_figure,
    plain_text,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

ROW_HEIGHT_IN = 3.6
MAX_POINTS = 20_000
NUM_BINS = 60
# A linear axis up to the slowest call would leave the others in one bar.
LOG_RATIO = 20.0
_LINES = {50.0: (INK, "-"), 95.0: (GREEN, "--"), 99.0: (VERMILION, "-.")}


def plot_latency(measurements: Sequence[Measurement], names: Sequence[str], path: str | Path, title: str) -> None:
    """A row per measurement: histogram of latency on the left, latency over time on the right.

    Args:
        names: one per measurement, its row's heading.
        path: of the PNG file, replaced in one step.
        title: one line above the picture.
    Raises:
        OSError: the file cannot be written.
    """
    rows = len(measurements)
    with house_style():
        height = ROW_HEIGHT_IN * rows + 1.0
        figure = new_figure(12.0, height)
        panels = figure.subplots(rows, 2, squeeze=False)
        figure.subplots_adjust(
            left=0.095, right=0.98, top=1 - 1.25 / height, bottom=0.7 / height, hspace=0.55, wspace=0.2
        )
        plain_text(figure.suptitle(title, x=0.095, y=1 - 0.2 / height, ha="left", va="top", fontsize=15,
                                   fontweight="bold"))  # fmt: skip
        for row, measurement, name in zip(panels, measurements, names, strict=True):
            _draw_histogram(row[0], measurement, name)
            _draw_timeline(row[1], measurement)
        save_figure(figure, path)


def _draw_histogram(axes: Axes, measurement: Measurement, name: str) -> None:
    latency_ms = measurement.timings.latency_ms
    low, high = float(latency_ms.min()), float(latency_ms.max())
    log = low > 0 and high > LOG_RATIO * low
    bins = np.geomspace(low, high, NUM_BINS) if log else np.linspace(low, max(high, low * 1.001), NUM_BINS)
    axes.hist(latency_ms, bins=bins, color=BLUE, log=True, zorder=2)
    if log:
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
    for found in _given(measurement):
        colour, style = _LINES[found.pct]
        label = f"{found.name} {milliseconds(found.value_ms)}"
        axes.axvline(found.value_ms, color=colour, linestyle=style, linewidth=1.8, label=label, zorder=3)
    axes.set_xlabel("Latency (ms)")
    axes.set_ylabel(f"{name}\nCalls (log)")
    legend_above(axes)


def _draw_timeline(axes: Axes, measurement: Measurement) -> None:
    timings = measurement.timings
    time_s, latency_ms, preempted = timings.started_ns / 1e9, timings.latency_ms, timings.preemptions > 0
    shown = _thinned(latency_ms)
    calm, disturbed = shown[~preempted[shown]], shown[preempted[shown]]
    axes.plot(time_s[calm], latency_ms[calm], ".", color=BLUE, markersize=3, label="call", rasterized=True)
    if len(disturbed):
        axes.plot(time_s[disturbed], latency_ms[disturbed], "x", color=VERMILION, markersize=4, label="preempted call")
    for found in _given(measurement):
        colour, style = _LINES[found.pct]
        axes.axhline(found.value_ms, color=colour, linestyle=style, linewidth=1.2)
    if latency_ms.min() > 0 and latency_ms.max() > LOG_RATIO * latency_ms.min():
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("Time since the first call (s)")
    axes.set_ylabel("Latency (ms)", color=INK)
    axes.tick_params(color=FAINT)
    legend_above(axes)


def _plain_numbers(axis: Axis) -> None:
    """``0.1`` rather than a power of ten."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _given(measurement: Measurement) -> list[Percentile]:
    return [found for found in measurement.percentiles if found.pct in _LINES and found.value_ms is not None]


def _thinned(latency_ms: np.ndarray) -> np.ndarray:
    """Which calls to draw: all, or evenly many and the slowest of all, which are what one looks for."""
    count = len(latency_ms)
    if count <= MAX_POINTS:
        return np.arange(count)
    even = np.linspace(0, count - 1, MAX_POINTS).astype(int)
    slowest = np.argsort(latency_ms)[-(MAX_POINTS // 10) :]
    return np.union1d(even, slowest)
