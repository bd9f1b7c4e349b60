"""What the data is like, found out once before training from the data alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from common.data import Dataset
from common.health.baselines import LinearClassifier
from common.health.duplicates import EqualSamples
from common.health.input_sample import InputSample, Projection, draw_sample
from common.health.neighbours import NeighbourSignals, TrainingNeighbours
from common.health.numbers import finite, ratio

_SAMPLE_SIZE = 2048
_LINEAR_FEATURES = 512


@dataclass(frozen=True)
class SplitSignals:
    """Of one split. The inputs' statistics are those of at most 2048 samples.

    Attributes:
        num_samples: in the split.
        class_counts: samples per class.
        imbalance_ratio: the largest class over the smallest that has samples.
        label_entropy_ratio: entropy of the labels over ln C, in [0, 1]: 1 for classes of the same size.
        input_mean, input_std, input_min, input_max: over all values as a model is fed them; healthy near 0 and 1.
        raw_min, raw_max: before normalisation: bytes on the scale 0 to 1, others as they are.
        feature_std_ratio: the largest standard deviation of a channel or column, as fed, over the smallest above 0.
        num_non_finite_values: NaN and infinite values among those looked at; where there are some, the statistics are
            None.
        num_compared: samples among which equal ones were looked for (all in memory, or those decoded).
        num_repeated: of those, samples equal to one before them in the split.
        num_in_train, num_compared_with_train: of so many, the samples equal to one in the training split; None for
            that split.
        num_near_train, num_near_compared: of so many (at most 256), the samples nearly or exactly equal to a training
            sample; another one, for the training split itself.
        nearest_neighbour_agreement_pct: of those, the percent whose nearest training sample has their label.
    """

    num_samples: int
    class_counts: list[int]
    imbalance_ratio: float | None
    label_entropy_ratio: float | None
    input_mean: float | None
    input_std: float | None
    input_min: float | None
    input_max: float | None
    raw_min: float | None
    raw_max: float | None
    feature_std_ratio: float | None
    num_non_finite_values: int
    num_compared: int
    num_repeated: int
    num_in_train: int | None
    num_compared_with_train: int | None
    num_near_train: int
    num_near_compared: int
    nearest_neighbour_agreement_pct: float


@dataclass(frozen=True)
class DataSignals:
    """Of a data set. Accuracies are percent of the validation split.

    Attributes:
        splits: by name.
        num_classes, num_features: C, and values per sample.
        num_label_conflicts: samples of any split (of those compared) that equal one with another label.
        chance_acc_pct: 100 / C.
        majority_acc_pct: of always naming the class with the most training samples.
        linear_acc_pct: of a linear classifier fitted to at most 2048 training samples of at most 512 features each,
            measured on at most 2048.
        linear_train_acc_pct: of that classifier on the samples it was fitted to.
        val_standard_error_50_pct, val_standard_error_90_pct: binomial standard error of a validation accuracy of 50%
            and of 90%, in points.
    """

    splits: dict[str, SplitSignals]
    num_classes: int
    num_features: int
    num_label_conflicts: int
    chance_acc_pct: float
    majority_acc_pct: float
    linear_acc_pct: float
    linear_train_acc_pct: float
    val_standard_error_50_pct: float
    val_standard_error_90_pct: float

    def as_dict(self) -> dict:
        """Plain values for JSON, None for what is not known."""
        return vars(self) | {"splits": {name: dict(vars(split)) for name, split in self.splits.items()}}


@torch.no_grad()
def measure_data(dataset: Dataset) -> DataSignals:
    """Measure ``dataset``, whose training and validation splits hold samples. Draws from no global random stream.

    Of images that stay on disk at most 2048 per split are decoded.

    Raises:
        InputFileError: an image can no longer be read.
    """
    names = [name for name, split in dataset.splits.items() if split.num_samples]
    samples = {name: draw_sample(dataset, name, _SAMPLE_SIZE) for name in names}
    equal = _equal_samples(dataset, samples)
    neighbours = TrainingNeighbours(dataset, samples["train"])
    num_val = dataset.splits["val"].num_samples
    linear_train_acc, linear_acc = _linear_accuracies(samples, dataset.num_classes)
    return DataSignals(
        splits={
            name: _split_signals(dataset, name, sample, equal, neighbours.compare(sample, is_train=name == "train"))
            for name, sample in samples.items()
        },
        num_classes=dataset.num_classes,
        num_features=math.prod(dataset.input_shape),
        num_label_conflicts=equal.num_with_several_labels(
            {name: _labels_compared(dataset, sample, name, equal) for name, sample in samples.items()}
        ),
        chance_acc_pct=100 / dataset.num_classes,
        majority_acc_pct=_majority_accuracy_pct(dataset),
        linear_acc_pct=linear_acc,
        linear_train_acc_pct=linear_train_acc,
        val_standard_error_50_pct=_standard_error_pct(0.5, num_val),
        val_standard_error_90_pct=_standard_error_pct(0.9, num_val),
    )


def _equal_samples(dataset: Dataset, samples: Mapping[str, InputSample]) -> EqualSamples:
    """Of all samples where they are in memory, else of those that were decoded."""
    splits = {name: dataset.splits[name] for name in samples}
    if any(split.is_streamed for split in splits.values()):
        return EqualSamples({name: sample.scaled.numpy() for name, sample in samples.items()})
    return EqualSamples({name: split.inputs.numpy() for name, split in splits.items()})


def _labels_compared(dataset: Dataset, sample: InputSample, name: str, equal: EqualSamples) -> np.ndarray:
    labels_N = dataset.splits[name].labels
    return (labels_N if len(labels_N) == equal.num_compared(name) else sample.labels).numpy()


def _split_signals(
    dataset: Dataset,
    name: str,
    sample: InputSample,
    equal: EqualSamples,
    neighbours: NeighbourSignals,
) -> SplitSignals:
    split = dataset.splits[name]
    counts = split.class_counts(dataset.num_classes)
    num_in_train, num_compared_with_train = (None, None) if name == "train" else _in_train(dataset, name, equal)
    return SplitSignals(
        num_samples=split.num_samples,
        class_counts=counts,
        imbalance_ratio=ratio(max(counts), min(count for count in counts if count)),
        label_entropy_ratio=_entropy_ratio(counts),
        **_input_statistics(sample),
        num_compared=equal.num_compared(name),
        num_repeated=equal.num_repeated(name),
        num_in_train=num_in_train,
        num_compared_with_train=num_compared_with_train,
        num_near_train=neighbours.num_near,
        num_near_compared=neighbours.num_compared,
        nearest_neighbour_agreement_pct=neighbours.agreement_pct,
    )


def _in_train(dataset: Dataset, name: str, equal: EqualSamples) -> tuple[int, int]:
    """Samples equal to one in the training split, and of how many."""
    num_compared = equal.num_compared(name)
    if num_compared < dataset.splits[name].num_samples:
        # Where few samples were decoded here, loading the data may have compared all of them.
        for problem in dataset.problems:
            if problem.kind == "leakage" and problem.split == name:
                return problem.count, dataset.splits[name].num_samples
    return equal.num_in(name, "train"), num_compared


def _input_statistics(sample: InputSample) -> dict[str, float | int | None]:
    by_feature_FN = sample.inputs.transpose(0, 1).flatten(1)
    means_F = by_feature_FN.mean(dim=1)
    # The sum of squares by way of a norm: several times faster than std.
    stds_F = (by_feature_FN - means_F[:, None]).norm(dim=1) / by_feature_FN.shape[1] ** 0.5
    total_std = (stds_F.square().mean() + means_F.var(correction=0)).sqrt()
    spread_F = stds_F[stds_F > 0].tolist()
    numbers = [means_F.mean(), total_std, *by_feature_FN.aminmax(), *sample.scaled.aminmax()]
    mean, std, low, high, raw_low, raw_high = map(finite, torch.stack(numbers).tolist())
    return {
        "input_mean": mean,
        "input_std": std,
        "input_min": low,
        "input_max": high,
        "raw_min": raw_low,
        "raw_max": raw_high,
        "feature_std_ratio": ratio(max(spread_F), min(spread_F)) if spread_F else None,
        # One such value makes the mean another.
        "num_non_finite_values": int((~by_feature_FN.isfinite()).sum()) if mean is None else 0,
    }


def _linear_accuracies(samples: Mapping[str, InputSample], num_classes: int) -> tuple[float, float]:
    """Of a linear classifier on the training samples that it is fitted to, and on those for validation."""
    train, val = samples["train"], samples["val"]
    project = Projection(train.inputs[0].numel(), _LINEAR_FEATURES)
    features_NK = project(train.inputs)
    classifier = LinearClassifier(features_NK, train.labels, num_classes)
    return classifier.accuracy_pct(features_NK, train.labels), classifier.accuracy_pct(project(val.inputs), val.labels)


def _majority_accuracy_pct(dataset: Dataset) -> float:
    train_counts, val_counts = (dataset.splits[name].class_counts(dataset.num_classes) for name in ("train", "val"))
    return 100 * val_counts[train_counts.index(max(train_counts))] / sum(val_counts)


def _standard_error_pct(accuracy: float, num_samples: int) -> float:
    return 100 * math.sqrt(accuracy * (1 - accuracy) / num_samples)


def _entropy_ratio(counts: list[int]) -> float | None:
    shares = [count / sum(counts) for count in counts if count]
    return ratio(-sum(share * math.log(share) for share in shares), math.log(len(counts)))
