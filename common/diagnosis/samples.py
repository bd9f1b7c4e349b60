"""Suspicious samples by name, and as pictures, out of the data that a run was trained on.

The data is whatever has ``splits`` with ``labels``, ``inputs`` (None where they stay on disk) and ``sample_name``, and
``class_names``, as ``common.data.Dataset`` has; its tensors are looked at as arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.diagnosis.pictures import draw_samples
from common.diagnosis.report import SuspectRow
from common.diagnosis.suspects import Suspect

MOST_PICTURES = 32


def suspect_rows(doubtful: Sequence[Suspect], dataset: Any | None) -> list[SuspectRow]:
    """The doubtful samples for the report; by number, where the data, or the sample in it, is not there."""
    return [_suspect_row(suspect, dataset if _is_in(dataset, suspect) else None) for suspect in doubtful]


def duplicate_rows(dataset: Any, most: int) -> list[SuspectRow]:
    """The first ``most`` validation samples that equal a training sample, for data in memory."""
    train, val = dataset.splits["train"], dataset.splits["val"]
    if train.inputs is None or val.inputs is None:
        return []
    first: dict[bytes, int] = {}
    for index, digest in enumerate(_digests(np.asarray(train.inputs))):
        first.setdefault(digest, index)
    found = [(index, first[digest]) for index, digest in enumerate(_digests(np.asarray(val.inputs))) if digest in first]
    return [
        SuspectRow(val.sample_name(index), "val", dataset.class_names[int(val.labels[index])],
                   f"equals {train.sample_name(original)} of the training data")
        for index, original in found[:most]
    ]  # fmt: skip


def draw_sheet(path: Path, doubtful: Sequence[Suspect], dataset: Any | None) -> bool:
    """Draw the doubtful images beside each other; False where there are none in memory. Raises OSError."""
    if dataset is None or len(dataset.input_shape) != 3 or dataset.input_shape[0] not in (1, 3):
        return False
    known = [suspect for suspect in doubtful if _is_in(dataset, suspect)]
    shown = [suspect for suspect in known if dataset.splits[suspect.split].inputs is not None][:MOST_PICTURES]
    if not shown:
        return False
    images = [np.asarray(dataset.splits[suspect.split].inputs[suspect.index]) for suspect in shown]
    captions = [_caption(suspect, dataset) for suspect in shown]
    draw_samples(images, captions, path, "Suspicious samples: labels that the network contradicts")
    return True


def _is_in(dataset: Any | None, suspect: Suspect) -> bool:
    return dataset is not None and suspect.index < len(dataset.splits[suspect.split].labels)


def _suspect_row(suspect: Suspect, dataset: Any | None) -> SuspectRow:
    why = (f"looks like {suspect.looks_like}" if suspect.looks_like is not None
           else f"another class was preferred on average (margin {suspect.score:.2f})")  # fmt: skip
    if dataset is None:
        return SuspectRow(f"sample {suspect.index}", suspect.split, suspect.label or "?", why)
    split = dataset.splits[suspect.split]
    return SuspectRow(split.sample_name(suspect.index), suspect.split, _label(suspect, dataset), why)


def _label(suspect: Suspect, dataset: Any) -> str:
    return suspect.label or dataset.class_names[int(dataset.splits[suspect.split].labels[suspect.index])]


def _caption(suspect: Suspect, dataset: Any) -> str:
    doubt = f"like {suspect.looks_like}" if suspect.looks_like is not None else "in doubt"
    return f"{suspect.split} {suspect.index}\n{_label(suspect, dataset)}, {doubt}"


def _digests(inputs: npt.NDArray) -> list[bytes]:
    return [hashlib.sha256(sample.tobytes()).digest() for sample in inputs]
