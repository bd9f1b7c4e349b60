"""Pictures of what mattered: the importance of each hyperparameter, and the two most important ones together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.plots import BLUE, FAINT, INK, VERMILION, house_style, plain_text, save_figure
from common.search_results.axes import STRIP_MARKS, is_scored, score_axis, score_label, value_axis
from common.search_results.importance import Importance
from common.search_results.records import StudyRecord, TrialRecord
from common.search_results.score_pictures import RING, laid_out_figure, title_and_legend
from common.search_results.wording import param_paths, short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAIR_JITTER = 0.035


def plot_importance(study: StudyRecord, found: Sequence[Importance], path: str | Path) -> None:
    """A bar for each hyperparameter, the most important on top, with the chance level; pale where it is no more.

    Args:
        found: at least one, the largest first.
    Raises:
        OSError: the file cannot be written.
    """
    names = short_names(param_paths(study))
    labels = [names[entry.path] for entry in found]
    with house_style():
        figure = laid_out_figure(8.6, 1.75 + 0.5 * len(found))
        axes = figure.add_subplot()
        _draw_bars(axes, found)
        axes.set_yticks(range(len(found)), labels)
        for text in axes.get_yticklabels():
            plain_text(text)
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_xlim(0, 1.08 * max(max(entry.share, entry.chance) for entry in found) or 1.0)
        axes.grid(False, axis="y")
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.set_xlabel("Error that shuffling its values adds (share of the variance)")
        title_and_legend(figure, "What the score depended on", [axes])
        save_figure(figure, path)


def plot_pair(study: StudyRecord, pair: tuple[str, str], title: str, path: str | Path) -> None:
    """Every trial by its values of two hyperparameters, coloured by its score.

    Raises:
        OSError: the file cannot be written.
    """
    names = short_names(param_paths(study))
    across, up = (value_axis(study, name) for name in pair)
    shown = [trial for trial in study.trials if all(name in trial.params for name in pair)]
    with house_style():
        figure = laid_out_figure(8.2, 6.6)
        axes = figure.add_subplot()
        across.dress(axes, "x", names[pair[0]])
        up.dress(axes, "y", names[pair[1]])
        places = {trial.number: (across.jittered(trial.params[pair[0]], trial.number, by=PAIR_JITTER),
                                 up.jittered(trial.params[pair[1]], 7 * trial.number + 3, by=PAIR_JITTER))
                  for trial in shown}  # fmt: skip
        _draw_scored(axes, study, shown, places)
        _draw_others(axes, study, shown, places)
        axes.tick_params(length=0)
        left_out = len(study.trials) - len(shown)
        where = f" ({left_out} trials lack one of them)" if left_out else ""
        title_and_legend(figure, f"{title}{where}", [axes])
        save_figure(figure, path)


def _draw_bars(axes: Axes, found: Sequence[Importance]) -> None:
    for label, colour, is_clear in (("more than chance", BLUE, True), ("no more than chance", "#C9C9C9", False)):
        chosen = [(place, entry.share) for place, entry in enumerate(found) if entry.is_clear is is_clear]
        if chosen:
            axes.barh([place for place, _ in chosen], [share for _, share in chosen], height=0.56, color=colour,
                      label=label)  # fmt: skip
    for place, entry in enumerate(found):
        axes.plot([entry.chance] * 2, [place - 0.36, place + 0.36], color=VERMILION, linewidth=2.2,
                  label="chance level")  # fmt: skip


def _draw_scored(
    axes: Axes, study: StudyRecord, shown: Sequence[TrialRecord], places: dict[int, tuple[float, float]]
) -> None:
    scored = [trial for trial in shown if is_scored(trial)]
    if not scored:
        return
    scores = score_axis(study)
    values = [trial.value for trial in scored]
    low, high = max(min(values), scores.low), min(max(values), scores.high)
    if low == high:
        low, high = scores.low, scores.high
    picture = axes.scatter(
        [places[trial.number][0] for trial in scored], [places[trial.number][1] for trial in scored], c=values,
        # The best is dark, in either direction.
        cmap="cividis_r" if study.direction == "maximize" else "cividis",
        vmin=low, vmax=high, s=80, edgecolors=INK, linewidths=0.6, zorder=3,
    )  # fmt: skip
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    extend = ends[min(values) < low, max(values) > high]
    bar = axes.figure.colorbar(picture, ax=axes, fraction=0.05, pad=0.025, extend=extend)
    bar.set_label(score_label(study))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)


def _draw_others(
    axes: Axes, study: StudyRecord, shown: Sequence[TrialRecord], places: dict[int, tuple[float, float]]
) -> None:
    for state, (marker, colour, label) in STRIP_MARKS.items():
        found = [places[trial.number] for trial in shown if trial.state == state]
        if found:
            axes.plot(*zip(*found, strict=True), marker, color=colour, label=label, markersize=8, markeredgewidth=1.9,
                      linestyle="none", zorder=4)  # fmt: skip
    if study.winner in places:
        axes.plot(*[[place] for place in places[study.winner]], "o", markersize=16, zorder=5,
                  label=f"winner (trial {study.winner})", **RING)  # fmt: skip
    if not axes.get_legend_handles_labels()[0]:
        axes.plot([], [], "o", color=FAINT, label="trial", linestyle="none")
