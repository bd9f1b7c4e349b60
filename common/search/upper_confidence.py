"""Optuna's Gaussian-process sampler with an upper confidence bound in place of expected improvement.

Scores of trainings are chance to a good part. Expected improvement asks for more than the best score seen, which was
luck; a bound on what the model expects does not. Source: Srinivas et al. 2010, arXiv:0912.3995.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from optuna._gp.acqf import UCB
from optuna.samplers import GPSampler

if TYPE_CHECKING:
    from optuna._gp.acqf import BaseAcquisitionFunc
    from optuna._gp.search_space import SearchSpace

# How many standard deviations above its expectation a configuration is judged. Chosen on the tables for tuning.
NUM_DEVIATIONS = 0.25


class UpperConfidenceSampler(GPSampler):
    """Suggests the configuration with the highest bound, for a study whose trials are all complete.

    It replaces a step that Optuna leaves open to subclasses without promising to keep it; its version is pinned.

    Args:
        seed: of the search for the highest bound where there are no ``candidates``.
        pending: parameters of trials that are under way. Each counts as if it had brought what the model expects
            (kriging believer; Ginsbourger et al. 2010, doi:10.1007/978-3-642-10701-6_6).
        candidates: parameters to choose from, of equal ones the first; None where there are too many to look at each.
    """

    def __init__(
        self, seed: int, pending: Sequence[Mapping[str, Any]], candidates: Sequence[Mapping[str, Any]] | None
    ) -> None:
        super().__init__(seed=seed, n_startup_trials=1)
        self._pending = pending
        self._candidates = candidates

    def _optimize_acqf(self, acqf: BaseAcquisitionFunc, best_params: np.ndarray | None) -> np.ndarray:
        space = acqf.search_space
        model = self._gprs_cache_list[0]
        if self._pending:
            under_way = torch.from_numpy(_normalized(space, self._pending))
            model.append_running_data(under_way, model.posterior(under_way)[0])
        bound = UCB(model, space, beta=NUM_DEVIATIONS**2)
        if self._candidates is None:
            return super()._optimize_acqf(bound, best_params)
        points = _normalized(space, self._candidates)
        return points[np.argmax(bound.eval_acqf_no_grad(points))]


def _normalized(space: SearchSpace, params: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Float64 (number of configurations, number of parameters), each in [0, 1]."""
    return space.get_normalized_params(list(params), list(params))
