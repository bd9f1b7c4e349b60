"""Runs to be compared, read from wherever the user points: metrics files, run folders, folders of seeds, patterns.

Files from elsewhere may hold anything: what is missing or of another kind counts as unknown, never as zero.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.comparison.measures import GAP, Measure
from common.exits import InputFileError, ToolError
from common.metrics_file import FINISHED_STATUSES, read_metrics
from common.run_folder import RunFolder

if TYPE_CHECKING:
    from common.config import Config

METRICS_NAME = "metrics.json"
SEED_PATTERN = "seed_*"
# What no training reaches is a damaged file; sums and squares of less stay finite.
MAX_EPOCHS = 10**7
MAX_NUMBER = 1e100


@dataclass(frozen=True)
class Run:
    """One training: its metrics.json, and what lies beside it.

    Attributes:
        path: the metrics.json, as it was given or found.
        document: its content, checked to be a metrics file.
    """

    path: Path
    document: Mapping[str, Any]

    @cached_property
    def folder(self) -> RunFolder:
        """Where config, environment and predictions lie; ``logs/metrics.json`` is a link that leads there."""
        return RunFolder(self.path.resolve().parent)

    @property
    def shown_folder(self) -> Path:
        """The run's folder as the user knows it."""
        return self.path.parent if not self.path.is_symlink() else self.folder.path

    @property
    def facts(self) -> Mapping[str, Any]:
        """The ``run`` object of metrics.json."""
        return self.document["run"]

    @property
    def dataset(self) -> Mapping[str, Any]:
        return mapping(self.facts.get("dataset"))

    @property
    def seed(self) -> int | None:
        seed = self.facts.get("seed")
        return seed if type(seed) is int else None

    @property
    def status(self) -> str:
        return str(self.facts.get("status"))

    @property
    def finished(self) -> bool:
        return self.status in FINISHED_STATUSES

    @property
    def mode(self) -> str:
        return str(self.facts.get("mode"))

    @cached_property
    def epochs(self) -> Sequence[Mapping[str, Any]]:
        """The epochs in order; a measure that is no finite number is None."""
        numbered = {entry["num"]: entry for entry in self.document["epochs"] if 0 < entry["num"] <= MAX_EPOCHS}
        return [{**_cleaned(entry), "num": int(num)} for num, entry in sorted(numbered.items())]

    @property
    def events(self) -> Sequence[Mapping[str, Any]]:
        return [event for event in self.document["events"] if isinstance(event, Mapping)]

    @property
    def best(self) -> Mapping[str, Any]:
        """The best epoch's values; empty where no epoch was validated."""
        return mapping(self.document.get("best"))

    @property
    def best_epoch(self) -> int | None:
        epoch = self.best.get("epoch")
        return epoch if type(epoch) is int and any(entry["num"] == epoch for entry in self.epochs) else None

    def num_parameters(self) -> float | None:
        return number(self.facts.get("num_parameters"))

    def value(self, measure: Measure, at: str = "best") -> float | None:
        """A measure at the ``best`` or the ``final`` epoch; ``test_...`` on the test set, whatever ``at`` is."""
        if measure.key.startswith("test_"):
            return number(mapping(self.document.get("test")).get(measure.key))
        values = self.best if at == "best" else mapping(self.epochs[-1] if self.epochs else None)
        return epoch_value(values, measure)

    def duration_s(self) -> float | None:
        return number(self.facts.get("duration_s"))

    def time_to_best_s(self) -> float | None:
        """Training time up to the end of the best epoch."""
        if self.best_epoch is None:
            return None
        return total([epoch.get("time_s") for epoch in self.epochs if epoch["num"] <= self.best_epoch])

    def energy_j(self) -> float | None:
        """What the GPU took in all epochs; None where an epoch does not say."""
        return total([epoch.get("gpu_energy_j") for epoch in self.epochs])

    def mean(self, key: str) -> float | None:
        """Mean of an epoch's field over the epochs that have it."""
        present = [value for epoch in self.epochs if (value := number(epoch.get(key))) is not None]
        return sum(present) / len(present) if present else None

    def largest(self, key: str) -> float | None:
        return max((value for epoch in self.epochs if (value := number(epoch.get(key))) is not None), default=None)

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """environment.json; empty where it is missing or unreadable."""
        try:
            return mapping(json.loads(self.folder.environment.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError):
            return {}

    @cached_property
    def config(self) -> Config | None:
        """The resolved config; None where it is missing or not valid (``config_problem`` says which)."""
        return self._config_or_problem[0]

    @cached_property
    def config_problem(self) -> str | None:
        return self._config_or_problem[1]

    @cached_property
    def _config_or_problem(self) -> tuple[Config | None, str | None]:
        from common.config import config_sha256, load_config

        if not self.folder.config.is_file():
            return None, f"{self.folder.config.name} is missing beside {self.path}"
        try:
            config = load_config(self.folder.config).config
        except ToolError:
            return None, f"{self.folder.config} is not a valid config, see `python config_validator.py`"
        if self.facts.get("config_sha256") not in (None, config_sha256(config)):
            return config, f"{self.folder.config} is not the config that {self.path.name} was trained with"
        return config, None


@dataclass(frozen=True)
class Side:
    """The runs of one configuration, in the order of their seeds, and what was odd about finding them."""

    name: str
    runs: Sequence[Run]
    notices: Sequence[str] = field(default_factory=tuple)

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def seeds(self) -> list[int | None]:
        return [run.seed for run in self.runs]

    def values(self, measure: Measure, at: str = "best") -> list[float]:
        """A measure of the runs that have it."""
        return [value for run in self.runs if (value := run.value(measure, at)) is not None]


def load_side(name: str, paths: Sequence[str | Path]) -> Side:
    """Read the runs of one side.

    Args:
        name: of the side, ``baseline`` or ``optimized``; also of the flag that it was given with.
        paths: metrics files, run folders, folders that hold ``seed_*`` runs, or patterns of any of these.
    Raises:
        InputFileError: a path leads to no run, a file is not a metrics file, or two runs have one seed.
    """
    notices: list[str] = []
    runs: dict[Path, Run] = {}
    for path in paths:
        for found in _metrics_files(str(path), f"--{name}", notices):
            runs.setdefault(found.resolve(), Run(found, read_metrics(found)))
    ordered = sorted(runs.values(), key=lambda run: (run.seed is None, run.seed or 0))
    _refuse_repeated_seeds(ordered, f"--{name}")
    return Side(name, tuple(ordered), tuple(notices))


def epoch_value(values: Mapping[str, Any], measure: Measure) -> float | None:
    """A measure among an epoch's values."""
    if measure is not GAP:
        return number(values.get(measure.key))
    train, val = number(values.get("train_acc")), number(values.get("val_acc"))
    return None if train is None or val is None else train - val


def number(value: object) -> float | None:
    """A finite number as float, anything else, and what is beyond 1e100, as None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if abs(value) <= MAX_NUMBER else None


def total(values: Sequence[object]) -> float | None:
    """The sum; None where there is nothing, or a value is unknown."""
    numbers = [number(value) for value in values]
    return None if not numbers or None in numbers else sum(value for value in numbers if value is not None)


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _cleaned(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value if key == "weights_sha256" else number(value) for key, value in values.items()}


def _metrics_files(path: str, flag: str, notices: list[str]) -> Iterator[Path]:
    if not path:
        raise InputFileError("an empty path", field=flag)
    if not Path(path).exists() and glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise InputFileError("no file or folder matches this pattern", path=path, field=flag)
        for match in matches:
            yield from _metrics_files_at(Path(match), flag, notices)
    else:
        yield from _metrics_files_at(Path(path), flag, notices)


def _metrics_files_at(path: Path, flag: str, notices: list[str]) -> Iterator[Path]:
    if not path.is_dir():
        yield path
    elif (path / METRICS_NAME).exists():
        yield path / METRICS_NAME
    else:
        yield from _seed_runs(path, flag, notices)


def _seed_runs(path: Path, flag: str, notices: list[str]) -> Iterator[Path]:
    folders = sorted(folder for folder in path.glob(SEED_PATTERN) if folder.is_dir())
    found = [folder for folder in folders if (folder / METRICS_NAME).exists()]
    if not found:
        raise InputFileError(
            f"is not a run folder: it holds neither {METRICS_NAME} nor {SEED_PATTERN} runs",
            path=path, field=flag, hint="give the folder that a training wrote (its --output-dir)",
        )  # fmt: skip
    for folder in folders:
        if folder in found:
            yield folder / METRICS_NAME
        else:
            notices.append(f"{folder} holds no {METRICS_NAME} yet and was left out")


def _refuse_repeated_seeds(runs: Sequence[Run], flag: str) -> None:
    seen: dict[int, Run] = {}
    for run in runs:
        if run.seed is None:
            continue
        if run.seed in seen:
            raise InputFileError(
                f"has seed {run.seed}, and so has {seen[run.seed].path}", path=run.path, field=flag,
                hint="give one run per seed: a seed repeated is no new evidence",
            )  # fmt: skip
        seen[run.seed] = run
