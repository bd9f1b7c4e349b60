"""What a search will do, known before anything is loaded: the space, the method, and how much of the space it sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.console import format_count
from common.exits import UsageError
from common.search.configurations import Params
from common.search.definition import DEFAULT_LAG, space_as_plain
from common.search.levels import num_levels
from common.search.proposals import Proposer
from common.search.space import SearchSpace

DEFAULT_NUM_TRIALS = 20
# Points of a grid that are run without being asked twice.
MAX_GRID = 1000


@dataclass(frozen=True)
class Plan:
    """``wanted_trials`` is what the user asked for, None where that was left open; ``num_trials`` what then holds."""

    space: SearchSpace
    method: str
    wanted_trials: int | None
    seed: int
    metric: str
    confirm: int = 3
    prune: bool = False
    lag: int = DEFAULT_LAG

    def __post_init__(self) -> None:
        if self.method == "grid_search":
            self._check_grid()

    @property
    def num_trials(self) -> int:
        if self.wanted_trials is not None:
            return self.wanted_trials
        return self.space.size or DEFAULT_NUM_TRIALS if self.method == "grid_search" else DEFAULT_NUM_TRIALS

    def proposer(self) -> Proposer:
        return Proposer(self.space.entries, self.method, self.num_trials, self.seed, self.lag)

    def lines(self, epochs: int, num_trials: int) -> list[str]:
        """The plan for people."""
        size = self.space.size
        total = "continuous" if size is None else f"{format_count(size)} configurations"
        return [
            f"Search space: {len(self.space.entries)} hyperparameters, {total} ({self.space.source})",
            f"{self._trials(num_trials)} of up to {epochs} epochs, by {self.metric}; {self.proposer().sampler}",
        ]

    def first_trials(self) -> list[Params]:
        """What is tried first, as far as it does not depend on results."""
        proposer = self.proposer()
        found: list[Params] = []
        for number in range(min(self.num_trials, self.lag + 1) if proposer.looks_back else self.num_trials):
            params = proposer.propose(number, {n: (earlier, None) for n, earlier in enumerate(found)})
            if params is None:
                break
            found.append(params)
        return found

    def as_plain(self, epochs: int) -> dict[str, Any]:
        """The plan for programs."""
        return {
            "dry_run": True,
            "method": self.method,
            "sampler": self.proposer().sampler,
            "size": self.space.size,
            "n_trials": self.num_trials,
            "epochs": epochs,
            "metric": self.metric,
            "seed": self.seed,
            "space": space_as_plain(self.space.entries),
            "first_trials": self.first_trials(),
        }

    def _trials(self, num_trials: int) -> str:
        size = self.space.size
        if size is None or num_trials < size:
            part = f" ({format_count(num_trials)} of {format_count(size)})" if size is not None else ""
            return f"{_counted(num_trials)}{part}"
        return f"{_counted(size)}, which is all of the space"

    def _check_grid(self) -> None:
        continuous = list(self._continuous())
        if continuous:
            raise UsageError(f"needs a finite space, and {continuous[0]} is a continuous range", path=self.space.source,
                             field="--method grid_search", hint="give it a `step` or a list of values, or use "
                             "random_search")  # fmt: skip
        size = self.space.size or 0
        if self.wanted_trials is None and size > MAX_GRID:
            raise UsageError(f"the grid has {format_count(size)} points, more than can be run", path=self.space.source,
                             field="--method grid_search", hint="give fewer values, or say with --n-trials how many "
                             "of them to try")  # fmt: skip

    def _continuous(self) -> Iterator[str]:
        yield from (entry.path for entry in self.space.entries if num_levels(entry) is None)


def _counted(number: int) -> str:
    return "1 trial" if number == 1 else f"{format_count(number)} trials"


def plan_text(plan: Plan, epochs: int, output: Path) -> str:
    """What ``--dry-run`` prints."""
    shown = [f"  {number}: " + ", ".join(f"{path} {value}" for path, value in params.items())
             for number, params in enumerate(plan.first_trials())]  # fmt: skip
    confirm = f"Confirmation: the best {plan.confirm}, each with 2 fresh seeds" if plan.confirm else "No confirmation"
    return "\n".join([
        *plan.lines(epochs, plan.num_trials),
        confirm,
        f"Output: {output}",
        "First trials:",
        *shown,
        "Dry run: nothing was written",
    ])  # fmt: skip
