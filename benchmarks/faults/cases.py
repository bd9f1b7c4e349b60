"""The faults of the benchmark, the healthy runs, and the two settings that they are injected into."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.faults import injected
from benchmarks.faults.injected import DATA, DataFault, LoopFault, NetworkFault

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """Real data and a built-in network that learns it."""

    name: str
    source: str
    changes: Changes

    @property
    def architecture(self) -> str:
        return self.changes["model.architecture"]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Args:
        causes: the root causes that are right: the fault's own, and where two are one and the same thing, both.
        changes: config fields that are part of it, by dotted key; of one architecture in ``changes_of``.
        by_hand: the id of the instruction that puts the code or the data preparation right, where no setting does.
        network_by_hand: the network that comes of it, where that is not the built-in one.
        needs_data: only other data could mend it.
        harmless_in: settings in which it is no fault at all, and is left out.
    """

    name: str
    causes: tuple[str, ...]
    changes: Changes = field(default_factory=dict)
    changes_of: Mapping[str, Changes] = field(default_factory=dict)
    data: DataFault | None = None
    network: NetworkFault | None = None
    loop: LoopFault | None = None
    by_hand: str | None = None
    network_by_hand: NetworkFault | None = None
    needs_data: bool = False
    harmless_in: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The name as part of a path."""
        return slug(self.name)


@dataclass(frozen=True)
class Healthy:
    """A sound run; ``hard`` where it looks like one that is not."""

    name: str
    changes: Changes = field(default_factory=dict)
    data: DataFault | None = None
    loop: LoopFault | None = None
    hard: bool = False

    @property
    def slug(self) -> str:
        return f"healthy_{slug(self.name)}"


def slug(name: str) -> str:
    """Letters, digits and underscores only."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


BASE: Changes = {
    "model.dropout": 0.0,
    "optimizer.type": "adam",
    "optimizer.learning_rate": 2e-3,
    "optimizer.weight_decay": 0.0,
    "training.epochs": 15,
    "training.batch_size": 64,
    "training.device": "cpu",
    "training.num_threads": 1,
    "early_stopping.enabled": True,
    "early_stopping.patience": 10,
    "early_stopping.metric": "val_loss",
    "reproducibility.seed": 0,
    "reproducibility.deterministic": True,
    "data.source": DATA,
    "checkpointing.checkpoint_every_n_epochs": None,
    "test_set.enabled": True,
    "test_set.evaluate_at_end": True,
    "logging.tensorboard": False,
}
SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("digits-mlp", "digits", {"model.architecture": "simple_mlp", "model.hidden_dims": [64, 32],
                                            "optimizer.learning_rate": 4e-3}),
        Setting("digits-cnn", "digits", {"model.architecture": "simple_cnn", "training.epochs": 10}),
        Setting("cancer-mlp", "breast_cancer", {
            "model.architecture": "simple_mlp", "model.hidden_dims": [32, 16], "training.batch_size": 16,
        }),
        Setting("cancer-transformer", "breast_cancer", {
            "model.architecture": "small_transformer", "model.hidden_dims": [16],
            "training.batch_size": 32,
        }),
        Setting("wine-mlp", "wine", {
            "model.architecture": "simple_mlp", "model.hidden_dims": [32, 16], "training.epochs": 30,
            "training.batch_size": 16, "optimizer.learning_rate": 4e-3,
        }),
    )
}  # fmt: skip
# The rules were tuned on these; on the others they were only measured.
TUNED_ON = ("digits-mlp", "digits-cnn")

FAULTS = (
    Fault("learning rate far too high", ("learning_rate_too_high",), {"optimizer.learning_rate": 1.0}),
    Fault("learning rate far too low", ("learning_rate_too_low",), {"optimizer.learning_rate": 2e-6}),
    Fault("one infinite loss", ("one_off_non_finite",), network=injected.InfiniteOnce),
    Fault("NaN rows", ("non_finite_inputs",), data=injected.with_nan_rows),
    Fault("bad initial gain", ("bad_initialisation",), network=injected.scaled_parameters(10.0),
          by_hand="initialise_with_usual_gain"),
    Fault("ten sigmoid layers", ("saturating_activations",), network=injected.deep_network("sigmoid"),
          network_by_hand=injected.deep_network("relu", normalised=True),
          changes_of={"simple_mlp": {"model.hidden_dims": [64] * 10, "model.activation": "sigmoid"}},
          by_hand="replace_saturating_activations"),
    Fault("biases at -10", ("dead_units",), network=injected.low_biases, by_hand="initialise_biases_with_zero"),
    Fault("zero initialisation", ("identical_units",), network=injected.zero_weights,
          by_hand="initialise_at_random"),
    Fault("frozen layer", ("frozen_layers",), network=injected.frozen_first_layer, by_hand="unfreeze_layers"),
    Fault("gradients never cleared", ("gradients_not_cleared",), loop=injected.gradients_never_cleared,
          by_hand="clear_gradients"),
    Fault("softmax before cross-entropy", ("double_softmax",), network=injected.softmax_at_the_end,
          by_hand="return_logits"),
    Fault("momentum 0.99 with too high a rate", ("excessive_momentum",), {
        "optimizer.type": "sgd", "optimizer.momentum": 0.99, "optimizer.learning_rate": 0.5}),
    Fault("full batch", ("too_few_updates",), {"training.batch_size": 4096}),
    Fault("extreme weight decay", ("excessive_weight_decay",), {"optimizer.weight_decay": 5.0},
          {"simple_cnn": {"optimizer.type": "sgd", "optimizer.learning_rate": 0.05, "optimizer.weight_decay": 1.0}}),
    Fault("extreme dropout", ("excessive_dropout",), {"model.dropout": 0.95}),
    Fault("two hidden units", ("network_too_small",), {"model.hidden_dims": [2]},
          {"simple_cnn": {"model.hidden_dims": [2, 2]}},
          harmless_in=("cancer-mlp", "cancer-transformer", "wine-mlp")),  # two units tell two or three classes apart
    Fault("four samples a class", ("too_few_samples",), data=injected.few_samples, needs_data=True),
    Fault("unscaled inputs", ("unscaled_inputs",), {"data.normalize": False}, data=injected.unscaled),
    Fault("validation not normalised", ("splits_prepared_differently",), data=injected.validation_unlike_training,
          by_hand="prepare_splits_alike"),
    Fault("20% flipped labels", ("label_errors",), data=injected.flipped_labels(0.2), needs_data=True),
    Fault("40% flipped labels", ("label_errors",), data=injected.flipped_labels(0.4), needs_data=True),
    Fault("shuffled labels", ("shuffled_labels",), data=injected.shuffled_labels, needs_data=True),
    Fault("100:1 classes", ("class_imbalance",), data=injected.unequal_classes, needs_data=True),
    Fault("validation copied from training", ("leakage",), data=injected.leaking, by_hand="remove_shared_samples"),
    Fault("sorted data, not shuffled", ("unshuffled_data",), data=injected.sorted_by_class,
          loop=injected.never_shuffled, by_hand="shuffle_every_epoch"),
    Fault("twenty validation samples", ("tiny_validation",), data=injected.small_validation(20),
          by_hand="enlarge_validation_split"),
    Fault("slow loader", ("slow_loading",), loop=injected.slow_loader, by_hand="hold_data_in_memory"),
)  # fmt: skip

HEALTHY = (
    Healthy("plain"),
    Healthy("with dropout", {"model.dropout": 0.2}),
    Healthy("adamw with weight decay", {"optimizer.type": "adamw", "optimizer.weight_decay": 0.01}),
    Healthy("sgd with momentum", {"optimizer.type": "sgd", "optimizer.learning_rate": 0.03}),
    Healthy("cosine schedule", {"lr_scheduler.type": "cosine", "lr_scheduler.warmup_epochs": 1}),
    Healthy("larger batch", {"training.batch_size": 96}),
    Healthy("learning rate restarts", loop=injected.warm_restarts, hard=True),
    Healthy("3% wrong labels", data=injected.flipped_labels(0.03), hard=True),
    Healthy("small validation set", data=injected.small_validation(40), hard=True),
    Healthy("trained to the end", {"training.epochs": 40, "early_stopping.enabled": False}, hard=True),
)


def mapping_of(setting: Setting, changes: Changes, seed: int) -> dict[str, Any]:
    """The config of a run of ``setting``, as nested sections."""
    flat = {**BASE, **setting.changes, **changes, "reproducibility.seed": seed}
    sections: dict[str, Any] = {}
    for key, value in flat.items():
        section, name = key.split(".", 1)
        sections.setdefault(section, {})[name] = value
    return sections
