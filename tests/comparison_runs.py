"""Run folders for tests of comparisons: small, consistent, and with the scores that a test wants."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.config import config_sha256, dump_config, load_config
from common.metrics_file import write_metrics

ROOT = Path(__file__).resolve().parents[1]
NUM_VAL = 200
NUM_CLASSES = 4
LABELS = np.arange(NUM_VAL) % NUM_CLASSES


@functools.cache
def config_of(*overrides: str) -> Any:
    return load_config(ROOT / "configs/training_config.yaml", mode="baseline", overrides=overrides).config


def predictions(num_right: int, seed: int) -> dict[str, np.ndarray]:
    """As in predictions_val.npz, with exactly so many right answers, which ones depending on the seed."""
    generator = np.random.default_rng(seed)
    wrong = generator.permutation(NUM_VAL)[num_right:]
    predicted = LABELS.copy()
    predicted[wrong] = (LABELS[wrong] + 1) % NUM_CLASSES
    logits = np.full((NUM_VAL, NUM_CLASSES), -1.0, dtype=np.float32)
    logits[np.arange(NUM_VAL), predicted] = 2.0
    return {"index": np.arange(NUM_VAL), "label": LABELS, "predicted": predicted, "logits": logits}


def epoch(num: int, val_acc: float, *, train_acc: float = 99.0, val_loss: float | None = None, **more: Any) -> dict:
    loss = 2.0 - val_acc / 60.0 if val_loss is None else val_loss
    values = {
        "num": num, "train_loss": 1.5 / num, "train_acc": train_acc, "val_loss": loss, "val_acc": val_acc,
        "val_f1": val_acc / 100, "val_precision": val_acc / 100, "val_recall": val_acc / 100, "lr": 1e-3,
        "time_s": 2.0, "data_time_s": 0.1, "samples_per_s": 500.0, "gpu_util": None, "gpu_mem_gb": None,
        "gpu_energy_j": None, "cpu_util": 90.0, "weights_sha256": f"{val_acc}-{num}",
    }  # fmt: skip
    return {**values, **more}


def write_run(
    folder: Path,
    *,
    num_right: int = 190,
    seed: int = 42,
    mode: str = "baseline",
    status: str = "completed",
    epochs: Sequence[dict] | None = None,
    overrides: Sequence[str] = (),
    run: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
    events: Sequence[dict] = (),
    with_predictions: bool = True,
) -> Path:
    """A run whose best epoch, the last by default, has ``num_right`` of 200 validation examples right."""
    folder.mkdir(parents=True)
    val_acc = 100.0 * num_right / NUM_VAL
    if epochs is None:
        epochs = [epoch(1, val_acc - 20.0), epoch(2, val_acc - 5.0), epoch(3, val_acc)]
    config = config_of(f"reproducibility.seed={seed}", *overrides)
    validated = [entry for entry in epochs if entry["val_loss"] is not None]
    best = min(validated, key=lambda entry: entry["val_loss"], default=None)
    facts = {
        "id": "run", "mode": mode, "seed": seed, "config_sha256": config_sha256(config), "device": "cpu",
        "num_parameters": 6138, "status": status, "started_at": "2026-01-01T00:00:00+00:00",
        "finished_at": "2026-01-01T00:01:00+00:00", "duration_s": 7.0,
        "dataset": {"name": "digits", "fingerprint": "a" * 64, "num_train": 800, "num_val": NUM_VAL, "num_test": 0,
                    "class_names": [str(number) for number in range(NUM_CLASSES)], **(dataset or {})},
        **(run or {}),
    }  # fmt: skip
    keys = ("train_loss", "train_acc", "val_loss", "val_acc", "val_f1", "val_precision", "val_recall")
    chosen = best and {"epoch": best["num"], "metric": "val_loss", "value": best["val_loss"],
                       **{key: best[key] for key in keys}}  # fmt: skip
    document = {"schema_version": 1, "run": facts, "epochs": list(epochs), "best": chosen, "events": list(events),
                "test": None}  # fmt: skip
    write_metrics(folder / "metrics.json", document)
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    environment = {"run": {"device": "cpu", "num_threads": 1, "deterministic": True}, "packages": {"torch": "2.13.0"}}
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    if with_predictions:
        np.savez(folder / "predictions_val.npz", **predictions(num_right, seed + 1000 * (mode != "baseline")))
    return folder


def write_seeds(folder: Path, counts: Sequence[int], *, first_seed: int = 42, **options: Any) -> Path:
    """One run per entry of ``counts`` (right answers of 200) as ``folder/seed_N``."""
    for seed, num_right in enumerate(counts, first_seed):
        write_run(folder / f"seed_{seed}", num_right=num_right, seed=seed, **options)
    return folder


def change_metrics(folder: Path, change: Any) -> None:
    """Rewrite metrics.json after ``change(document)``."""
    path = folder / "metrics.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
