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
            assert_same(one.get(part), other.get(part), part)
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
    assert any("held in memory" in line for line in held.log)
    assert_equal_runs(held, streamed)
    for count in (1, 2, 4):
        workers = train(
            f"workers{count}",
            **changes,
            data__cache="none",
            data__num_workers=count,
            data__persistent_workers=count == 2,
        )
        assert any("streamed from disk" in line for line in workers.log)
        assert_equal_runs(streamed, workers)


IMAGE_TRANSFORMS = ("random_crop", "horizontal_flip", "rotation", "color_jitter", "cutout", "mixup")
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
SCHEDULERS = ("none", "reduce_on_plateau", "step", "cosine", "one_cycle")
# Every choice at least once, most of them in company: what one part draws must not shift what another part gets.
CHOICES = [
    *({"model__architecture": name} for name in ("simple_mlp", "small_transformer", "resnet18")),
    *({"optimizer__type": name, "optimizer__weight_decay": 0.01} for name in OPTIMIZERS),
    *({"lr_scheduler__type": name, "lr_scheduler__warmup_epochs": 0.5} for name in SCHEDULERS),
    *({"data_augmentation__enabled": True, "data_augmentation__transforms": [name]} for name in IMAGE_TRANSFORMS),
    {"training__ema": 0.9, "training__accumulate": 3, "training__label_smoothing": 0.1},
    {"training__precision": "bf16", "training__channels_last": True},
    {"training__class_weights": "balanced", "optimizer__gradient_clip_max_norm": 0.5},
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(str(value) for value in choice.values()))
def test_every_choice_repeats_to_the_bit(few_digits, choice):
    changes = {
        "model__architecture": "simple_cnn", "model__hidden_dims": None, "model__dropout": 0.3, "training__epochs": 2,
        "training__batch_size": 16, "optimizer__learning_rate": 0.003, "data__source": "image_folder",
        "data__root": few_digits,
    }  # fmt: skip
    first, second = (train(name, **{**changes, **choice}) for name in ("first", "second"))
    assert_equal_runs(first, second)


def test_watching_and_writing_change_no_weight(few_digits):
    changes = {**LIVELY, "data__source": "image_folder", "data__root": few_digits, "training__epochs": 3}
    plain = train("plain", **changes)
    watched = train(
        "watched",
        "--verbose",
        **changes,
        logging__tensorboard=True,
        logging__log_every_n_steps=1,
        checkpointing__checkpoint_every_n_steps=1,
        checkpointing__checkpoint_every_n_epochs=1,
    )
    seldom = train("seldom", **changes, validation__validate_every_n_epochs=3)
    assert plain.weight_hashes() == watched.weight_hashes() == seldom.weight_hashes()
