"""The trainings that are killed: between them, everything that has a state of its own."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """A training by its config; ``needs_images`` puts a folder of images into its working directory as ``images``."""

    name: str
    config: dict[str, dict[str, Any]]
    mode: str = "baseline"
    needs_images: bool = False

    def prepare(self, workplace: Path, images: Path) -> None:
        """Make ``workplace``, with the config in it and a link to the ``images``."""
        workplace.mkdir(parents=True)
        (workplace / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        if self.needs_images:
            (workplace / "images").symlink_to(images.resolve())

    @property
    def command(self) -> list[str]:
        """What is typed in the working directory; the run is then in ``run``."""
        return [sys.executable, str(ROOT / "training_orchestrator.py"), "--config", "config.yaml",
                "--mode", self.mode, "--output-dir", "run", "--quiet"]  # fmt: skip


def _config(**sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A small training with every step in the log, so that the phase a kill lands in can be read there."""
    config: dict[str, dict[str, Any]] = {
        "model": {"architecture": "simple_mlp", "dropout": 0.2, "hidden_dims": [32]},
        "optimizer": {"type": "adam", "learning_rate": 0.003, "weight_decay": 0.0},
        "training": {"epochs": 4, "batch_size": 64, "device": "cpu", "num_threads": 1},
        "early_stopping": {"enabled": True, "patience": 10, "metric": "val_loss"},
        "reproducibility": {"seed": 42, "deterministic": True},
        "data": {"source": "digits"},
        "logging": {"tensorboard": True, "log_every_n_steps": 1},
    }
    for name, fields in sections.items():
        config[name] = {**config.get(name, {}), **fields}
    return config


CASES = {
    "cnn": Case(
        "digits CNN: dropout, augmentation, EMA, cosine, saves after about every second epoch",
        _config(
            model={"architecture": "simple_cnn", "dropout": 0.3, "hidden_dims": None},
            training={"epochs": 5, "ema": 0.99},
            lr_scheduler={"type": "cosine", "warmup_epochs": 0.5},
            data_augmentation={"enabled": True, "transforms": ["random_crop", "rotation", "cutout"]},
            checkpointing={"checkpoint_every_n_epochs": 2, "min_seconds_between_saves": 0.15},
        ),
    ),
    "accumulate": Case(
        "digits MLP: accumulation, a save every 3 steps, plateau schedule",
        _config(
            training={"epochs": 6, "batch_size": 32, "accumulate": 3},
            lr_scheduler={"type": "reduce_on_plateau", "patience": 1, "factor": 0.5},
            checkpointing={"checkpoint_every_n_steps": 3, "save_top_k": 2},
            logging={"tensorboard": False},
        ),
    ),
    "streamed": Case(
        "image folder streamed by 2 workers, a save every 0.2 s",
        _config(
            training={"epochs": 3, "batch_size": 32},
            data={"source": "image_folder", "root": "images", "cache": "none", "num_workers": 2},
            data_augmentation={"enabled": True, "transforms": ["random_crop", "mixup"]},
            checkpointing={"checkpoint_every_n_seconds": 0.2, "min_seconds_between_saves": 0.0},
        ),
        needs_images=True,
    ),
    "wine": Case(
        "wine MLP in production mode",
        _config(
            training={"epochs": 12, "batch_size": 32},
            data={"source": "wine"},
            checkpointing={"checkpoint_every_n_epochs": 1, "keep_last_n": 2},
        ),
        mode="production",
    ),
}  # fmt: skip


def write_images(folder: Path, *, train: int = 32, val: int = 10) -> Path:
    """A folder of images for the streamed case: so many of each digit to train on and to validate."""
    from common.data import load_dataset

    load_dataset("digits", root=folder / "all")
    for split, count in (("train", train), ("val", val)):
        for digit in "0123456789":
            target = folder / "images" / split / digit
            target.mkdir(parents=True)
            for file in sorted((folder / "all" / split / digit).glob("*.png"))[:count]:
                shutil.copy(file, target)
    return folder / "images"
