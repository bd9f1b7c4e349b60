"""What loading data gives: splits, what they are made of, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from common.data.normalization import Normalizer
from common.exits import InputFileError

SPLIT_NAMES = ("train", "val", "test")
NUM_EXAMPLES = 10


@dataclass(frozen=True)
class SplitFractions:
    """Shares of the samples for validation and test where the data comes unsplit; the rest is for training.

    Which sample goes where depends on the data alone, never on a run's seed: every run sees the same splits.
    """

    val: float = 0.15
    test: float = 0.15
    stratify: bool = True

    def __post_init__(self) -> None:
        if not (0.0 <= self.val < 1.0 and 0.0 <= self.test < 1.0 and self.val + self.test < 1.0):
            raise ValueError(f"split fractions must leave samples for training, not val={self.val} test={self.test}")


@dataclass(frozen=True)
class DataProblem:
    """Something wrong with the data.

    ``severity`` is ``error`` where training on the data as it stands would mislead (rows with NaN), ``warning`` where
    it is worth knowing (a class without images). ``count`` is the number of samples or classes concerned, of which
    ``examples`` names the first ten.
    """

    kind: str
    split: str | None
    message: str
    count: int
    examples: tuple[str, ...] = ()
    severity: str = "warning"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def counted(count: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_named(names: Iterable[str], count: int) -> str:
    """The first ten names as one phrase, and how many more there are."""
    shown = list(names)[:NUM_EXAMPLES]
    more = f" and {count - len(shown)} more" if count > len(shown) else ""
    return ", ".join(shown) + more


@dataclass(frozen=True)
class ImageFiles:
    """Images that stay on disk: one path per sample, and the shape that each is decoded to, (C, H, W)."""

    paths: list[str]
    shape: tuple[int, int, int]
    resize: bool


@dataclass(frozen=True)
class Split:
    """The samples of one split, in an order that depends on the data alone.

    ``labels`` is int64 (N,) on the CPU, class indices in [0, C). ``inputs`` is uint8 or float32 (N, C, H, W) for
    images and float32 (N, F) for tables, on the CPU, neither scaled nor normalised; None where the images stay on
    disk, in ``image_files``. ``file_names`` names each sample for people.
    """

    name: str
    labels: Tensor
    inputs: Tensor | None = None
    file_names: list[str] | None = None
    image_files: ImageFiles | None = None
    _resident: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)
    _normalized: dict[tuple, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def inputs_on(self, device: torch.device) -> Tensor:
        """``inputs`` on ``device``, copied there once however many ask for it."""
        assert self.inputs is not None
        if device not in self._resident:
            self._resident[device] = self.inputs.to(device)
        return self._resident[device]

    def normalized_on(self, device: torch.device, normalizer: Normalizer) -> Tensor:
        """All ``inputs`` normalised, float32 on ``device``; made once, however many ask for the same."""
        key = (device, *normalizer.key)
        if key not in self._normalized:
            assert self.inputs is not None
            self._normalized[key] = normalizer(self.inputs.to(device))
        return self._normalized[key]

    @property
    def num_samples(self) -> int:
        return len(self.labels)

    @property
    def is_streamed(self) -> bool:
        return self.inputs is None

    def class_counts(self, num_classes: int) -> list[int]:
        """How many samples each class has."""
        return torch.bincount(self.labels, minlength=num_classes).tolist()

    def sample_name(self, index: int) -> str:
        """What to call a sample in a message: its file, or its number."""
        return self.file_names[index] if self.file_names else f"sample {index}"


@dataclass(frozen=True)
class Dataset:
    """Everything that training needs to know about the data.

    ``input_shape`` is (C, H, W) or (F,). ``mean`` and ``std`` are per channel or column, of the training split alone,
    for images on the scale 0 to 1. ``resize`` is (H, W) where images were resized. ``fingerprint`` is a SHA-256 over
    class names, labels and decoded inputs of all splits: the same however the data is held or streamed.
    """

    name: str
    kind: str
    splits: dict[str, Split]
    class_names: list[str]
    input_shape: tuple[int, ...]
    mean: list[float]
    std: list[float]
    fingerprint: str
    resize: tuple[int, int] | None = None
    problems: list[DataProblem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def normalizer(self, device: torch.device | str = "cpu") -> Normalizer:
        """What turns raw inputs on ``device`` into what a model is fed."""
        return Normalizer(self.mean, self.std, num_dims=len(self.input_shape), device=device)

    def preprocessing(self) -> dict[str, Any]:
        """Plain values for a checkpoint's ``model_spec``: all that inference needs to prepare an input."""
        return {
            "kind": self.kind,
            "resize": list(self.resize) if self.resize else None,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def raise_on_errors(self, tolerated: Collection[str] = ()) -> None:
        """Raises InputFileError with every problem of severity ``error``, but for the kinds that are tolerated."""
        errors = [p.message for p in self.problems if p.severity == "error" and p.kind not in tolerated]
        if errors:
            raise InputFileError("; ".join(errors), field="data", hint="repair or remove them")
