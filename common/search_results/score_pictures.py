"""Pictures of scores: against each hyperparameter, and the best so far against trials and time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from common.plots import BLUE, FAINT, INK, VERMILION, house_style, new_figure, plain_text, save_figure
from common.search_results.axes import STRIP_MARKS, ScoreAxis, ValueAxis, is_scored, score_axis, value_axis
from common.search_results.records import StudyRecord, TrialRecord
from common.search_results.verdict import confirmed_winner
from common.search_results.winner import fresh_values
from common.search_results.wording import is_better, param_paths, short_names, shown_score, trial_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS_PER_ROW = 3
RING = {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 1.9, "linestyle": "none"}
# Times up to these many seconds are told in that unit.
_TIME_UNITS = ((180.0, 1.0, "s"), (3 * 3600.0, 60.0, "min"), (float("inf"), 3600.0, "h"))


def plot_hyperparameters(study: StudyRecord, path: str | Path) -> None:
    """The score of every trial against each hyperparameter, a panel each, with the median of each listed value.

    Raises:
        ValueError: no trial has a hyperparameter.
        OSError: the file cannot be written.
    """
    paths = [name for name in param_paths(study) if any(name in trial.params for trial in study.trials)]
    if not paths:
        raise ValueError("no hyperparameters to plot")
    names, scores = short_names(paths), score_axis(study)
    columns = 2 if len(paths) == 4 else min(PANELS_PER_ROW, len(paths))
    rows = -(-len(paths) // columns)
    with house_style():
        figure = laid_out_figure(max(7.6, 4.6 * columns), 1.1 + 3.4 * rows)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for place, name in enumerate(paths):
            _draw_panel(panels[place], study, name, names[name], scores, is_left=place % columns == 0)
        for axes in panels[len(paths) :]:
            axes.set_visible(False)
        title_and_legend(figure, "Score against each hyperparameter", panels[: len(paths)])
        save_figure(figure, path)


def plot_history(study: StudyRecord, path: str | Path) -> None:
    """Every trial and the best so far, against the number of trials and against the time they took.

    Raises:
        ValueError: there is no trial.
        OSError: the file cannot be written.
    """
    if not study.trials:
        raise ValueError("no trials to plot")
    trials = sorted(study.trials, key=lambda trial: trial.number)
    confirmed = [value for entry in study.confirmations for value in fresh_values(entry)]
    winner = confirmed_winner(study)
    scores = score_axis(study, [*confirmed, *([winner.estimate] if winner else [])])
    with house_style():
        figure = laid_out_figure(11.0, 5.4)
        by_number, by_time = figure.subplots(1, 2, sharey=True)
        _draw_history(by_number, study, trials, [float(trial.number) for trial in trials], scores)
        _draw_confirmations(by_number, study, scores)
        unit_s, unit = _time_unit(sum(trial.duration_s or 0.0 for trial in trials))
        ends, total = [], 0.0
        for trial in trials:
            total += (trial.duration_s or 0.0) / unit_s
            ends.append(total)
        _draw_history(by_time, study, trials, ends, scores)
        _finish_history(by_number, by_time, scores, unit, trials[-1].number, total)
        title_and_legend(figure, "Best so far", [by_number, by_time])
        save_figure(figure, path)


def draw_marks(axes: Axes, study: StudyRecord, trials: Sequence[TrialRecord], x_of: Callable[[TrialRecord], float],
               scores: ScoreAxis, **look: object) -> None:  # fmt: skip
    """Every trial at its score: dots, arrows where it lies beyond the axis, marks of their own for those without."""
    scored = [trial for trial in trials if is_scored(trial)]
    inside = [trial for trial in scored if not scores.is_beyond(trial.value)]
    beyond = [trial for trial in scored if scores.is_beyond(trial.value)]
    look = {"color": BLUE, "alpha": 0.75, "markersize": 6.5, "linestyle": "none", "markeredgewidth": 0, **look}
    if inside:
        axes.plot([x_of(t) for t in inside], [t.value for t in inside], "o", label="trial", **look)
    if beyond:
        arrow = "v" if study.direction == "maximize" else "^"
        axes.plot([x_of(t) for t in beyond], [scores.clipped(t.value) for t in beyond], arrow,
                  label="worse than shown", **look)  # fmt: skip
    for state, (marker, colour, label) in STRIP_MARKS.items():
        found = [trial for trial in trials if trial.state == state or (state == "failed" and _is_lost(trial))]
        if found:
            axes.plot([x_of(t) for t in found], [scores.strip] * len(found), marker, color=colour, label=label,
                      markersize=7, markeredgewidth=1.7, linestyle="none", clip_on=False)  # fmt: skip


def laid_out_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure whose panels make room for their labels by themselves."""
    figure = new_figure(width_in, height_in)
    # Before anything is drawn: colour bars are built differently without it.
    figure.set_layout_engine("constrained")
    return figure


def title_and_legend(figure: Figure, title: str, panels: Sequence[Axes]) -> None:
    """A title, below it one legend of all that the panels show, and the panels in the room that is left."""
    width, height = figure.get_size_inches()
    left = 0.15 / width
    plain_text(figure.text(left, 1 - 0.14 / height, title, ha="left", va="top", fontsize=15, fontweight="bold"))
    top = _draw_legend(figure, panels, left, 1 - 0.52 / height)
    figure.get_layout_engine().set(rect=(0.0, 0.0, 1.0, top - 0.08 / height), w_pad=0.1, h_pad=0.1)


def _draw_legend(figure: Figure, panels: Sequence[Axes], left: float, top: float) -> float:
    """A legend with as many columns as there is room for; returns its lower end, as a share of the figure's height."""
    found = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    for columns in range(len(found), 0, -1):
        legend = figure.legend(found.values(), found.keys(), ncols=columns, frameon=False, fontsize=11.5,
                               handletextpad=0.35, columnspacing=1.1, borderaxespad=0.0, borderpad=0.0,
                               handlelength=1.4, loc="upper left", bbox_to_anchor=(left, top))  # fmt: skip
        box = legend.get_window_extent(figure.canvas.get_renderer()).transformed(figure.transFigure.inverted())
        if box.x1 <= 1.0 - left or columns == 1:
            return float(box.y0)
        legend.remove()
    return top


def _draw_panel(axes: Axes, study: StudyRecord, path: str, name: str, scores: ScoreAxis, *, is_left: bool) -> None:
    trials = [trial for trial in study.trials if path in trial.params]
    values = value_axis(study, path)
    label = name if len(trials) == len(study.trials) else f"{name} ({len(trials)} of {len(study.trials)} trials)"
    values.dress(axes, "x", label)
    draw_marks(axes, study, trials, lambda trial: values.jittered(trial.params[path], trial.number), scores)
    _draw_medians(axes, trials, path, values, scores)
    winner = next((trial for trial in trials if trial.number == study.winner), None)
    if winner is not None and winner.value is not None:
        axes.plot([values.jittered(winner.params[path], winner.number)], [scores.clipped(winner.value)], "o",
                  markersize=12, label=f"winner (trial {winner.number})", zorder=5, **RING)  # fmt: skip
    scores.dress(axes, with_label=is_left)
    axes.tick_params(length=0, labelleft=is_left)


def _draw_medians(axes: Axes, trials: Sequence[TrialRecord], path: str, values: ValueAxis, scores: ScoreAxis) -> None:
    if not values.is_list:
        return
    for value in values.values:
        found = [trial.value for trial in trials if is_scored(trial) and trial.params[path] == value]
        if len(found) > 1 and not scores.is_beyond(middle := median(found)):
            axes.plot(values.around(value), [middle, middle], "-", color=INK, linewidth=2.0,
                      label="median", zorder=1.5, solid_capstyle="butt")  # fmt: skip


def _draw_history(
    axes: Axes, study: StudyRecord, trials: Sequence[TrialRecord], places: Sequence[float], scores: ScoreAxis
) -> None:
    place_of = {trial.number: place for trial, place in zip(trials, places, strict=True)}
    draw_marks(axes, study, trials, lambda trial: place_of[trial.number], scores, color=FAINT)
    best: list[tuple[float, float]] = []
    for trial in trials:
        if is_scored(trial) and (not best or is_better(trial.value, best[-1][1], study)):
            best.append((place_of[trial.number], trial.value))
    if not best:
        return
    steps = [*best, (places[-1], best[-1][1])]
    axes.plot([x for x, _ in steps], [scores.clipped(y) for _, y in steps], color=BLUE, linewidth=2.3,
              drawstyle="steps-post", label="best so far (one seed)", zorder=3)  # fmt: skip


def _draw_confirmations(axes: Axes, study: StudyRecord, scores: ScoreAxis) -> None:
    points = [(entry.number, value) for entry in study.confirmations for value in fresh_values(entry)]
    if points:
        axes.plot([x for x, _ in points], [scores.clipped(y) for _, y in points], "D", markersize=6.5, zorder=4,
                  label="the same with fresh seeds", **{**RING, "markeredgecolor": VERMILION})  # fmt: skip
    winner = confirmed_winner(study)
    if winner is not None:
        axes.plot([winner.number], [scores.clipped(trial_of(study, winner.number).value)], "o", markersize=12,
                  label=f"winner (trial {winner.number})", zorder=5, **RING)  # fmt: skip


def _finish_history(
    by_number: Axes, by_time: Axes, scores: ScoreAxis, unit: str, last_number: int, total: float
) -> None:
    from matplotlib.ticker import MaxNLocator

    winner = confirmed_winner(scores.study)
    for axes in (by_number, by_time):
        scores.dress(axes, with_label=axes is by_number)
        axes.tick_params(length=0)
        if winner is not None:
            label = f"expected with another seed: {shown_score(winner.estimate, scores.study.metric)}"
            axes.axhline(winner.estimate, color=VERMILION, linestyle="--", linewidth=1.6, label=label, zorder=2)
    by_number.set_xlim(-0.7, last_number + 0.7)
    by_number.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, min_n_ticks=1))
    by_number.set_xlabel("Trial")
    by_time.set_xlim(0, max(total, 1e-9) * 1.03)
    by_time.set_xlabel(f"Training time of the trials, added up ({unit})")


def _is_lost(trial: TrialRecord) -> bool:
    """A trial that is called complete and yet has no score."""
    return trial.state == "complete" and trial.value is None


def _time_unit(total_s: float) -> tuple[float, str]:
    return next((unit_s, unit) for up_to, unit_s, unit in _TIME_UNITS if total_s <= up_to)
