"""How much each hyperparameter mattered: a random forest on the trials, against what chance would have looked like.

The forest learns the ranks of the scores from the hyperparameters. A hyperparameter's importance is by how much the
forest's error on the trials that a tree did not see grows when its values are shuffled among them, as a share of the
variance of the ranks (Breiman 2001, doi:10.1023/A:1010933404324). The same is done with shuffled scores, which no
hyperparameter can have to do with: the highest of 19 such is the chance level. Where none matters, and trials were
drawn without looking at scores, each exceeds it once in 20 times (Altmann et al. 2010,
doi:10.1093/bioinformatics/btq134; Phipson and Smyth 2010, doi:10.2202/1544-6115.1585). Diverged trials count as the
worst; ranks keep them from deciding everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from common.search_results.records import StudyRecord, TrialRecord
from common.search_results.wording import param_paths

FEWEST_TRIALS = 10
METHOD = (
    "random forest on the ranks of the scores, permutation importance on the trials that a tree did not see; "
    "the chance level is the highest of 19 forests that are trained on shuffled scores"
)
_NUM_TREES = 40
_NUM_SHUFFLED = 19
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


def load_importance_libraries() -> None:
    """Load what ``importances`` takes, a second or two of it, ahead of time."""
    import scipy.stats  # noqa: F401
    import sklearn.tree  # noqa: F401


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
    shares_P = _shares(columns, ranks_N, seed=0)
    rng = np.random.default_rng(0)
    shuffled_SP = [_shares(columns, rng.permutation(ranks_N), seed) for seed in range(1, _NUM_SHUFFLED + 1)]
    chances_P = np.max(shuffled_SP, axis=0)
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
    from scipy.stats import rankdata

    sign = 1.0 if study.direction == "maximize" else -1.0
    return rankdata([-np.inf if trial.value is None or trial.state == "diverged" else sign * trial.value
                     for trial in trials])  # fmt: skip


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


def _shares(
    columns: Sequence[npt.NDArray[np.float32]], ranks_N: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.float64]:
    """The importance of each hyperparameter, as a share of the variance of the ranks."""
    from sklearn import config_context
    from sklearn.tree import DecisionTreeRegressor

    # What RandomForestRegressor does, without what that spends on each tree, which is twice the tree itself.
    random, num_trials = np.random.RandomState(seed), len(ranks_N)
    tree = DecisionTreeRegressor(min_samples_leaf=2, max_features=0.7, random_state=random)
    features_NF = np.concatenate(columns, axis=1)
    rises_P, num_used = np.zeros(len(columns)), 0
    for _ in range(_NUM_TREES):
        times_drawn_N = np.bincount(random.randint(num_trials, size=num_trials), minlength=num_trials)
        unseen = np.flatnonzero(times_drawn_N == 0)
        if len(unseen) < 2:
            continue
        with config_context(skip_parameter_validation=True, assume_finite=True):
            tree.fit(features_NF, ranks_N, sample_weight=times_drawn_N.astype(np.float64), check_input=False)
        rises_P += _error_rises(tree.tree_, columns, ranks_N, unseen, random)
        num_used += 1
    return rises_P / (max(num_used, 1) * ranks_N.var())


def _error_rises(
    tree: Any,
    columns: Sequence[npt.NDArray[np.float32]],
    ranks_N: npt.NDArray[np.float64],
    unseen: npt.NDArray[np.intp],
    random: np.random.RandomState,
) -> npt.NDArray[np.float64]:
    """By how much the tree's squared error on unseen trials grows when one hyperparameter's values are shuffled."""
    versions = [[column[unseen] for column in columns]]
    for place, column in enumerate(columns):
        versions.append([*versions[0]])
        versions[-1][place] = column[random.permutation(unseen)]
    features_VUF = np.concatenate([np.concatenate(blocks, axis=1) for blocks in versions])
    predicted_VU = tree.predict(features_VUF)[:, 0].reshape(len(versions), len(unseen))
    errors_V = ((predicted_VU - ranks_N[unseen]) ** 2).mean(axis=1)
    return errors_V[1:] - errors_V[0]
