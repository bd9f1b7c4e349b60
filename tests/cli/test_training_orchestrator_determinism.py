"""The same config gives the same bits: again, with other workers, from files or from memory, after other work."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest
import torch

from common.data import load_dataset
from tests.training_runs import Run, assert_same, train, without_times

LIVELY = {
    "model__architecture": "simple_cnn",
    "model__hidden_dims": None,
    "model__dropout": 0.3,
    "training__epochs": 2,
    "training__ema": 0.9,
    "data_augmentation__enabled": True,
    "data_augmentation__transforms": ["random_crop", "rotation", "color_jitter", "mixup"],
}


@pytest.fixture(scope="module")
def few_digits(tmp_path_factory):
    """A folder of images: 16 of each of three digits to train on, 8 to validate."""
    folder = tmp_path_factory.mktemp("images")
    load_dataset("digits", root=folder / "all")
    for split, count in (("train", 16), ("val", 8)):
        for digit in "017":
            files = sorted((folder / "all" / split / digit).glob("*.png"))[:count]
            (folder / "few" / split / digit).mkdir(parents=True)
            for file in files:
                shutil.copy(file, folder / "few" / split / digit)
    return str(folder / "few")


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def assert_equal_runs(first: Run, second: Run) -> None:
    assert first.weight_hashes() == second.weight_hashes()
    assert_same(without_times(first.metrics["epochs"]), without_times(second.metrics["epochs"]))
    assert_same(first.metrics["best"], second.metrics["best"])
    assert first.metrics["run"]["config_sha256"] == second.metrics["run"]["config_sha256"]
    for name in first.checkpoint_names | second.checkpoint_names:
        one, other = first.checkpoint(name), second.checkpoint(name)
        for part in ("model_state_dict", "optimizer_state_dict", "scheduler_state_dict", "ema_state_dict", "rng_state"):
            assert_same(one[part], other[part], part)
    assert first.predictions()["logits"].tobytes() == second.predictions()["logits"].tobytes()


def test_twice_the_same_whatever_was_drawn_before(few_digits):
    changes = {**LIVELY, "data__source": "image_folder", "data__root": few_digits, "training__batch_size": 16}
    first = train("first", **changes)
    random.seed(1), np.random.seed(1), torch.manual_seed(1), torch.rand(99)
    assert_equal_runs(first, train("second", **changes))


def test_another_seed_gives_another_run(few_digits):
    changes = {**LIVELY, "data__source": "image_folder", "data__root": few_digits}
    hashes = [train(f"seed{seed}", **changes, reproducibility__seed=seed).weight_hashes() for seed in (1, 2)]
    assert set(hashes[0]).isdisjoint(hashes[1])


def test_neither_workers_nor_caching_change_a_bit(few_digits):
    changes = {**LIVELY, "data__source": "image_folder", "data__root": few_digits, "training__batch_size": 16}
    held = train("held", **changes, data__cache="memory")
    streamed = train("streamed", **changes, data__cache="none")
    workers = train("workers", **changes, data__cache="none", data__num_workers=2, data__persistent_workers=True)
    assert any("streamed from disk" in line for line in workers.log)
    assert any("held in memory" in line for line in held.log)
    assert_equal_runs(held, streamed)
    assert_equal_runs(streamed, workers)
