"""metrics.json: what a run measured, in strict JSON that any program can read. The shape is versioned."""

from __future__ import annotations

import json
import math
from pathlib import Path

from common import atomic
from common.exits import InputFileError
from common.record_texts import RecordTexts

SCHEMA_VERSION = 1
FINISHED_STATUSES = ("completed", "early_stopped")
STATUSES = ("running", *FINISHED_STATUSES, "interrupted", "failed")


class MetricsWriter:
    """Writes one metrics.json again and again while its list of epochs grows."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._epoch_texts = RecordTexts(_encoded)
        self._signals_text = RecordTexts(_encoded)

    def write(self, document: dict, *, flush: bool = True) -> None:
        """Replace the file by ``document`` in one step (``flush``: as ``atomic``); non-finite numbers become ``null``.

        Whoever puts a non-finite number in says so in ``events``: the file alone cannot tell why a value is missing.
        A record in ``epochs`` must not change once it was written, and ``signals`` is to be replaced, never changed.
        """
        atomic.write_text(self._path, self._text(document), flush=flush)

    def _text(self, document: dict) -> str:
        """One line per top-level key, per epoch and per event: readable, and quick to make."""
        texts = {}
        for key, value in document.items():
            if key == "epochs":
                texts[key] = _list_text(self._epoch_texts.of(value))
            elif key == "signals":
                texts[key] = self._signals_text.of([value])[0]
            else:
                texts[key] = _value_text(value)
        return "{\n" + ",\n".join(f"{_encoded(key)}: {texts[key]}" for key in document) + "\n}\n"


def write_metrics(path: str | Path, document: dict) -> None:
    """Write ``document`` once, as ``MetricsWriter`` does."""
    MetricsWriter(path).write(document)


def _value_text(value: object) -> str:
    return _list_text(list(map(_encoded, value))) if isinstance(value, list) else _encoded(value)


def _list_text(texts: list[str]) -> str:
    return "[\n  " + ",\n  ".join(texts) + "\n]" if texts else "[]"


def _encoded(value: object) -> str:
    try:
        return _encode_strictly(value)
    except ValueError:  # a number that JSON does not have
        return _encode_strictly(without_non_finite(value))


_encode_strictly = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def read_metrics(path: str | Path) -> dict:
    """Read a metrics.json (or the one in a run folder) and check that it is one.

    Raises:
        InputFileError: missing, unreadable, not JSON, or not of a schema this version knows.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "metrics.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputFileError("there is no such file", path=path, hint="give a metrics.json or a run folder") from None
    except OSError as error:
        raise InputFileError(f"cannot be read ({error.strerror})", path=path) from error
    except (ValueError, RecursionError) as error:
        raise InputFileError(f"is not valid JSON ({error})", path=path, hint="run the same training command again: "
                             "it rebuilds the file from the newest checkpoint") from error  # fmt: skip
    _check_shape(document, path)
    return document


def without_non_finite(value: object) -> object:
    """The same nested value with every NaN and infinity replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: without_non_finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_non_finite(item) for item in value]
    return value


def _check_shape(document: object, path: Path) -> None:
    if not isinstance(document, dict) or not isinstance(document.get("schema_version"), int):
        raise InputFileError("is not a metrics file: it has no schema_version", path=path)
    if document["schema_version"] > SCHEMA_VERSION:
        raise InputFileError(
            f"has schema version {document['schema_version']}, newer than {SCHEMA_VERSION}",
            path=path,
            hint="use the version of ML Trainer that wrote it",
        )
    for key, kind in (("run", dict), ("epochs", list), ("events", list)):
        if not isinstance(document.get(key), kind):
            raise InputFileError(f"is not a metrics file: '{key}' is missing or of another type", path=path)
    if not all(isinstance(epoch, dict) and isinstance(epoch.get("num"), int) for epoch in document["epochs"]):
        raise InputFileError("is not a metrics file: an entry of 'epochs' has no 'num'", path=path)
