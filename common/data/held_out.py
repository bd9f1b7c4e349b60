"""Labelled data for a model that exists already: its classes, its input shape, its normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.data.checks import empty_classes, leave_out_non_finite
from common.data.dataset import Dataset
from common.data.loading import fingerprint, finished_split, new_request
from common.data.raw import UNSPLIT, ExpectedInput, RawData, RawSamples
from common.data.sources import read_source
from common.exits import InputFileError

_SOURCE_OF_SUFFIX = {".npz": "npz", ".csv": "csv", ".parquet": "parquet"}


def load_test_set(
    path: str | Path,
    *,
    class_names: Sequence[str],
    input_shape: Sequence[int],
    preprocessing: Mapping[str, Any],
    source: str | None = None,
    label_column: str | None = None,
    cache: str = "auto",
    num_workers: int = 0,
    memory_budget_bytes: int | None = None,
) -> Dataset:
    """A data set whose only split is ``test``, prepared as the model was trained. Classes are matched by name.

    Args:
        path: a folder with a folder of images per class (or with such a ``test/`` in it), or an ``.npz``, ``.csv`` or
            ``.parquet`` file, of which the test part is taken, or else everything.
        class_names, input_shape, preprocessing: from the checkpoint's ``model_spec``.
        source: how to read ``path``, where its name does not say it (``mnist``, ``cifar10``).

    Raises:
        InputFileError: missing, malformed, empty, or labels and inputs are not such as the model knows.
    """
    path = Path(path)
    expected = ExpectedInput(tuple(class_names), tuple(input_shape))
    request = new_request(
        source or _SOURCE_OF_SUFFIX.get(path.suffix.lower(), "image_folder"),
        root=path,
        image_size=preprocessing["resize"],
        cache=cache,
        num_workers=num_workers,
        label_column=label_column,
        memory_budget_bytes=memory_budget_bytes,
        expected=expected,
    )
    data = read_source(request)
    assert isinstance(data, RawData)
    samples = _test_part(data, path)
    samples.labels = _matched_labels(samples.labels, data.class_names, expected.class_names, path)
    if tuple(data.input_shape) != expected.shape:
        raise InputFileError(f"has inputs of shape {data.input_shape}, the model takes {expected.shape}", path=path)
    data.class_names = list(class_names)
    data.parts = {"test": samples}
    leave_out_non_finite(data)
    if not data.parts["test"]:
        raise InputFileError("holds no samples that can be used", path=path)
    data.parts["test"].measure()
    return Dataset(
        name=data.name,
        kind=data.kind,
        splits={"test": finished_split("test", data.parts["test"])},
        class_names=data.class_names,
        input_shape=expected.shape,
        mean=list(preprocessing["mean"]),
        std=list(preprocessing["std"]),
        fingerprint=fingerprint(data),
        resize=request.image_size,
        problems=data.problems + empty_classes("test", data.parts["test"], data.class_names),
        notices=data.notices,
    )


def _test_part(data: RawData, path: Path) -> RawSamples:
    for name in ("test", UNSPLIT):
        if name in data.parts:
            return data.parts[name]
    raise InputFileError(f"has no test part, only {', '.join(data.parts)}", path=path)


def _matched_labels(labels: np.ndarray, names: Sequence[str], known_names: Sequence[str], path: Path) -> np.ndarray:
    index_of = {name: index for index, name in enumerate(known_names)}
    unknown = [names[label] for label in np.unique(labels).tolist() if names[label] not in index_of]
    if unknown:
        raise InputFileError(
            f"holds classes that the model does not know: {', '.join(unknown[:10])}",
            path=path,
            hint=f"it knows {', '.join(known_names[:10])}",
        )
    return np.array([index_of.get(name, -1) for name in names], dtype=np.int64)[labels]
