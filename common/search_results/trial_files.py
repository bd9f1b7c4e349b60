"""``trials.csv`` and ``trials.json``: every trial of a study, whatever became of it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from common.search_results.records import StudyRecord, TrialRecord
from common.search_results.wording import param_paths

SCHEMA_VERSION = 1
_FIRST = ("number", "state", "value", "seed")
_LAST = ("attempts", "duration_s", "started_at", "finished_at", "run_dir", "message")


def trials_json(study: StudyRecord) -> str:
    """The whole study as strict JSON: what is not a finite number is null.

    ``{"schema_version": 1, "study": {...}, "trials": [{number, state, params, value, seed, ...}], "confirmations":
    [...]}``, the trials in the order of their numbers.
    """
    record = asdict(study)
    trials, confirmations = record.pop("trials"), record.pop("confirmations")
    document = {
        "schema_version": SCHEMA_VERSION,
        "study": record,
        "trials": sorted(trials, key=lambda trial: trial["number"]),
        "confirmations": confirmations,
    }
    return writable(json.dumps(strict(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def trials_csv(study: StudyRecord) -> str:
    """A line for each trial: its outcome, its hyperparameters by full path, further measures, times.

    A cell with a hyperparameter is empty where the trial does not have it. Text stands as it is, except where it would
    be read as another value; everything else, and such text, stands as JSON (``parse_cell`` reads both).
    """
    paths = param_paths(study)
    measures = list(dict.fromkeys(name for trial in study.trials for name in trial.measures))
    # A measure may have the name of the metric; a column has to have one meaning.
    header = [*_FIRST, *paths, *measures, *_LAST]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for trial in sorted(study.trials, key=lambda trial: trial.number):
        writer.writerow(_row(trial, paths, measures))
    return writable(buffer.getvalue())


def parse_cell(text: str) -> Any:
    """The value of a hyperparameter in trials.csv; the cell must not be empty."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def strict(value: Any) -> Any:
    """The value with None for what strict JSON cannot say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): strict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(inner) for inner in value]
    return value


def writable(text: str) -> str:
    """The text with what UTF-8 cannot hold, half a character from a file's name, as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _row(trial: TrialRecord, paths: list[str], measures: list[str]) -> list[str]:
    first = [_plain(getattr(trial, name)) for name in _FIRST]
    params = [_cell(trial.params[path]) if path in trial.params else "" for path in paths]
    last = [_plain(getattr(trial, name)) for name in _LAST]
    return [*first, *params, *(_plain(trial.measures.get(name)) for name in measures), *last]


def _plain(value: Any) -> str:
    value = strict(value)
    return "" if value is None else str(value)


def _cell(value: Any) -> str:
    if isinstance(value, str) and value and parse_cell(value) is value:
        return value
    return json.dumps(strict(value), ensure_ascii=False)
