"""Copies, wrong labels, rare classes, unscaled inputs: each found in data that has it, and not in data that has not."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from common.data import Dataset, Split, load_dataset
from common.health import measure_data
from common.health.input_sample import chosen_indices


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", write_files=False)


def changed(dataset: Dataset, name: str, inputs: torch.Tensor | None = None, labels: torch.Tensor | None = None):
    """The data set with other inputs or labels in one split."""
    split = dataset.splits[name]
    inputs = split.inputs if inputs is None else inputs
    labels = split.labels if labels is None else labels
    return replace(dataset, splits={**dataset.splits, name: Split(name, labels, inputs)})


def table(train: torch.Tensor, val: torch.Tensor, labels: torch.Tensor | None = None) -> Dataset:
    """A table of two classes, as it is (mean 0, standard deviation 1)."""
    splits = {}
    for name, rows in (("train", train), ("val", val)):
        splits[name] = Split(name, torch.arange(len(rows)) % 2 if labels is None else labels[: len(rows)], rows)
    features = train.shape[1]
    return Dataset("made up", "tabular", splits, ["a", "b"], (features,), [0.0] * features, [1.0] * features, "")


def rows(count: int, features: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed))


def num_looked_at(first: int, *, num_samples: int = 270) -> int:
    """How many of the first samples are among the 256 whose neighbours are looked for."""
    return int((chosen_indices(num_samples, 256) < first).sum())


def test_healthy_digits(digits):
    signals = measure_data(digits)
    train, val = signals.splits["train"], signals.splits["val"]
    assert list(signals.splits) == ["train", "val", "test"]
    assert (train.num_samples, sum(train.class_counts)) == (1257, 1257)
    assert train.imbalance_ratio < 1.1 and train.label_entropy_ratio > 0.999
    assert train.input_mean == pytest.approx(0.0, abs=1e-3) and train.input_std == pytest.approx(1.0, abs=1e-3)
    assert val.input_std == pytest.approx(1.0, abs=0.05) and (val.raw_min, val.raw_max) == (0.0, 1.0)
    assert (train.num_repeated, train.num_in_train, val.num_in_train, val.num_near_train) == (0, None, 0, 0)
    assert val.nearest_neighbour_agreement_pct > 95 and train.nearest_neighbour_agreement_pct > 95
    assert signals.linear_acc_pct > 85 and signals.majority_acc_pct < 15
    assert (signals.num_classes, signals.num_features, signals.chance_acc_pct) == (10, 64, 10.0)
    assert signals.num_label_conflicts == 0


@pytest.mark.parametrize("name", ["wine", "breast_cancer"])
def test_healthy_tables(name):
    signals = measure_data(load_dataset(name))
    assert signals.linear_acc_pct > 90 and signals.splits["val"].num_near_train == 0
    assert signals.splits["train"].input_std == pytest.approx(1.0, abs=1e-3)


def test_values_are_plain_and_the_same_every_time_and_nothing_is_drawn(digits):
    states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    first, second = measure_data(digits).as_dict(), measure_data(digits).as_dict()
    assert first == second and json.loads(json.dumps(first, allow_nan=False)) == first
    assert random.getstate() == states[0] and np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_a_third_of_validation_copied_from_training(digits):
    val = digits.splits["val"].inputs.clone()
    val[:90] = digits.splits["train"].inputs[200:290]
    signals = measure_data(changed(digits, "val", val)).splits["val"]
    assert (signals.num_in_train, signals.num_compared_with_train) == (90, 270)
    assert (signals.num_near_train, signals.num_near_compared) == (num_looked_at(90), 256)
    assert signals.num_repeated == 0


def test_copies_with_one_pixel_changed_by_one(digits):
    val = digits.splits["val"].inputs.clone()
    copies = digits.splits["train"].inputs[200:290].clone()
    copies[:, 0, 4, 4] ^= 1
    val[:90] = copies
    signals = measure_data(changed(digits, "val", val)).splits["val"]
    assert signals.num_in_train == 0 and signals.num_near_train == num_looked_at(90)


def test_copies_of_larger_images_with_noise():
    dataset = load_dataset("digits", write_files=False, image_size=24)
    noise = torch.randint(-3, 4, (80, 1, 24, 24), generator=torch.Generator().manual_seed(0))
    val = dataset.splits["val"].inputs.clone()
    val[:80] = (dataset.splits["train"].inputs[:80].int() + noise).clamp(0, 255).to(torch.uint8)
    signals = measure_data(changed(dataset, "val", val)).splits["val"]
    assert (signals.num_in_train, signals.num_near_train) == (0, num_looked_at(80))
    assert measure_data(dataset).splits["val"].num_near_train == 0


def test_repeated_training_samples_and_contradicting_labels(digits):
    train = digits.splits["train"]
    inputs, labels = train.inputs.clone(), train.labels.clone()
    inputs[100:110] = inputs[0]
    labels[:110] = 3
    labels[105] = 4
    signals = measure_data(changed(digits, "train", inputs, labels))
    assert signals.splits["train"].num_repeated == 10
    assert signals.splits["train"].num_near_train >= 1, "11 of 1257, of which 256 are looked at"
    assert signals.num_label_conflicts == 11


def test_samples_with_equal_checksums_are_told_apart(digits, monkeypatch):
    monkeypatch.setattr("common.health.duplicates.zlib.crc32", lambda data: bytes(data)[0] % 2)
    val = digits.splits["val"].inputs.clone()
    val[:90] = digits.splits["train"].inputs[:90]
    signals = measure_data(changed(digits, "val", val))
    assert signals.splits["val"].num_in_train == 90 and signals.splits["train"].num_repeated == 0


@pytest.mark.parametrize(("share", "low", "high"), [(0.2, 70, 88), (0.4, 45, 70), (0.9, 0, 25)])
def test_wrong_labels_disagree_with_their_neighbours(share, low, high, digits):
    labels = digits.splits["train"].labels
    generator = torch.Generator().manual_seed(1)
    is_wrong = torch.rand(len(labels), generator=generator) < share
    other = (labels + torch.randint(1, 10, labels.shape, generator=generator)) % 10
    signals = measure_data(changed(digits, "train", labels=torch.where(is_wrong, other, labels)))
    assert low < signals.splits["val"].nearest_neighbour_agreement_pct < high
    assert (
        signals.splits["train"].nearest_neighbour_agreement_pct
        < signals.splits["val"].nearest_neighbour_agreement_pct + 10
    )
    if share == 0.9:
        assert signals.linear_acc_pct < 25


def test_one_class_a_hundred_times_rarer():
    labels = (torch.arange(2020) % 101 == 0).long()
    signals = measure_data(table(rows(2020), rows(505, seed=1), labels))
    assert signals.splits["train"].imbalance_ratio == 100.0
    assert signals.splits["train"].label_entropy_ratio < 0.1
    assert signals.majority_acc_pct == pytest.approx(100 * 500 / 505)


def test_four_samples_a_class_and_a_class_without_any(digits):
    train = digits.splits["train"]
    few = torch.cat([(train.labels == digit).nonzero()[:4, 0] for digit in range(9)])
    signals = measure_data(changed(digits, "train", train.inputs[few], train.labels[few])).splits["train"]
    assert signals.class_counts == [4] * 9 + [0] and signals.imbalance_ratio == 1.0 and signals.num_samples == 36


def test_twenty_validation_samples(digits):
    val = digits.splits["val"]
    small = measure_data(changed(digits, "val", val.inputs[:20], val.labels[:20]))
    assert small.val_standard_error_50_pct == pytest.approx(100 * math.sqrt(0.25 / 20))
    assert small.val_standard_error_90_pct == pytest.approx(100 * math.sqrt(0.09 / 20))
    assert small.splits["val"].num_compared == 20


def test_inputs_that_were_never_scaled():
    columns = rows(200) * torch.tensor([1.0, 1000.0, 0.01, 1.0, 1.0, 1.0]) + 500
    signals = measure_data(table(columns[:150], columns[150:])).splits["train"]
    assert signals.input_mean == pytest.approx(500, rel=0.05) and signals.input_std > 300
    assert signals.feature_std_ratio == pytest.approx(1e5, rel=0.3)
    assert (signals.input_min, signals.input_max) == (float(columns[:150].min()), float(columns[:150].max()))


def test_a_validation_split_on_another_scale(digits):
    val = digits.splits["val"].inputs.float()
    train = digits.splits["train"].inputs.float() / 255
    signals = measure_data(changed(changed(digits, "train", train), "val", val)).splits
    assert signals["train"].input_std == pytest.approx(1.0, abs=1e-3) and signals["train"].raw_max == 1.0
    assert signals["val"].input_std == pytest.approx(255, rel=0.1) and signals["val"].raw_max == 255.0


def test_neighbours_far_from_zero_are_found():
    near_zero = measure_data(table(rows(300), rows(100, seed=1)))
    shifted = measure_data(table(rows(300) + 3000, rows(100, seed=1) + 3000))
    for name in ("train", "val"):
        assert near_zero.splits[name].nearest_neighbour_agreement_pct == pytest.approx(
            shifted.splits[name].nearest_neighbour_agreement_pct, abs=3
        )


def test_values_that_no_model_can_take():
    broken = rows(100)
    broken[3, 2], broken[4, 1], broken[5, 0] = math.nan, math.inf, 3e38
    signals = measure_data(table(broken, broken[:50]))
    assert signals.splits["train"].num_non_finite_values == 2 and signals.splits["train"].input_mean is None
    assert signals.splits["val"].num_in_train == 50
    json.dumps(signals.as_dict(), allow_nan=False)


def test_constant_inputs():
    signals = measure_data(table(torch.ones(40, 3), torch.ones(10, 3)))
    assert signals.splits["train"].num_repeated == 39 and signals.splits["train"].feature_std_ratio is None
    assert signals.splits["val"].num_near_train == 10 and signals.linear_acc_pct == 50.0
    json.dumps(signals.as_dict(), allow_nan=False)


def write_folder(root, splits: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]) -> None:
    for name, images in splits.items():
        for index, image in enumerate(images):
            folder = root / name / str(int(labels[name][index]))
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(folder / f"{index:04d}.png")


def test_images_that_stay_on_disk_say_the_same(digits, tmp_path):
    splits = {name: split.inputs[::8].clone() for name, split in digits.splits.items()}
    labels = {name: split.labels[::8] for name, split in digits.splits.items()}
    splits["val"][:5], labels["val"] = splits["train"][:5], labels["val"].clone()
    labels["val"][:5] = labels["train"][:5]
    write_folder(tmp_path, splits, labels)
    held, streamed = (load_dataset("image_folder", root=tmp_path, cache=cache) for cache in ("memory", "none"))
    assert streamed.splits["train"].is_streamed and not held.splits["train"].is_streamed
    assert measure_data(streamed) == measure_data(held)
    assert measure_data(streamed).splits["val"].num_in_train == 5


def test_of_many_images_on_disk_a_sample_is_decoded(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("common.health.data_signals._SAMPLE_SIZE", 20)
    splits = {name: split.inputs[::8].clone() for name, split in digits.splits.items()}
    labels = {name: split.labels[::8].clone() for name, split in digits.splits.items()}
    splits["val"][:10], labels["val"][:10] = splits["train"][:10], labels["train"][:10]
    write_folder(tmp_path, splits, labels)
    streamed = load_dataset("image_folder", root=tmp_path, cache="none")
    signals = measure_data(streamed).splits
    assert signals["train"].num_compared == 20 and signals["train"].num_samples == len(splits["train"])
    # Loading had compared them all.
    assert (signals["val"].num_in_train, signals["val"].num_compared_with_train) == (10, len(splits["val"]))
