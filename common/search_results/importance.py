"""How much each hyperparameter mattered: a random forest on the trials, against what chance would have looked like.

The forest learns the ranks of the scores from the hyperparameters. A hyperparameter's importance is by how much the
forest's error on the trials that a tree did not see grows when its values are shuffled among them, as a share of the
variance of the ranks (Breiman 2001, doi:10.1023/A:1010933404324). The same is done with shuffled scores, which no
hyperparameter can have to do with: what 95% of those stay below is the chance level (Altmann et al. 2010,
doi:10.1093/bioinformatics/btq134). Diverged trials count as the worst; ranks keep them from deciding everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from common.search_results.forest import permutation_importances
from common.search_results.records import StudyRecord, TrialRecord
from common.search_results.wording import param_paths

FEWEST_TRIALS = 10
METHOD = (
    "random forest on the ranks of the scores, permutation importance on the trials that a tree did not see; "
    "the chance level is what 95% of forests stay below that are trained on shuffled scores"
)
_NUM_TREES = 40
_NUM_SHUFFLED = 30
_CHANCE_QUANTILE = 0.95
_SWITCHED_OFF = -1.0


@dataclass(frozen=True)
class Importance:
    """``share`` of the variance of the ranks, at least 0, and the ``chance`` level of the same hyperparameter."""

    path: str
    share: float
    chance: float

    @property
    def is_clear(self) -> bool:
        """Whether it is more than chance."""
        return self.share > self.chance


def importances(study: StudyRecord) -> list[Importance] | None:
    """Of every hyperparameter that varied, the largest first; None where there are too few trials to tell, or where
    all of them came out alike. The same trials give the same numbers."""
    trials = [trial for trial in study.trials if is_outcome(trial)]
    paths = [path for path in param_paths(study) if _num_values(trials, path) > 1]
    if len(trials) < FEWEST_TRIALS or not paths:
        return None
    ranks_N = _ranks(study, trials)
    if np.ptp(ranks_N) == 0:
        return None
    columns = [_columns(trials, path) for path in paths]
    rng = np.random.default_rng(0)
    targets_SN = [ranks_N, *(rng.permutation(ranks_N) for _ in range(_NUM_SHUFFLED))]
    shares_P, *shuffled_SP = permutation_importances(columns, targets_SN, num_trees=_NUM_TREES, seed=0)
    chances_P = np.quantile(shuffled_SP, _CHANCE_QUANTILE, axis=0)
    found = [
        Importance(path, max(0.0, float(share)), max(0.0, float(chance)))
        for path, share, chance in zip(paths, shares_P, chances_P, strict=True)
    ]
    return sorted(found, key=lambda entry: -entry.share)


def is_outcome(trial: TrialRecord) -> bool:
    """Whether the trial says something about its hyperparameters: it has a score, or it diverged."""
    return (trial.state == "complete" and trial.value is not None) or trial.state == "diverged"


def _num_values(trials: Sequence[TrialRecord], path: str) -> int:
    return len({repr(trial.params.get(path, _SWITCHED_OFF)) for trial in trials})


def _ranks(study: StudyRecord, trials: Sequence[TrialRecord]) -> npt.NDArray[np.float64]:
    """Places from the worst on; equal ones share the mean of theirs."""
    sign = 1.0 if study.direction == "maximize" else -1.0
    scores_N = [-np.inf if trial.value is None or trial.state == "diverged" else sign * trial.value for trial in trials]
    _, place_N, count_V = np.unique(scores_N, return_inverse=True, return_counts=True)
    return (np.cumsum(count_V) - (count_V - 1) / 2)[place_N]


def _columns(trials: Sequence[TrialRecord], path: str) -> npt.NDArray[np.float32]:
    """The hyperparameter as numbers, shape (N, columns): ranks of numbers, a column for each value of anything else."""
    present = [trial.params[path] for trial in trials if path in trial.params]
    if all(_is_number(value) for value in present):
        order = {value: float(rank) for rank, value in enumerate(sorted(set(present)))}
        codes = [order[trial.params[path]] if path in trial.params else _SWITCHED_OFF for trial in trials]
        return np.array(codes, dtype=np.float32)[:, None]
    texts = [repr(trial.params[path]) if path in trial.params else "" for trial in trials]
    return np.array([[text == name for name in sorted(set(texts))] for text in texts], dtype=np.float32)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
