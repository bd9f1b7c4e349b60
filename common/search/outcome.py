"""What comes of training a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from common.signals import StopSignals

Curve = Sequence[float]  # the best score so far, the higher the better, after each epoch


@dataclass(frozen=True)
class Outcome:
    """How a training ended. ``value`` is None for one that diverged; ``curve`` is the best score after each epoch."""

    state: str
    value: float | None
    measures: Mapping[str, float] = field(default_factory=dict)
    curve: Curve = ()
    started_at: str | None = None
    finished_at: str | None = None
    duration_s: float | None = None
    message: str | None = None


@dataclass(frozen=True)
class Job:
    """A configuration to train.

    ``params`` are put on the base config. ``rivals`` are the curves of trials that it is compared with after every
    epoch, and given up where it falls behind their median; None trains to the end.
    """

    params: Mapping[str, Any]
    seed: int
    run_dir: Path
    rivals: Sequence[Curve] | None = None


class Trainer(Protocol):
    """Trains one configuration after another, in this process or in another."""

    def run(self, job: Job, stop: StopSignals, *, meanwhile: Callable[[], None] | None = None) -> Outcome:
        """Bring a job to its end, from wherever its folder stands.

        Args:
            meanwhile: called once, while the training runs where that is in another process, else before it.
        Raises:
            StoppedError: asked to stop; what was trained is saved.
            ToolError, OSError: the machine lacks something, or the data is unfit.
        """
        ...


@dataclass(frozen=True)
class Surroundings:
    """What a study depends on that only the data and the machine tell.

    ``dataset`` is the fingerprint of the data; ``num_threads`` are those of a training, ``num_cpus`` those that this
    machine has for them. ``machine`` is the ``exactness_fingerprint`` of a trial here (on the first of several GPUs),
    and the versions of what the search itself computes with.
    """

    dataset: str
    num_threads: int
    num_cpus: int
    machine: Mapping[str, Any]
