"""What can be wrong with data, found before a training wastes hours on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from common.data.dataset import NUM_EXAMPLES, DataProblem, counted, first_named
from common.data.raw import UNSPLIT, RawData, RawSamples


def leave_out_non_finite(data: RawData) -> None:
    """Take rows with a missing, NaN or infinite value out of every part of ``data``, and note them as errors."""
    for part, samples in data.parts.items():
        if samples.inputs is None or samples.inputs.dtype == np.uint8:
            continue
        values = samples.inputs.reshape(len(samples), -1)
        finite = np.isfinite(values)
        bad_rows = np.flatnonzero(~finite.all(axis=1))
        if len(bad_rows):
            data.problems.append(_non_finite(part, samples, values[bad_rows], bad_rows, data.column_names))
            data.parts[part] = samples.take(np.flatnonzero(finite.all(axis=1)))


def check_splits(data: RawData) -> list[DataProblem]:
    """Empty classes, classes that differ between splits, and equal images in training and held-out splits."""
    problems = []
    train = data.parts["train"]
    held_out = {part: samples for part, samples in data.parts.items() if part != "train"}
    for part, samples in data.parts.items():
        problems += empty_classes(part, samples, data.class_names)
    for part, samples in held_out.items():
        problems += _unknown_classes(part, samples, train, data.class_names)
    if data.kind == "image":  # equal rows of a table are nothing unusual
        for part, samples in held_out.items():
            problems += _leaked(part, samples, train)
        problems += _contradicting_labels(data.parts, data.class_names)
    return problems


def empty_classes(part: str, samples: RawSamples, class_names: list[str]) -> list[DataProblem]:
    """Classes without a sample in this part, as one warning."""
    counts = np.bincount(samples.labels, minlength=len(class_names))
    empty = [class_names[index] for index in np.flatnonzero(counts == 0)]
    if not empty:
        return []
    message = f"{part}: {len(empty)} of {len(class_names)} classes without samples: {first_named(empty, len(empty))}"
    return [DataProblem("empty_class", part, message, len(empty), tuple(empty[:NUM_EXAMPLES]))]


def _non_finite(
    part: str, samples: RawSamples, bad_values: np.ndarray, bad_rows: np.ndarray, columns: list[str] | None
) -> DataProblem:
    bad = ~np.isfinite(bad_values)
    named = []
    for row, values, is_bad in zip(bad_rows[:NUM_EXAMPLES], bad_values, bad, strict=False):
        first = int(np.argmax(is_bad))
        column = f" column {columns[first]!r}" if columns else ""
        what = "NaN" if np.isnan(values[first]) else "infinite"
        named.append(f"{samples.names[row]}{column} ({what})")
    split = None if part == UNSPLIT else part
    where = f"{split}: " if split else ""
    count = len(bad_rows)
    message = (
        f"{where}{counted(count, 'row')} of {len(samples)} left out for {counted(bad.sum(), 'value')} missing, NaN or "
        f"infinite: {first_named(named, count)}"
    )
    return DataProblem("non_finite", split, message, count, tuple(named), severity="error")


def _unknown_classes(part: str, samples: RawSamples, train: RawSamples, class_names: list[str]) -> list[DataProblem]:
    unknown = [class_names[index] for index in np.setdiff1d(samples.labels, train.labels)]
    if not unknown:
        return []
    message = (
        f"{part}: {len(unknown)} classes have samples here but none to train on: {first_named(unknown, len(unknown))}"
    )
    return [DataProblem("classes_differ", part, message, len(unknown), tuple(unknown[:NUM_EXAMPLES]))]


def _leaked(part: str, samples: RawSamples, train: RawSamples) -> list[DataProblem]:
    seen = {digest.tobytes(): name for digest, name in zip(train.digests, train.names, strict=True)}
    pairs = [
        f"{name} = {seen[digest.tobytes()]}"
        for digest, name in zip(samples.digests, samples.names, strict=True)
        if digest.tobytes() in seen
    ]
    if not pairs:
        return []
    message = f"{part}: {counted(len(pairs), 'image')} also in the training split: {first_named(pairs, len(pairs))}"
    return [DataProblem("leakage", part, message, len(pairs), tuple(pairs[:NUM_EXAMPLES]))]


def _contradicting_labels(parts: Mapping[str, RawSamples], class_names: list[str]) -> list[DataProblem]:
    labels_of: dict[bytes, Counter] = {}
    name_of: dict[bytes, str] = {}
    for samples in parts.values():
        for digest, label, name in zip(samples.digests, samples.labels.tolist(), samples.names, strict=True):
            labels_of.setdefault(digest.tobytes(), Counter())[label] += 1
            name_of.setdefault(digest.tobytes(), name)
    torn = [
        f"{name_of[digest]} ({' and '.join(class_names[label] for label in sorted(labels))})"
        for digest, labels in labels_of.items()
        if len(labels) > 1
    ]
    if not torn:
        return []
    message = f"{counted(len(torn), 'image')} under more than one class: {first_named(torn, len(torn))}"
    return [DataProblem("contradicting_labels", None, message, len(torn), tuple(torn[:NUM_EXAMPLES]))]
