"""What makes a study this study: two commands that agree in it work on the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from common.search.proposals import Proposer
from common.search_results.records import SpaceEntry

# Three workers always find work, and a fourth often; each one more would cost every later proposal a result.
DEFAULT_LAG = 2
# What each part is called where two studies differ in it.
_NAMES = {
    "method": "--method",
    "space": "the search space",
    "seed": "--seed",
    "lag": "the lag",
    "metric": "--metric",
    "epochs": "the number of epochs",
    "base_sha256": "the base config",
    "dataset": "the data",
    "trial_seed": "the seed of the trials",
    "num_threads": "the number of threads",
    "confirm": "--confirm",
    "prune": "--prune",
}


@dataclass(frozen=True)
class Definition:
    """Everything that decides which trials a study has and what their scores are.

    ``planned`` is the number of trials that it was begun with; a study may be extended. ``space`` is that of
    ``as_plain``. ``seed`` draws configurations, ``trial_seed`` is the one that every trial trains with. ``confirm`` is
    the number of configurations that are trained again.
    """

    method: str
    space: tuple[SpaceEntry, ...]
    planned: int
    seed: int
    lag: int
    metric: str
    epochs: int
    base_sha256: str
    dataset: str
    trial_seed: int
    num_threads: int
    confirm: int
    prune: bool

    @property
    def direction(self) -> str:
        """``minimize`` for losses, else ``maximize``."""
        return "minimize" if self.metric.endswith("loss") else "maximize"

    @property
    def sign(self) -> float:
        """What a score is multiplied by so that more is better."""
        return -1.0 if self.direction == "minimize" else 1.0

    @cached_property
    def waits(self) -> bool:
        """Whether a trial depends on the outcome of others, and so waits for it."""
        return self.prune or self.proposer().looks_back

    def proposer(self) -> Proposer:
        return Proposer(self.space, self.method, self.planned, self.seed, self.lag)

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "space": space_as_plain(self.space)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Definition:
        return cls(**{**plain, "space": space_from_plain(plain["space"])})

    def default_name(self) -> str:
        """A name that a study with another definition does not have."""
        decisive = {key: value for key, value in self.as_plain().items() if key != "planned"}
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        return f"{self.method}-{digest[:12]}"


def space_as_plain(space: Sequence[SpaceEntry]) -> list[dict[str, Any]]:
    """A search space for JSON; only what its entries say."""
    plain = []
    for entry in space:
        when = {path: list(values) for path, values in entry.when.items()}
        choices = None if entry.choices is None else list(entry.choices)
        fields = {**asdict(entry), "choices": choices, "when": when}
        plain.append({key: value for key, value in fields.items() if value is not None and value is not False})
    return plain


def space_from_plain(plain: Sequence[Mapping[str, Any]]) -> tuple[SpaceEntry, ...]:
    entries = []
    for fields in plain:
        choices = tuple(fields["choices"]) if "choices" in fields else None
        when = {path: tuple(values) for path, values in fields.get("when", {}).items()}
        entries.append(SpaceEntry(**{**fields, "choices": choices, "when": when}))
    return tuple(entries)


def differences(then: Definition, now: Definition) -> list[str]:
    """In what two definitions differ, a phrase each; the number of trials planned may differ."""
    found = []
    for part, name in _NAMES.items():
        before, after = getattr(then, part), getattr(now, part)
        if before == after:
            continue
        if part == "space":
            found.append(f"{name} ({_space_difference(then.space, now.space)})")
        elif part in ("base_sha256", "dataset"):
            found.append(name)
        else:
            found.append(f"{name} ({before} then, {after} now)")
    return found


def _space_difference(then: Sequence[SpaceEntry], now: Sequence[SpaceEntry]) -> str:
    before, after = ({entry.path: entry for entry in space} for space in (then, now))
    parts = [f"without {path}" for path in before if path not in after]
    parts += [f"with {path}" for path in after if path not in before]
    parts += [f"other values of {path}" for path in before if path in after and before[path] != after[path]]
    return ", ".join(parts) or "in another order"
