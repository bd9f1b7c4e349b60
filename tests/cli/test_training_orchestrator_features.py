"""Every choice of a config does what it says, seen from outside: in the weights, the numbers and the files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from common.augmentation import build_augmentation
from common.checkpoints import build_from_spec, load_model
from common.data import load_dataset
from tests.training_runs import Run, assert_same, measured_again, train, wines

STILL = {"optimizer__learning_rate": 1e-12}  # nothing moves: what is measured is the model as it was built
LEFT_ALONE = {"diagnostics__convergence_stall": {"reaction": "off"}}


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def digits_root(tmp_path_factory):
    """The digits as files, written once."""
    root = tmp_path_factory.mktemp("digits") / "data"
    load_dataset("digits", root=root)
    return str(root)


def weights_of(run: Run, name: str = "last_model.pt") -> torch.Tensor:
    state = run.checkpoint(name)["model_state_dict"]
    return torch.cat([tensor.flatten().double() for tensor in state.values()])


# When to stop, what to keep


def test_early_stopping():
    run = train(**STILL, **LEFT_ALONE, training__epochs=9, early_stopping__patience=2, early_stopping__min_delta=0.1)
    assert run.metrics["run"]["status"] == "early_stopped" and len(run.epochs) == 3
    assert any(line.startswith("Training complete") and "stopped early" in line for line in run.log)
    assert "early_stopped after 3 epochs" in Path("baseline_results.md").read_text()
    assert run.checkpoint()["progress"]["finished"] == "early_stopped"


def test_early_stopping_does_not_hide_that_nothing_was_learnt():
    run = train(
        **STILL, training__epochs=9, early_stopping__patience=2, early_stopping__min_delta=0.1,
        diagnostics__convergence_stall={"patience_epochs": 4},
    )  # fmt: skip
    assert len(run.epochs) == 9 and run.metrics["run"]["status"] == "completed"
    (event,) = [event for event in run.metrics["events"] if event["kind"] == "convergence_stall"]
    assert (event["epoch"], event["actions"]) == (5, ["increase_learning_rate"])
    assert [epoch["lr"] for epoch in run.epochs] == pytest.approx([1e-12] * 5 + [1e-11] * 4)


def test_early_stopping_turned_off():
    run = train(**STILL, training__epochs=4, early_stopping__patience=1, early_stopping__enabled=False)
    assert run.metrics["run"]["status"] == "completed" and len(run.epochs) == 4


def test_early_stopping_by_accuracy_counts_upwards():
    run = train(early_stopping__metric="val_acc", early_stopping__patience=2, training__epochs=30)
    accuracies = [epoch["val_acc"] for epoch in run.epochs]
    best = accuracies.index(max(accuracies))
    assert run.metrics["run"]["status"] == "early_stopped" and len(accuracies) == best + 1 + 2


def test_the_best_by_another_metric():
    run = train(training__epochs=8, checkpointing__monitor="val_f1", optimizer__learning_rate=0.03)
    scores = [epoch["val_f1"] for epoch in run.epochs]
    assert run.metrics["best"]["metric"] == "val_f1"
    assert run.checkpoint("best_model.pt")["epoch"] == run.metrics["best"]["epoch"] == 1 + scores.index(max(scores))


@pytest.mark.parametrize(
    ("changes", "files"),
    [
        ({"checkpoint_every_n_epochs": 2}, ["best", "last", 2, 4, 6]),
        ({"checkpoint_every_n_epochs": 1, "keep_last_n": 2}, ["best", "last", 5, 6]),
        ({"checkpoint_every_n_epochs": None}, ["best", "last"]),
        ({"checkpoint_every_n_epochs": None, "save_best": False}, ["last"]),
        ({"checkpoint_every_n_epochs": 3, "save_last": False}, ["best", 3, 6]),
    ],
    ids=str,
)
def test_which_checkpoints_are_kept(changes, files):
    run = train(training__epochs=6, **{f"checkpointing__{key}": value for key, value in changes.items()})
    names = {f"{name}_model.pt" if isinstance(name, str) else f"checkpoint_epoch_{name}.pt" for name in files}
    assert run.checkpoint_names == names
    for name in names - {"best_model.pt", "last_model.pt"}:
        assert run.checkpoint(name)["epoch"] == int(re.findall(r"\d+", name)[0])
    shown = re.search(r"--checkpoint (\S+)", run.log[-1])[1]
    assert Path(shown).exists(), "the next command names a file that is there"


def test_the_best_epochs_are_kept():
    run = train(
        training__epochs=7,
        optimizer__learning_rate=0.1,
        checkpointing__checkpoint_every_n_epochs=None,
        checkpointing__save_top_k=3,
    )
    ranked = sorted(run.epochs, key=lambda epoch: epoch["val_loss"])
    assert run.checkpoint_names == {
        "best_model.pt", "last_model.pt", *(f"checkpoint_epoch_{epoch['num']}.pt" for epoch in ranked[:3])
    }  # fmt: skip


def test_validating_now_and_then():
    run = train(training__epochs=5, validation__validate_every_n_epochs=2, logging__tensorboard=True)
    validated = [epoch["num"] for epoch in run.epochs if epoch["val_loss"] is not None]
    assert validated == [2, 4, 5], "and always at the end"
    assert all((epoch["val_acc"] is None) == (epoch["val_loss"] is None) for epoch in run.epochs)
    assert run.metrics["best"]["epoch"] in validated
    assert sum(line == "Val Loss: n/a | Val Acc: n/a" for line in run.log) == 2
    often = train("often", training__epochs=5, logging__tensorboard=True)
    assert run.weight_hashes() == often.weight_hashes(), "looking does not change what is looked at"


def test_patience_counts_validations():
    run = train(
        **STILL, **LEFT_ALONE, training__epochs=20, validation__validate_every_n_epochs=3, early_stopping__patience=2,
        early_stopping__min_delta=0.1,
    )  # fmt: skip
    assert len(run.epochs) == 9


# The learning rate


def rates(**changes) -> list[float]:
    return [epoch["lr"] for epoch in train(**changes).epochs]


def test_step_schedule():
    found = rates(lr_scheduler__type="step", lr_scheduler__step_size=2, lr_scheduler__factor=0.5, training__epochs=5)
    assert found == pytest.approx([0.003, 0.003, 0.0015, 0.0015, 0.00075])


def test_cosine_schedule_falls_to_its_floor():
    found = rates(lr_scheduler__type="cosine", lr_scheduler__min_lr=1e-4, training__epochs=6)
    assert found == sorted(found, reverse=True) and 1e-4 <= found[-1] < 4e-4 < found[0] <= 0.003


def test_one_cycle_rises_and_falls():
    found = rates(lr_scheduler__type="one_cycle", training__epochs=8)
    peak = found.index(max(found))
    assert 0 < peak < 7 and found[: peak + 1] == sorted(found[: peak + 1]) and found[-1] < found[0]


def test_reduce_on_plateau_is_pytorchs():
    changes = {"lr_scheduler__type": "reduce_on_plateau", "lr_scheduler__patience": 1, "lr_scheduler__factor": 0.5}
    run = train(**STILL, **changes, training__epochs=7)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-12)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, eps=0.0)
    expected = []
    for epoch in run.epochs:
        expected.append(optimizer.param_groups[0]["lr"])
        reference.step(epoch["val_loss"])
    assert [epoch["lr"] for epoch in run.epochs] == expected
    assert expected == [1e-12] * 3 + [5e-13] * 2 + [2.5e-13] * 2


# The step


PLAIN = {"model__dropout": 0.0, "optimizer__type": "sgd", "optimizer__learning_rate": 0.05}


def test_accumulating_two_small_batches_is_one_large_batch():
    large = train("large", **PLAIN, training__batch_size=32)
    small = train("small", **PLAIN, training__batch_size=16, training__accumulate=2)
    assert large.checkpoint()["step"] == small.checkpoint()["step"] == 2 * 4
    assert torch.allclose(weights_of(large), weights_of(small), rtol=1e-5, atol=1e-6)
    apart = train("apart", **PLAIN, training__batch_size=16)
    assert not torch.allclose(weights_of(large), weights_of(apart), rtol=1e-3, atol=1e-3)


def test_dropping_the_last_batch():
    assert train("kept", training__batch_size=50).checkpoint()["step"] == 2 * 3
    assert train("dropped", training__batch_size=50, data__drop_last=True).checkpoint()["step"] == 2 * 2


def test_clipping_bounds_every_step():
    limit, rate = 1e-3, 0.5
    changes = {**PLAIN, "optimizer__learning_rate": rate, "optimizer__momentum": 0.0, "training__epochs": 1}
    free = train("free", **changes)
    clipped = train("clipped", **changes, optimizer__gradient_clip_max_norm=limit)
    started = weights_of(train("start", **{**changes, **STILL}))
    moved = [float((weights_of(run) - started).norm()) for run in (free, clipped)]
    steps = clipped.checkpoint()["step"]
    assert moved[1] <= steps * rate * limit * 1.001 < moved[0]
    assert clipped.epochs[0]["health"]["clipped_share"] == 1.0
    assert clipped.epochs[0]["grad_norm"]["max"] > limit, "the norm before clipping is what is reported"


def test_label_smoothing_is_in_the_training_loss_alone():
    run = train(**STILL, model__dropout=0.0, training__epochs=1, training__label_smoothing=0.3)
    data = wines()
    evaluation = measured_again(load_model(run.checkpoint()), data, "train")
    smoothed = float(functional.cross_entropy(evaluation.logits_BC, evaluation.labels_B, label_smoothing=0.3))
    assert run.epochs[0]["train_loss"] == pytest.approx(smoothed, rel=1e-5)
    assert abs(smoothed - evaluation.loss) > 1e-3
    val = measured_again(load_model(run.checkpoint()), data, "val")
    assert run.epochs[0]["val_loss"] == pytest.approx(val.loss, rel=1e-6)


def test_class_weights_move_the_predictions_towards_the_heavy_class():
    shares = []
    for name, weights in (("first", [50.0, 1.0, 1.0]), ("last", [1.0, 1.0, 50.0])):
        predicted = train(name, training__class_weights=weights, optimizer__learning_rate=0.01).predictions()
        shares.append(np.bincount(predicted["predicted"], minlength=3) / len(predicted["label"]))
    assert shares[0][0] > shares[1][0] and shares[1][2] > shares[0][2]


def test_weighing_all_classes_alike_changes_nothing():
    plain = train("plain", **PLAIN)
    weighted = train("weighted", **PLAIN, training__class_weights=[10.0, 10.0, 10.0])
    assert torch.allclose(weights_of(plain), weights_of(weighted), rtol=1e-4, atol=1e-5)
    assert weighted.epochs[0]["train_loss"] == pytest.approx(plain.epochs[0]["train_loss"], rel=1e-4)


def test_balanced_class_weights_follow_the_training_data():
    counts = torch.bincount(wines().splits["train"].labels).double()
    by_hand = (counts.sum() / (3 * counts)).tolist()
    balanced = train("balanced", training__class_weights="balanced")
    assert weights_of(balanced).tolist() == pytest.approx(
        weights_of(train("by_hand", training__class_weights=by_hand)).tolist(), rel=1e-4, abs=1e-6
    )
    assert balanced.weight_hashes() != train("plain").weight_hashes()


def test_the_average_is_what_predicts_and_is_measured():
    run = train(training__ema=0.99, training__epochs=3, optimizer__learning_rate=0.02, training__batch_size=16)
    data, record = wines(), run.epochs[-1]
    checkpoint = run.checkpoint()
    averaged = measured_again(load_model(checkpoint), data, "val")
    assert (record["val_loss"], record["val_acc"]) == (averaged.loss, averaged.accuracy_pct)
    raw_model = build_from_spec(checkpoint["model_spec"])
    raw_model.load_state_dict(checkpoint["model_state_dict"])
    raw = measured_again(raw_model.eval(), data, "val")
    assert abs(raw.loss - averaged.loss) > 1e-3
    best = measured_again(load_model(run.checkpoint("best_model.pt")), data, "val")
    assert np.array_equal(best.logits_BC.numpy(), run.predictions()["logits"])


def test_an_average_does_not_touch_the_training():
    assert train("with", training__ema=0.9).weight_hashes() == train("without").weight_hashes()


def test_training_accuracy_is_measured_as_validation_is():
    """On samples without augmentation and a network without dropout."""
    run = train(model__dropout=0.7, training__epochs=3, optimizer__learning_rate=0.02)
    again = measured_again(load_model(run.checkpoint()), wines(), "train")
    assert run.epochs[-1]["train_acc"] == again.accuracy_pct


def test_bf16_computes_in_bf16_and_keeps_fp32_weights():
    exact = train("fp32", training__epochs=3)
    rough = train("bf16", training__epochs=3, training__precision="bf16")
    assert all(tensor.dtype == torch.float32 for tensor in rough.checkpoint()["model_state_dict"].values())
    assert rough.weight_hashes() != exact.weight_hashes()
    assert torch.allclose(weights_of(rough), weights_of(exact), atol=0.05)
    logits = torch.from_numpy(rough.predictions()["logits"])
    assert torch.equal(logits, logits.bfloat16().float()), "predicted in bf16 too"


def test_augmentation_changes_what_is_trained_on_and_nothing_else(digits_root):
    changes = {**STILL, "data__source": "digits", "data__root": digits_root, "training__epochs": 2}
    changes["model__dropout"] = 0.0
    names = ["random_crop", "horizontal_flip", "rotation", "color_jitter", {"cutout": {"size": 3}}, "mixup"]
    plain = train("plain", **changes)
    moved = train("moved", **changes, data_augmentation__enabled=True, data_augmentation__transforms=names)
    off = train("off", **changes, data_augmentation__enabled=False, data_augmentation__transforms=names)
    first, second = (epoch["train_loss"] for epoch in moved.epochs)
    assert abs(first - plain.epochs[0]["train_loss"]) > 1e-4 and abs(first - second) > 1e-6, "new in every epoch"
    assert moved.epochs[0]["val_loss"] == pytest.approx(plain.epochs[0]["val_loss"], rel=1e-6)
    assert moved.epochs[0]["train_acc"] == plain.epochs[0]["train_acc"]
    assert off.weight_hashes() == plain.weight_hashes()


def test_augmented_training_loss_is_that_of_the_augmented_samples(digits_root):
    run = train(
        **STILL, data__source="digits", data__root=digits_root, training__epochs=1, model__dropout=0.0,
        data_augmentation__enabled=True, data_augmentation__transforms=["random_crop", "rotation"],
    )  # fmt: skip
    data, indices = load_dataset("digits", write_files=False), torch.arange(1257)
    samples, normalizer = data.splits["train"], data.normalizer()
    transforms = run.config["data_augmentation"]["transforms"]
    augment = build_augmentation(transforms, seed=42, normalizer=normalizer)
    inputs, labels, *_ = augment(normalizer(samples.inputs), samples.labels, indices, 1)
    with torch.no_grad():
        logits = load_model(run.checkpoint())(inputs)
    assert run.epochs[0]["train_loss"] == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-4)


def test_pretrained_weights_are_where_the_training_starts():
    first = train("first", training__epochs=3)
    again = train("again", **STILL, model__pretrained="first/checkpoints/last_model.pt", training__epochs=1)
    assert torch.allclose(weights_of(first), weights_of(again), atol=1e-6)


@pytest.mark.parametrize("architecture", ["simple_cnn", "small_transformer"])
def test_other_architectures_train(architecture, digits_root):
    run = train(
        model__architecture=architecture, model__hidden_dims=None, data__source="digits", data__root=digits_root,
        training__epochs=2, training__channels_last=True,
    )  # fmt: skip
    assert run.epochs[1]["val_loss"] < run.epochs[0]["val_loss"] and run.epochs[1]["val_acc"] > 25
    again = measured_again(load_model(run.checkpoint()), load_dataset("digits", write_files=False), "val")
    assert again.accuracy_pct == pytest.approx(run.epochs[1]["val_acc"], abs=1.0)


def test_saving_within_an_epoch_changes_nothing():
    plain = train("plain", training__batch_size=8)
    saving = train("saving", training__batch_size=8, checkpointing__checkpoint_every_n_steps=3)
    assert_same(plain.checkpoint()["model_state_dict"], saving.checkpoint()["model_state_dict"])
    assert saving.checkpoint_names == plain.checkpoint_names


def test_a_target_decides():
    for target, verdict in ((1.0, "Target met"), (100.0, "Target missed")):
        run = train("run", target__val_acc=target)
        assert verdict in (run.path / "baseline_results.md").read_text()
