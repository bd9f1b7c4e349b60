"""Random changes to training samples."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from common.augmentation import (
    TRANSFORMS,
    ColorJitter,
    Cutout,
    HorizontalFlip,
    Mixup,
    RandomCrop,
    Rotation,
    build_augmentation,
)
from common.data import Normalizer
from common.exits import UsageError

IMAGE_TRANSFORMS = [name for name in TRANSFORMS if name != "mixup"]
NORMALIZER = Normalizer([0.4, 0.5, 0.6], [0.2, 0.3, 0.4], num_dims=3)


def batch_of(indices, channels=3, size=(9, 12)):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(100, channels, *size, generator=generator)
    indices = torch.tensor(indices)
    return images[indices], indices % 10, indices


def augmented(transforms, indices, *, seed=1, epoch=1):
    images, labels, indices = batch_of(indices)
    augmentation = build_augmentation(transforms, seed=seed, normalizer=NORMALIZER)
    return augmentation(NORMALIZER.normalize_(images), labels, indices, epoch)


@pytest.mark.parametrize("name", IMAGE_TRANSFORMS)
def test_a_sample_is_changed_the_same_whatever_else_is_in_the_batch(name):
    together = augmented([name], list(range(20)))[0]
    for index in (0, 7, 19):
        alone = augmented([name], [index])[0][0]
        shuffled = augmented([name], [50, index, 3])[0][1]
        assert torch.equal(alone, together[index]) and torch.equal(shuffled, together[index])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_change_depends_on_seed_epoch_and_sample(name):
    first = augmented([name], list(range(20)))[0]
    assert torch.equal(augmented([name], list(range(20)))[0], first)
    assert not torch.equal(augmented([name], list(range(20)), epoch=2)[0], first)
    assert not torch.equal(augmented([name], list(range(20)), seed=2)[0], first)


def test_nothing_is_drawn_from_a_random_stream_and_the_input_stays():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    images, labels, indices = batch_of(list(range(8)))
    kept = images.clone()
    build_augmentation(list(TRANSFORMS), seed=1, normalizer=NORMALIZER)(images, labels, indices, 1)
    assert torch.equal(images, kept)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_a_transform_more_leaves_the_draws_of_the_others_alone():
    flips = [augmented(transforms, list(range(20)))[0] for transforms in (["horizontal_flip"], ["rotation"])]
    both = augmented([{"rotation": {"degrees": 1e-6}}, "horizontal_flip"], list(range(20)))[0]
    assert torch.allclose(both, flips[0], atol=1e-4) and not torch.allclose(both, flips[1], atol=1e-4)


def test_the_same_transform_twice_draws_twice():
    twice = augmented([{"horizontal_flip": {"p": 0.5}}] * 2, list(range(64)))[0]
    assert not torch.allclose(twice, augmented([], list(range(64)))[0], atol=1e-3)


def test_labels_are_passed_through_without_mixup():
    images, labels, indices = batch_of([3, 4])
    augmentation = build_augmentation(["rotation"], seed=1, normalizer=NORMALIZER)
    _, same, mix_labels, mix_lambda = augmentation(images, labels, indices, 1)
    assert same is labels and mix_labels is None and mix_lambda is None


def test_crop_takes_every_shift_and_fills_with_black():
    padding = 2
    images = torch.arange(1, 5 * 4 + 1).float().reshape(1, 1, 5, 4).expand(25, 1, 5, 4)
    corners = torch.cartesian_prod(torch.arange(5), torch.arange(5)) / 5 + 0.1
    cropped = RandomCrop(padding)(images, corners.double())
    padded = torch.nn.functional.pad(images[0, 0], [padding] * 4)
    for number in range(25):
        row, column = divmod(number, 5)
        assert torch.equal(cropped[number, 0], padded[row : row + 5, column : column + 4])


def test_flip_has_its_probability():
    images = torch.rand(4, 3, 2, 5)
    flipped = HorizontalFlip(0.3)(images, torch.tensor([[0.0], [0.29], [0.3], [0.9]]))
    assert torch.equal(flipped[:2], images[:2].flip(3)) and torch.equal(flipped[2:], images[2:])


def test_rotation_by_a_quarter_turns_every_pixel():
    images = torch.rand(2, 3, 6, 6)
    turned = Rotation(90.0)(images, torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    assert torch.allclose(turned[0], images[0].rot90(-1, (1, 2)), atol=1e-5)
    assert torch.allclose(turned[1], images[1].rot90(1, (1, 2)), atol=1e-5)


def test_rotation_keeps_shapes_upright_in_oblong_images():
    image = torch.zeros(1, 1, 21, 41)
    image[..., 10, 10:31] = 1.0
    turned = Rotation(90.0)(image, torch.tensor([[1.0]], dtype=torch.float64))
    assert torch.allclose(turned[0, 0, :, 20], torch.ones(21), atol=1e-4)
    assert turned.sum() == pytest.approx(21, abs=1e-2)


def test_cutout_blackens_a_square_that_may_reach_beyond_the_edge():
    images = torch.ones(3, 2, 10, 12)
    draws = torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.99, 0.99]], dtype=torch.float64)
    holes = Cutout(4)(images, draws) == 0
    assert holes.sum(dim=(1, 2, 3)).tolist() == [2 * 16, 2 * 4, 2 * 9]
    assert holes[0, :, 3:7, 4:8].all() and holes[1, :, :2, :2].all() and holes[2, :, 7:, 9:].all()


def test_jitter_of_brightness_contrast_and_saturation():
    images = torch.rand(1, 3, 4, 4) * 0.5 + 0.2
    middle, top = 0.5, 1.0

    def jitter(brightness, contrast, saturation):
        draws = torch.tensor([[brightness, contrast, saturation]], dtype=torch.float64)
        return ColorJitter(0.1, 0.1, 0.1)(images, draws)

    grey = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
    assert torch.allclose(jitter(middle, middle, middle), images, atol=1e-6)
    assert torch.allclose(jitter(top, middle, middle), images * 1.1, atol=1e-6)
    assert torch.allclose(jitter(middle, top, middle), grey.mean() + 1.1 * (images - grey.mean()), atol=1e-6)
    assert torch.allclose(jitter(middle, middle, top), grey + 1.1 * (images - grey), atol=1e-6)


def test_jitter_stays_on_the_scale_and_leaves_grey_images_their_saturation():
    draws = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64)
    bright = ColorJitter(1.0, 1.0, 1.0)(torch.rand(1, 3, 4, 4), draws)
    assert bright.min() >= 0 and bright.max() <= 1
    grey = torch.rand(1, 1, 4, 4)
    assert torch.equal(ColorJitter(0.0, 0.0, 1.0)(grey, draws), grey)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 2.0, 8.0])
def test_mixup_weights_are_beta_distributed(alpha):
    from scipy.stats import beta

    weights = Mixup(alpha).weights((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000).double().numpy()
    quantiles = beta.ppf((np.arange(2000) + 0.5) / 2000, alpha, alpha)
    assert np.abs(weights - quantiles).max() < 1e-5
    assert weights.min() >= 0 and weights.max() <= 1


def test_mixup_mixes_with_the_neighbour_by_the_weight_it_returns():
    images, labels, indices = batch_of([4, 9, 21])
    augmentation = build_augmentation([{"mixup": {"alpha": 1.0}}], seed=1, normalizer=NORMALIZER)
    mixed, same, mix_labels, mix_lambda = augmentation(images, labels, indices, 1)
    assert same is labels and mix_labels.tolist() == [1, 4, 9]
    weights = mix_lambda[:, None, None, None]
    assert torch.allclose(mixed, weights * images + (1 - weights) * images[[2, 0, 1]], atol=1e-6)
    assert torch.equal(augmentation(*batch_of([4, 50]), 1)[3][:1], mix_lambda[:1])


def test_tables_can_be_mixed_but_not_turned():
    normalizer = Normalizer([0.0, 1.0], [1.0, 2.0], num_dims=1)
    rows = torch.rand(4, 2)
    mixed, *_ = build_augmentation(["mixup"], seed=1, normalizer=normalizer)(rows, torch.arange(4), torch.arange(4), 1)
    assert mixed.shape == (4, 2) and not torch.equal(mixed, rows)
    with pytest.raises(UsageError, match="a table, for which there is mixup only"):
        build_augmentation(["rotation"], seed=1, normalizer=normalizer)


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (["blur"], "unknown transform 'blur'; one of random_crop"),
        ([{"rotation": {"angle": 3}}], "rotation: .*angle"),
        ([{"mixup": {"alpha": 0.0}}], "mixup: alpha must be positive"),
        (["mixup", "mixup"], "mixup is named twice"),
    ],
)
def test_faults_are_named(transforms, message):
    with pytest.raises(UsageError, match=message):
        build_augmentation(transforms, seed=1, normalizer=NORMALIZER)


def test_config_objects_and_their_defaults_are_the_same_as_ours():
    from common.config.augmentation_schema import TRANSFORMS as SCHEMA

    assert set(SCHEMA) == set(TRANSFORMS)
    for name, kind in SCHEMA.items():
        by_name, by_object = (augmented([entry], list(range(10)))[0] for entry in (name, kind()))
        assert torch.equal(by_name, by_object)
