"""Data from a function that people name by import path."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import numpy as np

from common.data.arrays import data_from_arrays
from common.data.dataset import Dataset
from common.data.raw import RawData, SourceRequest
from common.exits import UsageError
from common.import_path import import_callable

_FIELD = "data.source"


def load_plugged_in(request: SourceRequest) -> RawData | Dataset:
    """What ``package.module:name`` returns: arrays named as in an ``.npz`` file, or a ``Dataset`` used as it is.

    The function is called with ``root`` if it has a parameter of that name.

    Raises:
        UsageError: no such function, it fails, or it returns something else.
        InputFileError: the arrays are not as they should be.
    """
    load = import_callable(request.source, field=_FIELD)
    arguments = {"root": request.root} if "root" in inspect.signature(load).parameters else {}
    try:
        loaded = load(**arguments)
    except Exception as error:
        raise UsageError(f"`{request.source}` failed with {type(error).__name__}: {error}", field=_FIELD) from error
    if isinstance(loaded, Dataset):
        return loaded
    if not isinstance(loaded, Mapping):
        raise UsageError(
            f"`{request.source}` returned a {type(loaded).__name__}",
            field=_FIELD,
            hint="return arrays by name (x_train, y_train, ... or x, y) or a common.data.Dataset",
        )
    arrays = {str(name): np.asarray(value) for name, value in loaded.items()}
    return data_from_arrays(arrays, request, name=request.source, where=request.source)
