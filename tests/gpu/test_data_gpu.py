"""Batches and augmentation on a GPU: the same samples, and changes that agree with the CPU's."""

from __future__ import annotations

import pytest
import torch

from common.augmentation import TRANSFORMS, build_augmentation
from common.data import epoch_order, load_dataset, make_batches, split_into_batches
from common.data.batches import TensorBatches

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits") / "data"
    load_dataset("digits", root=root)
    return root


def all_batches(dataset, device, **options):
    batches = split_into_batches(epoch_order(dataset.splits["train"].num_samples, 1, 1), 100)
    normalizer = dataset.normalizer(device)
    with make_batches(dataset.splits["train"], device, normalizer=normalizer, **options) as source:
        return list(source.batches(batches))


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
@pytest.mark.parametrize("cache", ["memory", "none"])
def test_batches_on_a_gpu_are_those_on_the_cpu(root, device, cache):
    dataset = load_dataset("image_folder", root=root, cache=cache)
    options = {"num_workers": 2 if cache == "none" else 0, "pin_memory": True}
    for there, here in zip(all_batches(dataset, device, **options), all_batches(dataset, "cpu"), strict=True):
        assert there.inputs.is_cuda and there.labels.is_cuda and not there.indices.is_cuda
        assert torch.equal(there.labels.cpu(), here.labels) and torch.equal(there.indices, here.indices)
        assert torch.allclose(there.inputs.cpu(), here.inputs, atol=1e-6)


def test_what_does_not_fit_stays_on_the_cpu(root, monkeypatch):
    monkeypatch.setattr("common.data.batches._SHARE_OF_DEVICE_MEMORY", 0.0)
    dataset = load_dataset("image_folder", root=root)
    source = make_batches(dataset.splits["val"], "cuda", normalizer=dataset.normalizer("cuda"), pin_memory=True)
    assert isinstance(source, TensorBatches)
    (batch,) = source.batches([torch.arange(270)])
    (expected,) = make_batches(dataset.splits["val"], "cpu", normalizer=dataset.normalizer()).batches(
        [torch.arange(270)]
    )
    assert batch.inputs.is_cuda and torch.allclose(batch.inputs.cpu(), expected.inputs, atol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_augmentation_on_a_gpu_repeats_and_agrees_with_the_cpu(root, name):
    dataset = load_dataset("digits", root=root)

    def augmented(device):
        augmentation = build_augmentation([name], seed=3, normalizer=dataset.normalizer(device))
        batch = all_batches(dataset, device)[0]
        return augmentation(batch.inputs, batch.labels, batch.indices, 2)[0].cpu()

    assert torch.equal(augmented("cuda"), augmented("cuda"))
    # A pixel on the very edge may be rounded to either side.
    differing = (augmented("cuda") - augmented("cpu")).abs() > 1e-4
    assert differing.double().mean() < 1e-3
