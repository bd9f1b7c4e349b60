"""Which of the confirmed configurations wins, and what score to expect of it.

The search's own score of a configuration that was picked for it is too good: it was the luckiest of many. So is, by
less, the mean over the seeds of the configuration that came out first among those confirmed. What is reported is
therefore the mean over the seeds that played no part in the search, shrunk by as much as chance explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev, variance
from typing import Literal, NamedTuple

from common.search_results.records import Confirmation


class Winner(NamedTuple):
    """``number`` is the trial chosen; ``estimate`` the score to expect of its configuration with a seed that was not
    tried; ``spread`` the standard deviation of its scores over all its seeds, None where it has fewer than two."""

    number: int
    estimate: float
    spread: float | None


def choose_winner(confirmations: Sequence[Confirmation], direction: Literal["maximize", "minimize"]) -> Winner | None:
    """The configuration with the best mean over all its seeds, the earlier one among equals.

    One that diverged with fewer of its seeds comes before one that did with more.

    Returns:
        None where no configuration has a score with a fresh seed.
    """
    sign = 1.0 if direction == "maximize" else -1.0
    confirmed = [entry for entry in confirmations if fresh_values(entry)]
    if not confirmed:
        return None
    best = min(confirmed, key=lambda entry: (num_lost(entry), -sign * fmean(all_values(entry)), entry.number))
    rivals = [fresh_values(entry) for entry in confirmed if num_lost(entry) == num_lost(best)]
    scores = all_values(best)
    return Winner(best.number, _shrunk_mean(fresh_values(best), rivals), stdev(scores) if len(scores) > 1 else None)


def all_values(entry: Confirmation) -> list[float]:
    """Its scores, without the seeds with which it diverged."""
    return [value for value in entry.values if value is not None]


def fresh_values(entry: Confirmation) -> list[float]:
    """Its scores with the seeds that the search did not use."""
    return [value for value in entry.values[1:] if value is not None]


def num_lost(entry: Confirmation) -> int:
    """With how many of its seeds it gave no score."""
    return len(entry.values) - len(all_values(entry))


def _shrunk_mean(values: Sequence[float], rivals: Sequence[Sequence[float]]) -> float:
    """The mean of ``values``, drawn to the mean of all rivals by the share of their differences that is chance.

    The share is the variance of a mean over the seeds over the variance of the rivals' means. What a seed does to all
    of them alike favours none, so it does not count. Source: empirical Bayes for normal means, Efron and Morris 1975,
    doi:10.1080/01621459.1975.10479864.
    """
    means = [fmean(rival) for rival in rivals]
    noise = _noise_variance(rivals)
    if noise is None:
        return fmean(values)
    between, chance = variance(means), noise / len(values)
    share = min(1.0, chance / between) if between > 0 else 1.0
    return fmean(means) + (1.0 - share) * (fmean(values) - fmean(means))


def _noise_variance(rivals: Sequence[Sequence[float]]) -> float | None:
    """The variance of a score that neither its configuration nor its seed explains (two-way analysis of variance);
    None where it takes more configurations or seeds to tell, or where they were trained with different numbers."""
    num_seeds = {len(rival) for rival in rivals}
    if len(rivals) < 2 or len(num_seeds) > 1 or 1 in num_seeds:
        return None
    means, seed_means = [fmean(rival) for rival in rivals], [fmean(column) for column in zip(*rivals, strict=True)]
    squares = ((value - mean - seed_mean + fmean(means)) ** 2
               for rival, mean in zip(rivals, means, strict=True)
               for value, seed_mean in zip(rival, seed_means, strict=True))  # fmt: skip
    return sum(squares) / ((len(rivals) - 1) * (len(seed_means) - 1))
