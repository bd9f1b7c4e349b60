"""Asking a model of the results so far for the next configuration: Optuna's samplers, each time made anew.

A sampler that lives on draws on its past; one made from a seed and the results gives the same answer in every process.
"""

from __future__ import annotations

import bisect
import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from common.search.configurations import Configurations, Params, is_active, key_of
from common.search.levels import is_ordered, level, num_levels, sorted_levels, step_of
from common.search_results.records import SpaceEntry

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import Trial

Seen = Sequence[tuple[Params, float]]

# Configurations that are looked at one by one.
MAX_CANDIDATES = 20_000


def ask_gaussian_process(space: Configurations, seen: Seen, pending: Sequence[Params], seed: int) -> Params | None:
    """What a Gaussian process expects the most of; lists of numbers are for it evenly spaced steps.

    Of a space with up to ``MAX_CANDIDATES`` configurations it is one that is neither seen nor pending.

    Args:
        space: without conditions.
        seen: configurations and their scores, the higher the better; at least one.
        pending: configurations whose score is not known yet.

    Returns:
        None where no configuration is left.
    """
    codes = {entry.path: _Code(entry) for entry in space.entries}
    candidates = _untried(space, [*(params for params, _ in seen), *pending])
    if candidates is not None and not candidates:
        return None
    with _alone_and_quiet():
        from common.search.upper_confidence import UpperConfidenceSampler

        sampler = UpperConfidenceSampler(
            seed,
            [_coded(codes, params) for params in pending],
            None if candidates is None else [_coded(codes, params) for params in candidates],
        )
        ranked = list(zip((params for params, _ in seen), normal_scores([score for _, score in seen]), strict=True))
        trial = _study_of(space, ranked, [], sampler).ask({path: code.distribution for path, code in codes.items()})
        return {path: code.value(trial.params[path]) for path, code in codes.items()}


def ask_tpe(space: Configurations, seen: Seen, pending: Sequence[Params], seed: int) -> Params:
    """What a tree-structured Parzen estimator finds most promising; conditions may switch entries off.

    Arguments as for ``ask_gaussian_process``.
    """
    with _alone_and_quiet():
        from optuna.samplers import TPESampler

        sampler = TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=1)
        trial = _study_of(space, seen, pending, sampler).ask()
        values: Params = {}
        for entry in space.in_order:
            if is_active(entry, values):
                values[entry.path] = _Code(entry).suggest(trial)
        return space.active(values)


def normal_scores(values: Sequence[float]) -> list[float]:
    """Each value replaced by the quantile of the normal distribution that belongs to its rank; equal ones share theirs.

    A Gaussian process takes its values to be normal. Those of trainings are not: the few that learnt nothing would
    press all others together, and it is these that the search is about.
    """
    normal, ordered = NormalDist(), sorted(values)
    ranks = [bisect.bisect_left(ordered, value) + bisect.bisect_right(ordered, value) for value in values]
    return [normal.inv_cdf(rank / (2 * len(values))) for rank in ranks]


class _Code:
    """How a model sees the values of an entry: numbers in their order, as whole numbers where they are finite."""

    def __init__(self, entry: SpaceEntry) -> None:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        self._entry = entry
        self._levels: list[Any] | None = None
        self.distribution: BaseDistribution
        if entry.choices is not None:
            ordered = is_ordered(entry)
            self._levels = sorted_levels(entry) if ordered else list(entry.choices)
            indices = range(len(self._levels))
            self.distribution = IntDistribution(0, indices[-1]) if ordered else CategoricalDistribution(indices)
        elif entry.log:
            kind = IntDistribution if isinstance(entry.low, int) else FloatDistribution
            self.distribution = kind(entry.low, entry.high, log=True)
        elif step_of(entry) is not None:
            self.distribution = IntDistribution(0, (num_levels(entry) or 1) - 1)
        else:
            self.distribution = FloatDistribution(entry.low, entry.high)

    def code(self, value: Any) -> Any:
        if self._levels is not None:
            return self._levels.index(value)
        if self._is_stepped:
            return round((value - self._entry.low) / step_of(self._entry))
        return value

    def value(self, code: Any) -> Any:
        if self._levels is not None:
            return self._levels[code]
        return level(self._entry, code) if self._is_stepped else code

    def suggest(self, trial: Trial) -> Any:
        """The value that the study's sampler suggests for the trial."""
        path, distribution = self._entry.path, self.distribution
        if self._levels is not None and not is_ordered(self._entry):
            return self.value(trial.suggest_categorical(path, distribution.choices))
        ask = trial.suggest_int if self._is_whole else trial.suggest_float
        return self.value(ask(path, distribution.low, distribution.high, log=distribution.log))

    @property
    def _is_whole(self) -> bool:
        return self._levels is not None or self._is_stepped or isinstance(self._entry.low, int)

    @property
    def _is_stepped(self) -> bool:
        return self._entry.choices is None and not self._entry.log and step_of(self._entry) is not None


def _untried(space: Configurations, tried: Sequence[Params]) -> list[Params] | None:
    """The configurations that are left, None where there are too many to look at each."""
    if space.size is None or space.size > MAX_CANDIDATES:
        return None
    taken = {key_of(params) for params in tried}
    return [params for params in space if key_of(params) not in taken]


def _coded(codes: Mapping[str, _Code], params: Params) -> Params:
    return {path: codes[path].code(value) for path, value in params.items()}


def _study_of(space: Configurations, seen: Seen, pending: Sequence[Params], sampler: BaseSampler) -> Study:
    import optuna

    study = optuna.create_study(sampler=sampler, direction="maximize")
    codes = {entry.path: _Code(entry) for entry in space.entries}
    for params, score in [*seen, *((params, None) for params in pending)]:
        state = optuna.trial.TrialState.RUNNING if score is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(optuna.create_trial(
            state=state,
            value=score,
            params=_coded(codes, params),
            distributions={path: codes[path].distribution for path in params},
        ))  # fmt: skip
    return study


@contextlib.contextmanager
def _alone_and_quiet() -> Iterator[None]:
    """One thread, since the last bit of a sum depends on their number, and with it which of two is the best."""
    import optuna
    import torch
    from threadpoolctl import threadpool_limits

    before, threads = optuna.logging.get_verbosity(), torch.get_num_threads()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        torch.set_num_threads(threads)
        optuna.logging.set_verbosity(before)
