"""Batches, whether cut out of memory or decoded by workers."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from common.data import Normalizer, epoch_order, load_dataset, make_batches, split_into_batches
from common.exits import InputFileError


@pytest.fixture(scope="module")
def digits_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits") / "data"
    load_dataset("digits", root=root)
    return root


@pytest.fixture(scope="module")
def in_memory(digits_root):
    return load_dataset("image_folder", root=digits_root)


@pytest.fixture(scope="module")
def on_disk(digits_root):
    return load_dataset("image_folder", root=digits_root, cache="none")


def source_of(dataset, split="val", **kwargs):
    return make_batches(dataset.splits[split], "cpu", normalizer=dataset.normalizer(), **kwargs)


def global_random_state():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_epoch_order_is_a_permutation_made_of_seed_and_epoch():
    orders = {(seed, epoch): epoch_order(100, seed, epoch).tolist() for seed in (0, 1, -5) for epoch in (1, 2)}
    assert all(sorted(order) == list(range(100)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 6
    assert epoch_order(100, 1, 2).tolist() == orders[1, 2]


def test_epoch_order_never_changes():
    # Written down: another order would make every finished run impossible to repeat.
    assert epoch_order(10, 42, 1).tolist() == [5, 2, 6, 0, 9, 4, 8, 7, 3, 1]


def test_split_into_batches():
    order = torch.arange(10)
    assert [batch.tolist() for batch in split_into_batches(order, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [len(batch) for batch in split_into_batches(order, 4, drop_last=True)] == [4, 4]
    assert [len(batch) for batch in split_into_batches(order, 5, drop_last=True)] == [5, 5]
    assert split_into_batches(order[:0], 4) == [] and split_into_batches(order[:3], 4, drop_last=True) == []


def test_batches_hold_the_samples_asked_for(in_memory):
    split = in_memory.splits["val"]
    wanted = [torch.tensor([5, 0, 269]), torch.tensor([7])]
    batches = list(source_of(in_memory).batches(wanted))
    assert [batch.indices.tolist() for batch in batches] == [[5, 0, 269], [7]]
    assert torch.equal(batches[0].labels, split.labels[wanted[0]])
    expected = (split.inputs[wanted[0]].double() / 255 - in_memory.mean[0]) / in_memory.std[0]
    assert batches[0].inputs.dtype == torch.float32
    assert torch.allclose(batches[0].inputs.double(), expected, atol=1e-6)


def test_tables_are_standardised(tmp_path):
    wine = load_dataset("wine")
    order = torch.arange(wine.splits["train"].num_samples)
    (batch,) = source_of(wine, "train").batches([order])
    assert torch.allclose(batch.inputs.mean(dim=0), torch.zeros(13), atol=1e-5)
    assert torch.allclose(batch.inputs.std(dim=0, correction=0), torch.ones(13), atol=1e-5)


def test_raw_inputs_stay_as_they_are(in_memory):
    before = in_memory.splits["val"].inputs.clone()
    (batch,) = source_of(in_memory).batches([torch.arange(270)])
    batch.inputs.zero_()
    assert torch.equal(in_memory.splits["val"].inputs, before)
    table = load_dataset("iris")
    before = table.splits["val"].inputs.clone()
    (batch,) = source_of(table).batches([torch.arange(len(before))])
    batch.inputs.zero_()
    assert torch.equal(table.splits["val"].inputs, before)


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 0},
        {"num_workers": 1},
        {"num_workers": 2, "prefetch_factor": 1},
        {"num_workers": 2, "persistent_workers": True},
    ],
    ids=str,
)
def test_streamed_batches_are_those_in_memory_and_touch_no_random_stream(in_memory, on_disk, options):
    expected_source = source_of(in_memory)
    with source_of(on_disk, **options) as source:
        state = global_random_state()
        for epoch in (1, 2):
            batches = split_into_batches(epoch_order(270, 3, epoch), 32)
            pairs = zip(source.batches(batches), expected_source.batches(batches), strict=True)
            for streamed, expected in pairs:
                assert torch.equal(streamed.indices, expected.indices)
                assert torch.equal(streamed.inputs, expected.inputs)
                assert torch.equal(streamed.labels, expected.labels)
        assert global_random_state() == state


@pytest.mark.parametrize("persistent_workers", [False, True])
def test_an_iteration_may_be_left_in_the_middle(in_memory, on_disk, persistent_workers):
    batches = split_into_batches(torch.arange(270), 10)
    with source_of(on_disk, num_workers=2, persistent_workers=persistent_workers) as source:
        for _ in range(2):
            stream = source.batches(batches)
            next(stream)
            stream.close()
        rest = list(source.batches(batches[20:]))
        expected = list(source_of(in_memory).batches(batches[20:]))
        assert len(rest) == len(expected) == 7
        assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(rest, expected, strict=True))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_is_gone_is_named(tmp_path, num_workers):
    root = tmp_path / "data"
    load_dataset("digits", root=root)
    dataset = load_dataset("image_folder", root=root, cache="none")
    lost = root / dataset.splits["val"].file_names[3]
    lost.unlink()
    expected = pytest.raises(InputFileError, match=f"{lost.name}: is missing; it was readable when training began")
    with source_of(dataset, num_workers=num_workers) as source, expected:
        list(source.batches([torch.arange(6)]))


def test_no_batches_are_no_work(on_disk, in_memory):
    assert list(source_of(in_memory).batches([])) == []
    with source_of(on_disk, num_workers=1) as source:
        assert list(source.batches([])) == []


def test_normalizer_goes_back_and_forth():
    normalizer = Normalizer([0.5, 0.1, 0.2], [0.25, 0.5, 2.0], num_dims=3)
    raw = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    normalized = normalizer(raw)
    assert normalized[1, 2, 0, 0].item() == pytest.approx((raw[1, 2, 0, 0].item() / 255 - 0.2) / 2.0)
    assert torch.allclose(normalizer.denormalize(normalized), raw.float() / 255, atol=1e-6)


def test_a_split_is_copied_to_a_device_once(in_memory):
    split = in_memory.splits["val"]
    assert split.inputs_on(torch.device("cpu")) is split.inputs_on(torch.device("cpu"))
