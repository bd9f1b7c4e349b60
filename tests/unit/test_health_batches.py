"""Batches of sorted data, of shuffled data, and everything between."""

from __future__ import annotations

import pytest
import torch

from common.data import epoch_order, split_into_batches
from common.health import BatchMixing


def ratio(order: torch.Tensor, labels: torch.Tensor, batch_size: int) -> float | None:
    mixing = BatchMixing(labels, int(labels.max()) + 1)
    return mixing.label_entropy_ratio(split_into_batches(order, batch_size))


@pytest.mark.parametrize(("batch_size", "tolerance"), [(4, 0.25), (32, 0.1), (250, 0.1)])
@pytest.mark.parametrize("num_classes", [2, 10, 400])
def test_shuffled_data_is_at_one(num_classes, batch_size, tolerance):
    labels = torch.arange(4000) * num_classes // 4000
    assert ratio(epoch_order(4000, 1, 1), labels, batch_size) == pytest.approx(1.0, abs=tolerance)


def test_epochs_of_several_kinds_of_batches():
    labels = torch.arange(4000) // 400
    mixing = BatchMixing(labels, 10)
    for batch_size in (32, 100, 32):
        batches = split_into_batches(epoch_order(4000, 1, 1), batch_size)
        assert mixing.label_entropy_ratio(batches) == ratio(epoch_order(4000, 1, 1), labels, batch_size)


def test_sorted_data_is_near_zero():
    labels = torch.arange(4000) // 400
    assert ratio(torch.arange(4000), labels, 32) < 0.1
    assert ratio(torch.arange(4000), labels, 400) == 0.0


def test_partly_sorted_data_is_between():
    labels = torch.arange(4000) // 400
    by_halves = torch.cat([epoch_order(2000, 1, 1), 2000 + epoch_order(2000, 1, 2)])
    assert 0.5 < ratio(by_halves, labels, 100) < 0.8


def test_rare_classes_do_not_look_like_sorting():
    labels = (torch.arange(4000) % 100 == 0).long()
    assert ratio(epoch_order(4000, 1, 1), labels, 100) == pytest.approx(1.0, abs=0.2)


def test_one_batch_with_everything_in_it():
    labels = torch.arange(300) % 3
    assert ratio(torch.arange(300), labels, 1000) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("batch_size", [1, 10])
def test_nothing_to_compare(batch_size):
    labels = torch.zeros(40, dtype=torch.int64)
    mixing = BatchMixing(labels, 3)
    assert mixing.label_entropy_ratio([]) is None
    assert mixing.label_entropy_ratio(split_into_batches(torch.arange(40), batch_size)) is None


def test_batches_of_one_sample_say_nothing():
    labels = torch.arange(40) % 4
    assert ratio(torch.arange(40), labels, 1) is None


def test_no_random_stream_is_touched():
    before = torch.get_rng_state()
    ratio(torch.arange(100), torch.arange(100) % 5, 10)
    assert torch.equal(before, torch.get_rng_state())
