"""predictions_val.npz: what a run's best epoch says about each validation example."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.comparison.measures import BY_KEY
from common.comparison.runs import Run, number

ARRAYS = ("index", "label", "predicted", "logits")
# Beyond this a file is not read into memory: a hundred million logits.
MAX_BYTES = 2**30
ACCURACY_TOLERANCE_PCT = 1e-6


class PredictionsUnusableError(Exception):
    """Why the predictions of a run cannot be used, as a sentence without its full stop."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Per example, in the split's order: ``index``, ``label``, ``predicted`` int64 (N,); ``logits`` float32 (N, C)."""

    index: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        return self.predicted == self.label

    def same_examples(self, other: Predictions) -> bool:
        """Whether both speak about the same examples in the same order."""
        return np.array_equal(self.index, other.index) and np.array_equal(self.label, other.label)

    def losses(self) -> npt.NDArray[np.float64]:
        """Cross-entropy of each example in nats."""
        logits = self.logits.astype(np.float64)
        shifted = logits - logits.max(axis=1, keepdims=True)
        return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(shifted)), self.label]


def read_predictions(run: Run) -> Predictions:
    """The validation predictions of a run.

    Raises:
        PredictionsUnusableError: missing (a run that was stopped has none), malformed, or of another training.
    """
    path = run.folder.predictions("val")
    try:
        predictions = _checked(_arrays(path))
    except FileNotFoundError:
        raise PredictionsUnusableError(f"{path.name} is missing beside {run.path}") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise PredictionsUnusableError(f"{path} cannot be read ({error})") from error
    stated = number(run.best.get(BY_KEY["val_acc"].key))
    if stated is None or abs(stated - 100.0 * predictions.right.mean()) > ACCURACY_TOLERANCE_PCT:
        raise PredictionsUnusableError(f"{path} is not of the best epoch in {run.path.name}: its accuracy is another")
    return predictions


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_BYTES:
        raise ValueError(f"it unpacks to {size} bytes, more than {MAX_BYTES}")
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in ARRAYS}


def _checked(arrays: dict[str, np.ndarray]) -> Predictions:
    index, label, predicted, logits = (arrays[name] for name in ARRAYS)
    if label.ndim != 1 or not label.size or logits.ndim != 2 or logits.dtype.kind != "f":
        raise ValueError("its arrays have other shapes than predictions")
    num_examples, num_classes = logits.shape
    for name, values in (("index", index), ("label", label), ("predicted", predicted)):
        if values.shape != (num_examples,) or values.dtype.kind not in "iu" or values.min() < 0:
            raise ValueError(f"'{name}' is not one index per example")
    if max(label.max(), predicted.max()) >= num_classes:
        raise ValueError("a class index is beyond the number of logits")
    if not np.isfinite(logits).all():
        raise ValueError("a logit is not finite")
    return Predictions(*(values.astype(np.int64) for values in (index, label, predicted)), logits)
