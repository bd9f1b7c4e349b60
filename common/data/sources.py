"""The data sources by name. A new one is a function from ``SourceRequest`` to ``RawData`` and a line here."""

from __future__ import annotations

import difflib
import importlib

from common.data.dataset import Dataset
from common.data.plugged_in import load_plugged_in
from common.data.raw import RawData, SourceRequest
from common.exits import InputFileError
from common.import_path import is_import_path

# Module and function; imported when asked for, since each needs a package of its own.
SOURCES = {
    "digits": ("bundled", "read_digits"),
    "wine": ("bundled", "read_wine"),
    "breast_cancer": ("bundled", "read_breast_cancer"),
    "iris": ("bundled", "read_iris"),
    "image_folder": ("image_folder", "read"),
    "npz": ("arrays", "read_npz"),
    "csv": ("table", "read_csv"),
    "parquet": ("table", "read_parquet"),
    "mnist": ("idx", "read_mnist"),
    "cifar10": ("cifar", "read_cifar10"),
}


def read_source(request: SourceRequest) -> RawData | Dataset:
    """What the source named in ``request`` holds.

    Raises:
        InputFileError: there is no source of that name, or its data is not as it should be.
    """
    if is_import_path(request.source):
        return load_plugged_in(request)
    if request.source not in SOURCES:
        close = difflib.get_close_matches(request.source, SOURCES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(SOURCES)}"
        raise InputFileError(f"unknown data source {request.source!r}", field="data.source", hint=hint)
    module_name, function_name = SOURCES[request.source]
    module = importlib.import_module(f"common.data.{module_name}")
    return getattr(module, function_name)(request)
