"""Recorded tables: every configuration of a small space, really trained with several seeds, to replay searches from."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.search_results.records import SpaceEntry

FOLDER = Path(__file__).resolve().parent / "tables"


@dataclass(frozen=True)
class Plan:
    """What a table records: ``base`` and each configuration of ``space`` are values by full path, put on the shipped
    training config; the score is validation accuracy, in percent, of the epoch with the lowest validation loss.
    Settings of the sampler may be chosen on the tables that are for tuning alone, never on the others."""

    name: str
    what: str
    base: Mapping[str, Any]
    space: Mapping[str, Sequence[Any]]
    seeds: Sequence[int]
    is_for_tuning: bool = False

    def configurations(self) -> Iterator[dict[str, Any]]:
        """Every configuration, the last hyperparameter varying fastest."""
        for values in itertools.product(*self.space.values()):
            yield dict(zip(self.space, values, strict=True))

    @property
    def entries(self) -> list[SpaceEntry]:
        """The space as a search takes it."""
        return [SpaceEntry(path, choices=tuple(values)) for path, values in self.space.items()]

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.csv"


_DIGITS = {"data.source": "digits", "model.architecture": "simple_mlp", "training.epochs": 6}
_CANCER = {
    "data.source": "breast_cancer",
    "data.split.val": 0.3,  # 171 samples: an accuracy in steps of 0.6 points
    "model.architecture": "simple_mlp",
    "optimizer.type": "sgd",
    "optimizer.weight_decay": 1e-3,
    "training.epochs": 10,
}
_DIGITS_SGD = {
    "data.source": "digits",
    "data.split.val": 0.08,  # 144 samples: an accuracy in steps of 0.7 points
    "model.architecture": "simple_mlp",
    "optimizer.type": "sgd",
    "training.epochs": 4,
}
_CANCER_ADAM = {
    "data.source": "breast_cancer",
    "data.split.val": 0.3,
    "model.architecture": "simple_mlp",
    "optimizer.type": "adam",
    "training.epochs": 5,
}
_WINE = {
    "data.source": "wine",
    "data.split.val": 0.4,  # 71 samples: an accuracy in steps of 1.4 points
    "model.architecture": "simple_mlp",
    "optimizer.type": "adam",
    "training.epochs": 8,
}
PLANS = {
    plan.name: plan
    for plan in (
        Plan(
            "digits_adam",
            "handwritten digits, simple_mlp, Adam, 6 epochs",
            _DIGITS,
            {
                "optimizer.learning_rate": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
                "model.dropout": (0.0, 0.2, 0.4, 0.6),
                "optimizer.weight_decay": (1e-5, 1e-4, 1e-3, 1e-2),
                "training.batch_size": (16, 32, 64, 128),
            },
            seeds=(1, 2, 3, 4),
        ),
        Plan(
            "cancer_sgd",
            "breast cancer (Wisconsin), simple_mlp, SGD, 10 epochs",
            _CANCER,
            {
                "optimizer.learning_rate": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
                "optimizer.momentum": (0.0, 0.5, 0.9, 0.99),
                "model.dropout": (0.0, 0.2, 0.4, 0.6),
                "training.batch_size": (16, 32, 64, 128),
            },
            seeds=(1, 2, 3, 4),
        ),
        Plan(
            "digits_adam_seeds",
            "handwritten digits, simple_mlp, Adam, 6 epochs; fewer configurations and more seeds",
            _DIGITS,
            {
                "optimizer.learning_rate": (3e-4, 1e-3, 3e-3, 1e-2),
                "model.dropout": (0.0, 0.2, 0.4),
                "optimizer.weight_decay": (1e-5, 1e-3),
                "training.batch_size": (16, 32, 64),
            },
            seeds=tuple(range(1, 13)),
        ),
        Plan(
            "digits_sgd",
            "handwritten digits, simple_mlp, SGD, 4 epochs",
            _DIGITS_SGD,
            {
                "optimizer.learning_rate": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
                "optimizer.momentum": (0.0, 0.5, 0.9, 0.99),
                "model.dropout": (0.0, 0.2, 0.4, 0.6),
                "training.batch_size": (16, 32, 64, 128),
            },
            seeds=(1, 2, 3, 4),
            is_for_tuning=True,
        ),
        Plan(
            "cancer_adam",
            "breast cancer (Wisconsin), simple_mlp, Adam, 5 epochs",
            _CANCER_ADAM,
            {
                "optimizer.learning_rate": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
                "model.dropout": (0.0, 0.2, 0.4, 0.6),
                "optimizer.weight_decay": (1e-5, 1e-4, 1e-3, 1e-2),
                "training.batch_size": (16, 32, 64, 128),
            },
            seeds=(1, 2, 3, 4),
            is_for_tuning=True,
        ),
        Plan(
            "wine_adam",
            "wine, simple_mlp, Adam, 8 epochs",
            _WINE,
            {
                "optimizer.learning_rate": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
                "model.dropout": (0.0, 0.2, 0.4, 0.6),
                "training.label_smoothing": (0.0, 0.05, 0.1, 0.2),
                "training.batch_size": (8, 16, 32, 64),
            },
            seeds=(1, 2, 3, 4),
            is_for_tuning=True,
        ),
    )
}
TUNING_TABLES = tuple(name for name, plan in PLANS.items() if plan.is_for_tuning)


@dataclass(frozen=True)
class Table:
    """A recorded table. ``scores[c][s]`` is that of configuration c with the s-th seed, None where it diverged."""

    plan: Plan
    configurations: Sequence[Mapping[str, Any]]
    scores: Sequence[Sequence[float | None]]

    @cached_property
    def index(self) -> dict[str, int]:
        """The number of a configuration by ``key_of``."""
        return {key_of(params): number for number, params in enumerate(self.configurations)}


def key_of(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The lines recorded so far; a torn last one is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def load_table(name: str) -> Table:
    """Raises ValueError where the table is not complete."""
    plan = PLANS[name]
    recorded = {(int(row["configuration"]), int(row["seed"])): row["val_acc"] for row in read_rows(plan.path)}
    configurations = list(plan.configurations())
    missing = len(configurations) * len(plan.seeds) - len(recorded)
    if missing:
        raise ValueError(f"{plan.path} lacks {missing} trainings; record them with record_table.py")
    scores = [
        [float(text) if (text := recorded[number, seed]) else None for seed in plan.seeds]
        for number in range(len(configurations))
    ]
    return Table(plan, configurations, scores)
