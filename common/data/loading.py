"""From the name of a source to a checked, split and measured ``Dataset``."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch

from common.data.checks import check_splits, leave_out_non_finite
from common.data.dataset import SPLIT_NAMES, Dataset, Split, SplitFractions
from common.data.normalization import statistics_of_pixels, statistics_of_values
from common.data.raw import CACHE_MODES, UNSPLIT, ExpectedInput, RawData, RawSamples, SourceRequest
from common.data.sources import read_source
from common.data.splitting import split_indices
from common.exits import InputFileError

# Splitting copies what was read, so both must fit.
_SHARE_OF_FREE_MEMORY = 0.4
_MAX_THREADS = 32
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def load_dataset(
    source: str,
    *,
    root: str | Path | None = None,
    split: SplitFractions | None = None,
    image_size: int | Sequence[int] | None = None,
    normalize: bool = True,
    cache: str = "auto",
    num_workers: int = 0,
    label_column: str | None = None,
    memory_budget_bytes: int | None = None,
    write_files: bool = True,
) -> Dataset:
    """Read, check, split and measure a data source.

    Args:
        source: a name in ``common.data.sources.SOURCES``, or an import path ``package.module:name``.
        root: file or folder of the data; ``digits`` writes its images there (default ``data``).
        split: used where the source has no validation or no test part of its own.
        image_size: side or (height, width) that images are brought to; None keeps theirs.
        normalize: False leaves mean 0 and standard deviation 1.
        cache: ``auto`` holds images in memory if they fit, ``memory`` always, ``none`` never.
        num_workers: threads that decode images; 0 for one per processor. The result does not depend on it.
        label_column: column of the class in tables; None for the last.
        memory_budget_bytes: what images may take; None for a part of the memory that is free.
        write_files: whether ``digits`` may write its files.

    Raises:
        InputFileError: the source is unknown, missing, malformed, or unfit for training.
        UsageError: an import path leads nowhere.
        EnvironmentLackError: a package or the memory is missing.
    """
    request = new_request(
        source,
        root=root,
        split=split,
        image_size=image_size,
        cache=cache,
        num_workers=num_workers,
        label_column=label_column,
        memory_budget_bytes=memory_budget_bytes,
    )
    data = read_source(request)
    if isinstance(data, Dataset):
        return data
    dataset = build_dataset(data, request.split, normalize=normalize)
    if write_files and data.after_split is not None:
        dataset.notices.extend(data.after_split(dataset))
    return dataset


def new_request(
    source: str,
    *,
    root: str | Path | None,
    split: SplitFractions | None = None,
    image_size: int | Sequence[int] | None,
    cache: str,
    num_workers: int,
    label_column: str | None,
    memory_budget_bytes: int | None,
    expected: ExpectedInput | None = None,
) -> SourceRequest:
    """The arguments of ``load_dataset``, with what was left open filled in.

    Raises:
        ValueError: ``cache`` is not in ``CACHE_MODES``.
    """
    if cache not in CACHE_MODES:
        raise ValueError(f"cache must be one of {CACHE_MODES}, not {cache!r}")
    return SourceRequest(
        source=source,
        root=None if root is None else Path(root),
        split=split or SplitFractions(),
        image_size=_height_width(image_size),
        cache=cache,
        label_column=label_column,
        memory_budget_bytes=_free_memory_share() if memory_budget_bytes is None else memory_budget_bytes,
        num_threads=num_workers or min(_MAX_THREADS, os.cpu_count() or 1),
        expected=expected,
    )


def build_dataset(data: RawData, fractions: SplitFractions, *, normalize: bool = True) -> Dataset:
    """Check, split and measure what a source handed over.

    Raises:
        InputFileError: there is nothing to train on, or one class only.
    """
    leave_out_non_finite(data)
    data.parts = split_parts(data, fractions)
    _require_something_to_learn(data)
    for samples in data.parts.values():
        samples.measure()
    mean, std = _statistics(data) if normalize else _identity(data)
    return Dataset(
        name=data.name,
        kind=data.kind,
        splits={name: finished_split(name, samples) for name, samples in data.parts.items()},
        class_names=data.class_names,
        input_shape=tuple(data.input_shape),
        mean=mean,
        std=std,
        fingerprint=fingerprint(data),
        resize=data.resize,
        problems=data.problems + check_splits(data),
        notices=data.notices,
    )


def split_parts(data: RawData, fractions: SplitFractions) -> dict[str, RawSamples]:
    """The parts as train, val and test. A missing val is taken from train; a missing test stays missing."""
    parts = dict(data.parts)
    if UNSPLIT in parts:
        samples = parts[UNSPLIT]
        return {name: samples.take(indices) for name, indices in split_indices(samples.labels, fractions).items()}
    if "val" not in parts:
        train = parts["train"]
        from_train = SplitFractions(val=fractions.val, test=0.0, stratify=fractions.stratify)
        indices = split_indices(train.labels, from_train)
        parts.update({name: train.take(chosen) for name, chosen in indices.items()})
        data.notices.append(f"{len(parts.get('val', ()))} of {len(train)} training samples are taken for validation")
    return {name: parts[name] for name in SPLIT_NAMES if name in parts}


def finished_split(name: str, samples: RawSamples) -> Split:
    """The samples as tensors, sharing memory with the arrays."""
    return Split(
        name=name,
        labels=_tensor(samples.labels),
        inputs=None if samples.inputs is None else _tensor(samples.inputs),
        file_names=samples.names,
        image_files=samples.image_files,
    )


def fingerprint(data: RawData) -> str:
    """SHA-256 over class names and, split by split, labels and the digests of all decoded inputs."""
    total = hashlib.sha256()
    total.update("\0".join(data.class_names).encode())
    for name, samples in data.parts.items():
        total.update(f"\0{name} {len(samples)} {data.input_shape}\0".encode())
        total.update(np.ascontiguousarray(samples.labels, dtype="<i8").data)
        total.update(np.ascontiguousarray(samples.digests).data)
    return total.hexdigest()


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _height_width(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return int(height), int(width)


def _free_memory_share() -> int:
    free_bytes = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit
        free_bytes = min(free_bytes, int(_CGROUP_LIMIT.read_text()))
    return int(free_bytes * _SHARE_OF_FREE_MEMORY)


def _require_something_to_learn(data: RawData) -> None:
    faults = "; ".join(problem.message for problem in data.problems)
    if not data.parts.get("train"):
        raise InputFileError(f"no samples to train on{': ' + faults if faults else ''}", field="data")
    if len(data.class_names) < 2:
        raise InputFileError(
            f"only one class, {data.class_names[0]!r}", field="data", hint="a classifier needs at least two"
        )
    if not data.parts.get("val"):
        raise InputFileError(
            "no samples for validation", field="data.split.val", hint="give a larger share or more data"
        )


def _statistics(data: RawData) -> tuple[list[float], list[float]]:
    train = data.parts["train"]
    if train.sums is not None:
        return statistics_of_pixels(train.sums, data.input_shape[1] * data.input_shape[2])
    assert train.inputs is not None
    return statistics_of_values(train.inputs)


def _identity(data: RawData) -> tuple[list[float], list[float]]:
    return [0.0] * data.input_shape[0], [1.0] * data.input_shape[0]
