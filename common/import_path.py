"""Importing what people plug in: a callable named as ``pkg.mod:name``."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from common.exits import UsageError

_IDENTIFIER = r"[^\W\d]\w*"
_IMPORT_PATH = re.compile(rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}(\.{_IDENTIFIER})*")


def is_import_path(text: str) -> bool:
    """Whether ``text`` is meant as an import path and not as the name of something built in."""
    return ":" in text


def import_callable(import_path: str, *, field: str | None = None) -> Callable[..., Any]:
    """The callable that ``pkg.mod:name`` names (``pkg.mod:Class.method`` too). Importing runs that module's code.

    The working directory is importable from here on, after everything installed, so that a file of yours named like
    an installed package never takes that package's place.

    Args:
        field: the config field or flag that holds the path, named in errors.
    Raises:
        UsageError: malformed, no such module, an error while importing it, no such name in it, or not callable.
    """
    module_name, _, qualified_name = import_path.partition(":")
    if not _IMPORT_PATH.fullmatch(import_path) or module_name.endswith(".py"):
        raise UsageError(f"`{import_path}` is no import path", field=field, hint="write it as `package.module:name`")
    found = _look_up(_import_module(module_name, field), qualified_name, field)
    if not callable(found):
        raise UsageError(f"`{import_path}` is of type {type(found).__name__}, which cannot be called", field=field)
    return found


def _import_module(name: str, field: str | None) -> ModuleType:
    working_directory = os.getcwd()
    if working_directory not in sys.path:
        sys.path.append(working_directory)
    # A module written since the last look into that folder would otherwise not be seen.
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _not_found(name, error, field) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"importing `{name}` failed with {reason}", field=field, hint="correct that module") from error


def _not_found(name: str, error: ModuleNotFoundError, field: str | None) -> UsageError:
    if error.name and (name == error.name or name.startswith(f"{error.name}.")):
        hint = f"it is looked for among the installed packages and in {os.getcwd()}"
        return UsageError(f"there is no module `{error.name}`", field=field, hint=hint)
    return UsageError(f"importing `{name}` failed: it needs `{error.name}`, which is not installed", field=field)


def _look_up(module: ModuleType, qualified_name: str, field: str | None) -> Any:
    found: Any = module
    for name in qualified_name.split("."):
        if not hasattr(found, name):
            close = difflib.get_close_matches(name, [known for known in dir(found) if known[0] != "_"], n=1)
            hint = f"did you mean `{close[0]}`?" if close else None
            where = getattr(module, "__file__", None) or module.__name__
            raise UsageError(f"{where} has no `{qualified_name}`", field=field, hint=hint)
        found = getattr(found, name)
    return found
