"""Real inputs to verify and to calibrate with: the training's own data, a folder or file, or else seeded noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from common.config import config_from_mapping
from common.data import Dataset, Normalizer, Split, load_test_set, make_batches, split_into_batches
from common.engine.assembly import load_data
from common.exits import CheckFailedError, EnvironmentLackError, InputFileError, UsageError
from common.export.source import ExportSource
from common.model_metadata import ModelMetadata

BATCH_SIZE = 64
NUM_SEEDED_INPUTS = 512


@dataclass(frozen=True, eq=False)
class LabelledInputs:
    """Samples before normalisation, so that a model is fed what its own metadata asks for.

    Attributes:
        description: what they are, for people.
        split: the samples in order.
        labelled: False for seeded noise, whose labels mean nothing.
        is_test: whether no training and no decision has seen them.
    """

    description: str
    split: Split
    labelled: bool = True
    is_test: bool = False

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        return self.split.labels.numpy()

    @property
    def num_samples(self) -> int:
        return self.split.num_samples

    def batches(
        self, preprocessing: Mapping[str, Any], order: torch.Tensor | None = None, batch_size: int = BATCH_SIZE
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Inputs float32 (B, *input_shape), normalised with the mean and deviation of ``preprocessing``.

        Args:
            order: sample numbers, int64; None for all in order.
        """
        num_dims = 3 if self.split.inputs is None else self.split.inputs.dim() - 1
        normalizer = Normalizer(preprocessing["mean"], preprocessing["std"], num_dims=num_dims)
        order = torch.arange(self.num_samples) if order is None else order
        with make_batches(self.split, "cpu", normalizer=normalizer) as source:
            for batch in source.batches(split_into_batches(order, batch_size)):
                yield batch.inputs.numpy()

    def first(self, count: int, preprocessing: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        """The first ``count`` samples as one batch, starting over where there are fewer."""
        order = torch.arange(count) % self.num_samples
        return next(self.batches(preprocessing, order, batch_size=count))


class TrainingData:
    """The data that the checkpoint was trained on, as its config names it; loaded once, when first asked for."""

    def __init__(self, source: ExportSource) -> None:
        self._source = source
        self.problem: str | None = None

    @cached_property
    def dataset(self) -> Dataset | None:
        """None where it cannot be had; ``problem`` then says why."""
        try:
            dataset = load_data(config_from_mapping(self._source.config, self._source.path), write_files=False)
        except (InputFileError, CheckFailedError, UsageError, EnvironmentLackError) as error:
            self.problem = str(error)
            return None
        metadata = self._source.metadata
        if dataset.class_names != metadata.class_names or dataset.input_shape != metadata.input_shape:
            self.problem = "the data that the config names now has other classes or another shape than the model"
            return None
        return dataset

    def split(self, name: str) -> LabelledInputs | None:
        """The split ``train``, ``val`` or ``test``, or None where there is none."""
        if self.dataset is None or name not in self.dataset.splits:
            return None
        return LabelledInputs(f"{self.dataset.name}, {name} split", self.dataset.splits[name], is_test=name == "test")


def verification_inputs(source: ExportSource, training_data: TrainingData, path: Path | None) -> LabelledInputs:
    """The data in ``path``; without it the training's test split, else its validation split, else seeded noise.

    Raises:
        InputFileError: ``path`` cannot be used.
    """
    if path is not None:
        return _given(source, path)
    return training_data.split("test") or training_data.split("val") or _seeded(source.metadata)


def calibration_batches(
    source: ExportSource, training_data: TrainingData, path: Path | None, num_samples: int, seed: int
) -> tuple[str, list[npt.NDArray[np.float32]]]:
    """What static quantisation is calibrated on: a description, and prepared batches float32 (B, *input_shape).

    The samples are drawn without replacement from the training split (or from ``path``) by ``seed``, un-augmented.

    Raises:
        UsageError: there is no such data.
        InputFileError: ``path`` cannot be used.
    """
    inputs = _given(source, path) if path is not None else training_data.split("train")
    if inputs is None:
        raise UsageError(
            f"int8 needs inputs to calibrate on, and the training's cannot be loaded ({training_data.problem})",
            field="--calibration-data",
            hint="name a folder with training images, or an .npz, .csv or .parquet file",
        )
    chosen = np.random.default_rng(seed).permutation(inputs.num_samples)[:num_samples]
    batches = list(inputs.batches(source.metadata.preprocessing, torch.from_numpy(np.sort(chosen))))
    return f"{len(chosen)} of {inputs.num_samples} samples of {inputs.description} (seed {seed})", batches


def _given(source: ExportSource, path: Path) -> LabelledInputs:
    metadata = source.metadata
    dataset = load_test_set(
        path,
        class_names=metadata.class_names,
        input_shape=metadata.input_shape,
        preprocessing=metadata.preprocessing,
        label_column=source.config.get("data", {}).get("label_column"),
    )
    return LabelledInputs(str(path), dataset.splits["test"], is_test=True)


def _seeded(metadata: ModelMetadata) -> LabelledInputs:
    """Noise that has mean 0 and deviation 1 once it is normalised."""
    shape = metadata.input_shape
    normal = torch.randn(NUM_SEEDED_INPUTS, *shape, generator=torch.Generator().manual_seed(0))
    spec = metadata.preprocessing
    raw = Normalizer(spec["mean"], spec["std"], num_dims=len(shape)).denormalize(normal)
    split = Split(name="seeded", labels=torch.zeros(NUM_SEEDED_INPUTS, dtype=torch.int64), inputs=raw)
    return LabelledInputs(f"{NUM_SEEDED_INPUTS} seeded random inputs", split, labelled=False)
