"""Suspicious samples: labels that the network contradicts with confidence, and those it never came to learn."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.comparison.predictions import Predictions, PredictionsUnusableError, read_predictions
from common.diagnosis.evidence import RunEvidence

MAX_HISTORY_BYTES = 2**30
# Of the way from always naming one class to all right; with 40% of the labels wrong it is about a half.
LEARNT_ENOUGH = 0.3


class HistoryUnusableError(Exception):
    """Why the samples' history of a run cannot be used, as a sentence without its full stop."""


@dataclass(frozen=True)
class Suspect:
    """A sample whose label is in doubt.

    Args:
        split: train or val; ``index`` counts from 0 within it.
        label, looks_like: class names; the latter is unknown for training samples, of which only margins are kept.
        score: the more negative, the more doubtful: p(label) - p(other) for validation, the mean margin for training.
    """

    split: str
    index: int
    label: str | None
    looks_like: str | None
    score: float


def confident_disagreements(predictions: Predictions) -> npt.NDArray[np.bool_]:
    """Samples that are as clearly of another class as that class's own samples usually are, (N,).

    Source: confident learning, Northcutt et al. 2021, arXiv:1911.00068, equation 1.
    """
    probs_NC, threshold_C = _probabilities(predictions)
    sure_NC = np.where(probs_NC >= threshold_C, probs_NC, 0.0)
    return (sure_NC.max(axis=1) > 0) & (sure_NC.argmax(axis=1) != predictions.label)


def confident_disagreement_share(predictions: Predictions) -> float:
    """Fraction of such samples, in [0, 1]."""
    return float(confident_disagreements(predictions).mean())


def suspects(run: RunEvidence, most: int = 50) -> list[Suspect]:
    """The ``most`` doubtful samples of each split, most doubtful first.

    Empty where the run kept no such records, or learnt too little for its word to count against a label's.
    """
    if run.learnt_share < LEARNT_ENOUGH:
        return []
    return [*_of_validation(run, most), *_of_training(run, most)]


def _of_validation(run: RunEvidence, most: int) -> list[Suspect]:
    try:
        predictions = read_predictions(run.run)
    except PredictionsUnusableError:
        return []
    probs_NC, _ = _probabilities(predictions)
    rows = np.flatnonzero(confident_disagreements(predictions))
    score_N = probs_NC[np.arange(len(probs_NC)), predictions.label] - probs_NC.max(axis=1)
    rows = rows[np.argsort(score_N[rows], kind="stable")][:most]
    return [
        Suspect("val", int(predictions.index[row]), _class_name(run, int(predictions.label[row])),
                _class_name(run, int(predictions.predicted[row])), float(score_N[row]))
        for row in rows
    ]  # fmt: skip


def _of_training(run: RunEvidence, most: int) -> list[Suspect]:
    try:
        margins_N = read_mean_margins(run.run.folder.sample_history)
    except HistoryUnusableError:
        return []
    order = np.argsort(margins_N, kind="stable")[:most]
    return [Suspect("train", int(row), None, None, float(margins_N[row])) for row in order if margins_N[row] < 0]


def read_mean_margins(path: Path) -> npt.NDArray[np.float64]:
    """Mean margin of each training sample over the epochs, (N,), NaN for samples never trained on.

    Raises:
        HistoryUnusableError: the file is missing or not as it should be.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_HISTORY_BYTES:
            raise HistoryUnusableError(f"{path} unpacks to {size} bytes, more than {MAX_HISTORY_BYTES}")
        with np.load(path, allow_pickle=False) as stored:
            margins_N = stored["margin_mean"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise HistoryUnusableError(f"{path} cannot be read ({error})") from error
    if margins_N.ndim != 1 or margins_N.dtype.kind != "f":
        raise HistoryUnusableError(f"'margin_mean' in {path} is not one number per sample")
    return margins_N.astype(np.float64)


def _probabilities(predictions: Predictions) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Softmax (N, C), and for each class the mean probability that its own samples are given, (C,)."""
    logits_NC = predictions.logits.astype(np.float64)
    probs_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    probs_NC /= probs_NC.sum(axis=1, keepdims=True)
    num_classes = probs_NC.shape[1]
    threshold_C = np.full(num_classes, np.inf)
    for label in np.unique(predictions.label):
        threshold_C[label] = probs_NC[predictions.label == label, label].mean()
    return probs_NC, threshold_C


def _class_name(run: RunEvidence, label: int) -> str:
    names = run.run.dataset.get("class_names")
    return str(names[label]) if isinstance(names, list) and label < len(names) else str(label)
