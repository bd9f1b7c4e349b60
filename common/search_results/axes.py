"""Where values and scores stand in the pictures: axes that show every trial, whatever became of it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from common.plots import FAINT, GREEN, INK, VERMILION, plain_text
from common.search_results.records import SpaceEntry, StudyRecord, TrialRecord
from common.search_results.wording import is_percent, metric_name, shown_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Scale = Literal["log", "linear", "steps"]

# Trials without a score stand in a strip below the others: marker, colour, and the state in words.
STRIP_MARKS = {
    "diverged": ("x", VERMILION, "diverged"),
    "failed": ("+", INK, "failed"),
    "pruned": ("d", GREEN, "pruned"),
    "running": (".", FAINT, "running"),
    "waiting": ("|", FAINT, "waiting"),
}
LOG_RATIO = 10.0
# Values closer than this, as a share of the axis, would have labels over each other.
_CLOSEST_LABELS = 0.12
_MAX_LABEL = 14
# Where half of the trials lie in less than this share of the range, the rest is cut off.
_PLATEAU_SHARE = 0.2
_PLATEAU_HEIGHTS = 4.0
_LEAST_SHARE = 0.02
_FEWEST_TO_CUT = 10
JITTER = 0.018


@dataclass(frozen=True)
class ValueAxis:
    """The values of one hyperparameter along an axis.

    ``scale``: a range, or a list of numbers that have room beside each other, is true to scale, in the logarithm where
    the range asks for it or the values span a decade; anything else has a place for each value.
    """

    path: str
    values: Sequence[Any]
    scale: Scale
    is_list: bool

    def position(self, value: Any) -> float:
        """Where the value stands, in data coordinates."""
        if self.scale == "steps":
            return float(self._places[_key(value)])
        return float(value)

    def jittered(self, value: Any, number: int, *, by: float = JITTER) -> float:
        """The position, moved aside a little where many trials would cover each other; the same for a trial always.

        Args:
            number: of the trial.
            by: how far at most, as a share of the axis.
        """
        if not self.is_list:
            return self.position(value)
        # Multiples of the golden ratio spread evenly however many there are.
        offset = ((number + 1) * 0.6180339887 % 1.0 - 0.5) * 2 * by
        if self.scale == "log":
            return self.position(value) * math.exp(offset * self._length)
        return self.position(value) + offset * self._length

    def around(self, value: Any) -> tuple[float, float]:
        """The ends of a short line through the value's place."""
        half = 2.4 * JITTER * self._length
        if self.scale == "log":
            return self.position(value) * math.exp(-half), self.position(value) * math.exp(half)
        return self.position(value) - half, self.position(value) + half

    def dress(self, axes: Axes, which: Literal["x", "y"], label: str) -> None:
        """Give the axis its scale, its limits, its ticks and its name."""
        set_scale, set_limits = getattr(axes, f"set_{which}scale"), getattr(axes, f"set_{which}lim")
        if self.scale == "log":
            set_scale("log")
        set_limits(*self._limits)
        if self.is_list:
            positions = [self.position(value) for value in self.values]
            texts = [_tick_text(value) for value in self.values]
            tilted = which == "x" and sum(map(len, texts)) > 26
            look = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if tilted else {}
            getattr(axes, f"set_{which}ticks")(positions, texts, **look)
            axes.tick_params(axis=which, which="minor", length=0, labelbottom=False, labelleft=False)
            for text in getattr(axes, f"get_{which}ticklabels")():
                plain_text(text)
        elif self.scale == "linear":
            axes.locator_params(axis=which, nbins=5)
        plain_text(getattr(axes, f"set_{which}label")(label))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {_key(value): place for place, value in enumerate(self.values)}

    @cached_property
    def _ends(self) -> tuple[float, float]:
        positions = [self.position(value) for value in self.values]
        low, high = min(positions), max(positions)
        return (math.log(low), math.log(high)) if self.scale == "log" else (low, high)

    @property
    def _length(self) -> float:
        low, high = self._ends
        return high - low or 1.0

    @property
    def _limits(self) -> tuple[float, float]:
        low, high = self._ends
        margin = self._length * (0.35 / max(1, len(self.values) - 1) if self.scale == "steps" else 0.08)
        limits = low - margin, high + margin
        return (math.exp(limits[0]), math.exp(limits[1])) if self.scale == "log" else limits


def value_axis(study: StudyRecord, path: str) -> ValueAxis:
    """The axis of a hyperparameter: what the space allows, and what trials had beyond it."""
    entry = next((entry for entry in study.space if entry.path == path), SpaceEntry(path, choices=()))
    tried = [trial.params[path] for trial in study.trials if path in trial.params]
    if entry.choices is None:
        values = sorted({entry.low, entry.high, *tried})
        return ValueAxis(path, values, "log" if entry.log and values[0] > 0 else "linear", is_list=False)
    values = _distinct([*entry.choices, *tried])
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return ValueAxis(path, values, "steps", is_list=True)
    values = sorted(values)
    return ValueAxis(path, values, _scale_of(values), is_list=True)


@dataclass(frozen=True)
class ScoreAxis:
    """The scores along the y axis, with room below for the trials that have none.

    ``low`` and ``high`` are the ends of what is shown; scores beyond them stand at the edge with an arrow.
    """

    study: StudyRecord
    low: float
    high: float
    has_strip: bool

    @property
    def strip(self) -> float:
        """Where trials without a score stand."""
        return self._bottom + 0.055 * (self.high - self._bottom) if self.has_strip else self.low

    @property
    def _bottom(self) -> float:
        return self.low - (0.16 if self.has_strip else 0.0) * (self.high - self.low)

    def is_beyond(self, value: float) -> bool:
        return not self.low <= value <= self.high

    def clipped(self, value: float) -> float:
        """Where a score stands: at its place, or just within the edge."""
        edge = 0.025 * (self.high - self.low)
        return min(max(value, self.low + edge), self.high - edge) if self.is_beyond(value) else value

    def dress(self, axes: Axes, *, with_label: bool = True) -> None:
        """Limits, the strip and its name, and the axis's name."""
        axes.set_ylim(self._bottom, self.high)
        if self.has_strip:
            axes.axhspan(self._bottom, self.low, color="#F1F1F1", zorder=0, linewidth=0)
            axes.set_yticks([tick for tick in axes.get_yticks() if self.low <= tick <= self.high])
            axes.set_ylim(self._bottom, self.high)
        if not any(is_scored(trial) for trial in self.study.trials):
            axes.set_yticks([])
            axes.text(0.5, 0.55, "no trial has a score", color=FAINT, ha="center", transform=axes.transAxes)
        if with_label:
            axes.set_ylabel(score_label(self.study))


def score_axis(study: StudyRecord, more: Iterable[float] = ()) -> ScoreAxis:
    """An axis for the scores of the study's trials and ``more``, cut where a few bad ones would take most of it."""
    scores = sorted([trial.value for trial in study.trials if is_scored(trial)] + list(more))
    has_strip = any(not is_scored(trial) for trial in study.trials)
    if not scores:
        return ScoreAxis(study, 0.0, 1.0, has_strip)
    low, high = scores[0], scores[-1]
    if len(scores) < _FEWEST_TO_CUT:
        return _with_margins(study, low, high, has_strip)
    # The better half, from the worst of it to the best.
    middle = scores[len(scores) // 2]
    height = high - middle if study.direction == "maximize" else middle - low
    if height < _PLATEAU_SHARE * (high - low):
        shown = max(_PLATEAU_HEIGHTS * height, _LEAST_SHARE * (high - low))
        low, high = (high - shown, high) if study.direction == "maximize" else (low, low + shown)
    return _with_margins(study, low, high, has_strip)


def _with_margins(study: StudyRecord, low: float, high: float, has_strip: bool) -> ScoreAxis:
    # Differences that are none would fill the whole picture.
    least = 1.0 if is_percent(study.metric) else 0.01 * max(abs(low), abs(high), 0.1)
    margin = max(0.07 * (high - low), (least - (high - low)) / 2)
    return ScoreAxis(study, low - margin, high + margin, has_strip)


def is_scored(trial: TrialRecord) -> bool:
    """Whether the trial stands at a score of its own: pruned ones were not trained to the end."""
    return trial.state == "complete" and trial.value is not None


def score_label(study: StudyRecord) -> str:
    """``Validation accuracy (%)``."""
    name = metric_name(study.metric)
    unit = " (%)" if is_percent(study.metric) else ""
    return f"{name[:1].upper()}{name[1:]}{unit}"


def _scale_of(values: Sequence[float]) -> Scale:
    if len(values) < 2:
        return "steps"
    is_log = values[0] > 0 and values[-1] / values[0] >= LOG_RATIO
    places = [math.log(value) for value in values] if is_log else list(values)
    closest = min(b - a for a, b in itertools.pairwise(places))
    if closest < _CLOSEST_LABELS * (places[-1] - places[0]):
        return "steps"
    return "log" if is_log else "linear"


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: dict[str, Any] = {}
    for value in values:
        found.setdefault(_key(value), value)
    return list(found.values())


def _key(value: Any) -> str:
    # 1 and true are equal, and yet two values; a list is the same as a tuple.
    return json.dumps(value)


def _tick_text(value: Any) -> str:
    """``0.001``, but ``3e-4`` and ``1e-5``, which take less room than ``0.0003`` and ``1e-05``."""
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    text = shown_value(value)
    return text if len(text) <= _MAX_LABEL else f"{text[: _MAX_LABEL - 1]}…"
