"""All pictures of a study, and what they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    importances: Sequence[Importance] | None = None


def draw_pictures(folder: Path, study: StudyRecord) -> Pictures:
    """Draw what the study has enough for, and remove older pictures of what it has not.

    Raises:
        OSError: a file cannot be written.
    """
    return gathered(folder, draw_scores(folder, study), draw_importances(folder, study))


def draw_scores(folder: Path, study: StudyRecord) -> Pictures:
    """Draw the scores by each hyperparameter and over the search."""
    if not _tried_paths(study):
        return Pictures([])
    plot_hyperparameters(study, folder / HYPERPARAMETERS)
    plot_history(study, folder / HISTORY)
    return Pictures([HYPERPARAMETERS, HISTORY])


def draw_importances(folder: Path, study: StudyRecord) -> Pictures:
    """Draw what mattered, which takes about as long as drawing the scores."""
    found, paths = importances(study), _tried_paths(study)
    names = []
    if found:
        plot_importance(study, found, folder / IMPORTANCE)
        names.append(IMPORTANCE)
    ranked = [entry.path for entry in found or ()]
    pair = [*ranked, *(path for path in paths if path not in ranked)][:2]
    if len(pair) == 2:
        title = "The two that mattered most" if len(ranked) > 1 else "The first two hyperparameters"
        plot_pair(study, (pair[0], pair[1]), title, folder / PAIR)
        names.append(PAIR)
    return Pictures(names, found)


def gathered(folder: Path, scores: Pictures, importances: Pictures) -> Pictures:
    """All that was drawn; pictures of before that were not drawn again are removed."""
    names = [*scores.names, *importances.names]
    for name in set(ALL_NAMES) - set(names):
        (folder / name).unlink(missing_ok=True)
    return Pictures(names, importances.importances)


def _tried_paths(study: StudyRecord) -> list[str]:
    return [name for name in param_paths(study) if any(name in trial.params for trial in study.trials)]
