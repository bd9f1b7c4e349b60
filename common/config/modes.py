"""The three modes of training, and what each presets (tool documentation, training_orchestrator)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.config.sections import Config


class Mode(str, Enum):
    """A phase of the work; the value is what the command line takes."""

    BASELINE = "baseline"
    OPTIMIZATION = "optimization"
    PRODUCTION = "production"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Preset:
    """What a mode means; a config may depart from it, and is told."""

    epochs: int
    patience: tuple[int, ...]
    test_evaluation: bool


PRESETS = {
    Mode.BASELINE: Preset(epochs=20, patience=(10,), test_evaluation=False),
    Mode.OPTIMIZATION: Preset(epochs=50, patience=(5, 6, 7, 8, 9, 10), test_evaluation=False),
    Mode.PRODUCTION: Preset(epochs=100, patience=(10,), test_evaluation=True),
}


def preset_values(mode: Mode) -> dict[str, dict[str, Any]]:
    """What ``mode`` fills in where the file is silent. Required fields are never silent, so they are not here."""
    test_evaluation = PRESETS[mode].test_evaluation
    return {"test_set": {"enabled": test_evaluation, "evaluate_at_end": test_evaluation}}


def departures(config: Config, mode: Mode) -> Iterator[tuple[str, str]]:
    """Where ``config`` departs from ``mode``: dotted key, and a clause that says how."""
    preset = PRESETS[mode]
    if config.training.epochs != preset.epochs:
        yield "training.epochs", f"{config.training.epochs} (the {mode} mode means {preset.epochs})"
    if config.early_stopping.patience not in preset.patience:
        meant = f"{preset.patience[0]} to {preset.patience[-1]}" if len(preset.patience) > 1 else preset.patience[0]
        yield "early_stopping.patience", f"{config.early_stopping.patience} (the {mode} mode means {meant})"
    for field in ("enabled", "evaluate_at_end"):
        value = getattr(config.test_set, field)
        if value != preset.test_evaluation:
            shown, meant = str(value).lower(), str(preset.test_evaluation).lower()
            yield f"test_set.{field}", f"{shown} (the {mode} mode means {meant})"
