"""From a config to the parts of a training, measuring without a trace, and a state that comes back to the bit."""

from __future__ import annotations

import copy
import io
import random

import numpy as np
import pytest
import torch
from torch.nn import functional

from common.config import config_from_mapping
from common.device import configure_determinism
from common.engine.assembly import _even_batches, build_parts, evaluation_set, load_data
from common.engine.evaluation import evaluate
from common.engine.parts import Parts
from common.engine.training_step import MicroBatch
from common.exits import InputFileError
from common.parallel import World
from common.seeding import capture_rng_state, seed_everything
from tests.training_runs import STOPPABLE, assert_same, config_mapping


@pytest.fixture(autouse=True)
def deterministic():
    before = torch.are_deterministic_algorithms_enabled()
    configure_determinism(True)
    yield
    torch.use_deterministic_algorithms(before)


def build(mode: str = "baseline", **changes) -> Parts:
    """Parts for the wines, freshly seeded."""
    config = config_from_mapping(config_mapping(**changes), "test")
    dataset = load_data(config)
    seed_everything(config.reproducibility.seed)
    return build_parts(config, dataset, torch.device("cpu"), World(), mode=mode)


def train_steps(parts: Parts, count: int, first: int = 0) -> list[float]:
    """Some optimizer steps on batches of 20 samples; the losses."""
    losses = []
    for step in range(first, first + count):
        indices = torch.arange(20) + 20 * (step % 6)
        batches = [MicroBatch(batch) for batch in parts.train_source.batches([indices])]
        result = parts.step.run(batches, num_micro_batches=1, num_samples=20, epoch=1, step=step)
        losses.append(result.loss_sum)
    return losses


LIVELY = {
    "model__architecture": STOPPABLE, "model__hidden_dims": None, "model__dropout": 0.4, "training__ema": 0.8,
    "lr_scheduler__type": "cosine",
}  # fmt: skip


# Assembly


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"training__batch_size": 124}, 1),
        ({"training__batch_size": 123}, 2),
        ({"training__batch_size": 123, "data__drop_last": True}, 1),
        ({"training__batch_size": 10, "training__accumulate": 3}, 5),
        ({"training__batch_size": 1}, 124),
    ],
)
def test_steps_per_epoch(changes, steps):
    assert build(**changes).steps_per_epoch == steps


@pytest.mark.parametrize(
    ("num_samples", "sizes"),
    [(1, [1]), (256, [256]), (270, [270]), (383, [383]), (385, [193, 192]), (640, [320, 320]), (1000, [250] * 4)],
)
def test_a_small_rest_is_no_batch_of_its_own(num_samples, sizes):
    batches = _even_batches(torch.arange(num_samples), 256)
    assert [len(batch) for batch in batches] == sizes
    assert torch.equal(torch.cat(batches), torch.arange(num_samples))


def test_the_same_seed_builds_the_same_model():
    first, second, other = build(), build(), build(reproducibility__seed=43)
    assert_same(first.state.model.state_dict(), second.state.model.state_dict())
    assert not torch.equal(*(next(parts.state.model.parameters()) for parts in (first, other)))


def test_production_has_names_of_its_own():
    assert build("production").plan.best_name == "final_model_best.pt"
    assert build("optimization").plan.best_name == "best_model.pt"


def test_a_number_of_classes_that_the_data_does_not_have():
    with pytest.raises(InputFileError, match="3 classes"):
        build(model__num_classes=4)


def test_a_model_spec_has_plain_values_only():
    spec = build().state.model_spec
    content = io.BytesIO()
    torch.save(spec, content)
    content.seek(0)
    assert torch.load(content, weights_only=True) == spec
    assert spec["num_parameters"] == sum(p.numel() for p in build().state.model.parameters())


# Evaluation


def test_an_evaluation_is_cross_entropy_and_accuracy_in_eval_mode():
    parts = build(model__dropout=0.5)
    found = evaluate(parts, evaluation_set(parts, "val"))
    split = parts.dataset.splits["val"]
    with torch.no_grad():
        logits = parts.state.model.eval()(parts.dataset.normalizer()(split.inputs))
    assert found.loss == pytest.approx(float(functional.cross_entropy(logits, split.labels)), rel=1e-6)
    assert found.logits_BC.dtype == np.float32 and np.allclose(found.logits_BC, logits.numpy(), atol=1e-6)
    assert found.labels_B.tolist() == split.labels.tolist()
    right = np.mean(found.predictions_B == found.labels_B)
    assert found.metrics.accuracy_pct == pytest.approx(100 * right)


def test_an_evaluation_leaves_no_trace():
    """Neither in weights and statistics, nor in the model's mode, nor in any random stream."""
    parts = build(**LIVELY)
    train_steps(parts, 2)
    before, streams = copy.deepcopy(parts.state.model.state_dict()), capture_rng_state()
    assert parts.state.model.training
    evaluate(parts, parts.validation)
    assert parts.state.model.training
    assert_same(dict(parts.state.model.state_dict()), dict(before))
    assert_same(capture_rng_state(), streams)


def test_an_evaluation_that_is_stopped_leaves_no_trace_either():
    parts = build(**LIVELY)
    streams = capture_rng_state()

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(parts, parts.validation, check_stop=stop)
    assert parts.state.model.training
    assert_same(capture_rng_state(), streams)


def test_an_evaluation_can_be_trained_after():
    """Inference mode must not leave tensors behind that autograd refuses."""
    expected = train_steps(build(**LIVELY), 4)
    parts = build(**LIVELY)
    losses = train_steps(parts, 2)
    evaluate(parts, parts.validation)
    assert losses + train_steps(parts, 2, first=2) == expected


# The state


def saved_and_loaded(parts: Parts) -> dict:
    content = io.BytesIO()
    torch.save(parts.state.capture(World()), content)
    content.seek(0)
    return torch.load(content, weights_only=True)


def test_a_state_comes_back_to_the_bit():
    whole = build(**LIVELY)
    train_steps(whole, 3)
    checkpoint = saved_and_loaded(whole)
    expected = train_steps(whole, 4, first=3)

    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    again = build(**LIVELY)
    train_steps(again, 1)
    again.state.restore(checkpoint, World())
    assert train_steps(again, 4, first=3) == expected
    assert_same(saved_and_loaded(again), saved_and_loaded(whole))


def test_capturing_draws_nothing_and_holds_still():
    parts = build(**LIVELY)
    checkpoint, streams = saved_and_loaded(parts), capture_rng_state()
    assert_same(saved_and_loaded(parts), checkpoint)
    assert_same(capture_rng_state(), streams)


def test_what_has_no_average_saves_none():
    assert "ema_state_dict" not in build().state.capture(World())
    assert "ema_state_dict" in build(training__ema=0.9).state.capture(World())
