"""Run folders for the diagnosis: a sound one made of plain values, to be changed into any fault's likeness."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from common.diagnosis.evidence import RunEvidence
from common.diagnosis.inputs import read_evidence

NUM_EPOCHS, NUM_CLASSES, NUM_VAL = 15, 10, 270
CONFIG: dict[str, dict[str, Any]] = {
    "model": {"architecture": "simple_mlp", "dropout": 0.0},
    "optimizer": {"type": "adam", "learning_rate": 0.002, "weight_decay": 0.0},
    "training": {"epochs": NUM_EPOCHS, "batch_size": 32, "device": "cpu"},
    "early_stopping": {"enabled": True, "patience": 10, "metric": "val_loss"},
    "reproducibility": {"seed": 42, "deterministic": True},
}
WEIGHTS = {
    "update_to_weight_median": 0.005, "first_to_last_grad_ratio": 0.8, "num_layers": 3, "num_zero_update_layers": 0,
    "zero_update_layers": [], "weight_norm": 8.0, "weight_norm_growth": 0.0, "num_identical_unit_layers": 0,
    "narrowest_units": 32, "gradients_cleared": True,
}  # fmt: skip


def split_signals(num_samples: int, **changes: Any) -> dict[str, Any]:
    return {
        "num_samples": num_samples, "class_counts": [num_samples // NUM_CLASSES] * NUM_CLASSES, "imbalance_ratio": 1.05,
        "input_mean": 0.0, "input_std": 1.0, "feature_std_ratio": 1.0, "num_non_finite_values": 0,
        "num_compared": num_samples, "num_repeated": 0, "num_in_train": 0, "num_compared_with_train": num_samples,
        "num_near_train": 0, "num_near_compared": num_samples, "nearest_neighbour_agreement_pct": 96.0, **changes,
    }  # fmt: skip


def epoch(number: int) -> dict[str, Any]:
    """Of a network that learns: from 60 to 97% on training data, two points less on validation data."""
    train_acc = 99.0 - 39.0 * 0.6 ** (number - 1)
    loss = 0.05 + 1.5 * 0.6 ** (number - 1)
    return {
        "num": number, "step": 40 * number, "num_steps": 40, "train_loss": loss, "train_acc": train_acc,
        "val_loss": loss + 0.05, "val_acc": round((train_acc - 2) * 2.7) / 2.7, "val_f1": (train_acc - 2) / 100,
        "lr": 0.002, "time_s": 0.5, "data_time_s": 0.01, "gpu_util": None,
        "grad_norm": {"median": 1.0, "max": 3.0},
        "health": {
            "grad_norm_series": {"growth": 1.1, "max_to_median": 3.0},
            "weights": copy.deepcopy(WEIGHTS),
            "activations": {"dead_share_max": 0.1, "saturated_share_max": None, "looks_like_probabilities": False},
            "samples": {"negative_margin_share": 0.02},
            "recall": {"recall_min": 0.9},
            "batch_label_entropy": 0.99,
        },
    }  # fmt: skip


def sound_document() -> dict[str, Any]:
    """The metrics.json of a sound run."""
    epochs = [epoch(number) for number in range(1, NUM_EPOCHS + 1)]
    best = {"epoch": NUM_EPOCHS, "metric": "val_loss", "val_acc": epochs[-1]["val_acc"]}
    return {
        "schema_version": 1,
        "run": {
            "id": "baseline-0", "mode": "baseline", "status": "completed", "seed": 42, "config_sha256": None,
            "started_at": "2026-01-01T00:00:00+00:00",
            "dataset": {"name": "sample", "fingerprint": "0" * 64, "num_train": 1260, "num_val": NUM_VAL,
                        "class_names": [str(number) for number in range(NUM_CLASSES)]},
        },
        "epochs": epochs,
        "best": best,
        "events": [],
        "signals": {
            "data": {"splits": {"train": split_signals(1260), "val": split_signals(NUM_VAL)},
                     "majority_acc_pct": 10.0, "linear_acc_pct": 92.0},
            "initial_loss_ratio": 1.02,
            "initial_weights": {**copy.deepcopy(WEIGHTS), "update_to_weight_median": 0.03, "weight_norm": 6.0},
        },
    }  # fmt: skip


class RunBuilder:
    """A sound run to be changed: ``document`` and ``config`` are written by ``evidence``.

    ``contradicted`` is the share of validation samples that the network confidently gives another class.
    """

    def __init__(self) -> None:
        self.document = sound_document()
        self.config = copy.deepcopy(CONFIG)
        self.contradicted = 0.02
        self.log: list[str] = []

    def each_epoch(self, **values: Any) -> None:
        for record in self.document["epochs"]:
            record.update(values)

    def each_health(self, section: str, **values: Any) -> None:
        for record in self.document["epochs"]:
            record["health"][section].update(values)

    def initial(self, **values: Any) -> None:
        self.document["signals"]["initial_weights"].update(values)

    def split(self, name: str, **values: Any) -> None:
        self.document["signals"]["data"]["splits"][name].update(values)

    def accuracies(self, train: float, val: float) -> None:
        """The same accuracies in every epoch, with a loss to match."""
        self.each_epoch(train_acc=train, val_acc=val, train_loss=2.2, val_loss=2.25)
        self.document["best"]["val_acc"] = val

    def evidence(self, folder: Path) -> RunEvidence:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(self.document), encoding="utf-8")
        (folder / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        (folder / "training.log").write_text("\n".join(self.log) + "\n", encoding="utf-8")
        if self.document["epochs"]:
            self._write_predictions(folder / "predictions_val.npz")
        return read_evidence(folder)

    def _write_predictions(self, path: Path) -> None:
        """As accurate as the best epoch; of the wrong ones, as many confidently so as ``contradicted`` says."""
        best = next(record for record in self.document["epochs"] if record["num"] == self.document["best"]["epoch"])
        label = np.arange(NUM_VAL) % NUM_CLASSES
        num_right = round(best["val_acc"] * NUM_VAL / 100)
        predicted = np.where(np.arange(NUM_VAL) < num_right, label, (label + 1) % NUM_CLASSES)
        sure = np.arange(NUM_VAL) >= NUM_VAL - round(self.contradicted * NUM_VAL)
        logits = np.zeros((NUM_VAL, NUM_CLASSES), dtype=np.float32)
        logits[np.arange(NUM_VAL), predicted] = np.where((predicted == label) | sure, 8.0, 0.5)
        np.savez(path, index=np.arange(NUM_VAL), label=label, predicted=predicted, logits=logits)
