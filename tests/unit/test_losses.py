"""The loss agrees with PyTorch's where PyTorch has it, and with the definition where it has not."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from common.exits import UsageError
from common.losses import build_loss

LABELS = torch.tensor([0, 2, 1, 2, 0])
MIX_LABELS = torch.tensor([1, 1, 0, 2, 2])
LAMBDA = torch.tensor([0.9, 0.5, 0.0, 1.0, 0.25])
WEIGHTS = [0.5, 2.0, 1.25]
COUNTS = [7, 1, 4]


@pytest.fixture
def logits():
    return 3 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_samples_cost_what_pytorch_says(logits, smoothing, weights):
    loss = build_loss(smoothing, weights, train_label_counts=COUNTS)
    expected = functional.cross_entropy(logits, LABELS, loss.class_weights, reduction="none", label_smoothing=smoothing)
    assert torch.equal(loss.per_sample(logits, LABELS), expected)
    torch.testing.assert_close(loss(logits, LABELS), expected.mean())


def test_weights_keep_their_ratios_and_have_mean_one_over_the_training_samples():
    weights_C = build_loss(0.0, WEIGHTS, train_label_counts=COUNTS).class_weights
    torch.testing.assert_close(weights_C / weights_C[0], torch.tensor(WEIGHTS) / WEIGHTS[0])
    assert (weights_C * torch.tensor(COUNTS)).sum().item() == pytest.approx(sum(COUNTS))


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_micro_batches_add_up_to_the_whole_batch(logits, weights):
    loss = build_loss(0.1, weights, train_label_counts=COUNTS)
    parts = [loss.per_sample(logits[cut], LABELS[cut]).sum() for cut in (slice(0, 1), slice(1, 5))]
    torch.testing.assert_close(sum(parts) / 5, loss(logits, LABELS))


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_mixed_labels_are_a_mixture_of_losses(logits, weights):
    loss = build_loss(0.0, weights, train_label_counts=COUNTS)
    class_weights = torch.ones(3) if weights is None else loss.class_weights
    log_probs = logits.log_softmax(1)
    first = class_weights[LABELS] * -log_probs[range(5), LABELS]
    second = class_weights[MIX_LABELS] * -log_probs[range(5), MIX_LABELS]
    expected = LAMBDA * first + (1 - LAMBDA) * second
    torch.testing.assert_close(loss.per_sample(logits, LABELS, MIX_LABELS, LAMBDA), expected)
    torch.testing.assert_close(loss(logits, LABELS, MIX_LABELS, LAMBDA), expected.mean())


def test_a_mixture_of_one_is_no_mixture(logits):
    loss = build_loss(0.1)
    mixed = loss.per_sample(logits, LABELS, MIX_LABELS, torch.ones(5))
    assert torch.equal(mixed, loss.per_sample(logits, LABELS))


def test_half_precision_logits_are_summed_in_fp32(logits):
    loss = build_loss()
    low = logits.bfloat16()
    assert loss.per_sample(low, LABELS).dtype == torch.float32
    assert torch.equal(loss(low, LABELS), loss(low.float(), LABELS))


def test_equal_logits_cost_ln_c():
    assert build_loss()(torch.zeros(4, 10), torch.arange(4)).item() == pytest.approx(math.log(10))


def test_balanced_weights_make_every_class_count_the_same():
    counts = [10, 30, 60]
    loss = build_loss(class_weights="balanced", train_label_counts=counts)
    shares = loss.class_weights * torch.tensor(counts)
    torch.testing.assert_close(shares, torch.full((3,), 100 / 3), rtol=1e-6, atol=0)


def test_weights_move_with_the_loss_and_stay_out_of_checkpoints():
    loss = build_loss(class_weights=WEIGHTS, train_label_counts=COUNTS)
    assert loss.to("meta").class_weights.device.type == "meta"
    assert loss.state_dict() == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing": 1.0}, r"must be in \[0, 1\), not 1.0"),
        ({"class_weights": [1.0, 0.0], "train_label_counts": [1, 1]}, "every weight must be a positive number"),
        ({"class_weights": [1.0, math.inf], "train_label_counts": [1, 1]}, "every weight must be a positive number"),
        ({"class_weights": [1.0, 2.0], "train_label_counts": [1, 1, 1]}, "there are 2 weights for 3 classes"),
        ({"class_weights": "equal", "train_label_counts": [1, 1]}, "`equal` is no way to weigh classes"),
        ({"class_weights": "balanced", "train_label_counts": [3, 0]}, "class 1 has no training sample"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        build_loss(**arguments)
