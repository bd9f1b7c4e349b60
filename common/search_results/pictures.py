"""All pictures of a study, and what they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.search_results.importance import Importance, importances
from common.search_results.importance_pictures import plot_importance, plot_pair
from common.search_results.records import StudyRecord
from common.search_results.score_pictures import plot_history, plot_hyperparameters
from common.search_results.wording import param_paths

HYPERPARAMETERS = "score_by_hyperparameter.png"
HISTORY = "best_so_far.png"
IMPORTANCE = "importance.png"
PAIR = "most_important_pair.png"
ALL_NAMES = (HYPERPARAMETERS, HISTORY, IMPORTANCE, PAIR)


@dataclass(frozen=True)
class Pictures:
    """``names`` are the files that were drawn, ``importances`` None where there is too little to tell them from."""

    names: Sequence[str]
    importances: Sequence[Importance] | None


def draw_pictures(folder: Path, study: StudyRecord, share: slice = slice(None)) -> Pictures:
    """Draw what the study has enough for, and remove older pictures of what it has not.

    Args:
        share: which of them to draw, where others draw the rest at the same time.
    Returns:
        All of them, whoever draws them.
    Raises:
        OSError: a file cannot be written.
    """
    found = importances(study)
    wanted = _wanted(study, found)
    for name in list(wanted)[share]:
        wanted[name](folder / name)
    for name in set(ALL_NAMES) - set(wanted):
        (folder / name).unlink(missing_ok=True)
    return Pictures(list(wanted), found)


def _wanted(study: StudyRecord, found: Sequence[Importance] | None) -> dict[str, Callable[[Path], None]]:
    """How to draw each picture that the study has enough for, by its name."""
    paths = [name for name in param_paths(study) if any(name in trial.params for trial in study.trials)]
    ranked = [entry.path for entry in found or ()]
    pair = [*ranked, *(path for path in paths if path not in ranked)][:2]
    wanted: dict[str, Callable[[Path], None]] = {}
    if paths:
        wanted[HYPERPARAMETERS] = partial(plot_hyperparameters, study)
        wanted[HISTORY] = partial(plot_history, study)
    if found:
        wanted[IMPORTANCE] = partial(plot_importance, study, found)
    if len(pair) == 2:
        title = "The two that mattered most" if len(ranked) > 1 else "The first two hyperparameters"
        wanted[PAIR] = partial(plot_pair, study, (pair[0], pair[1]), title)
    return wanted
