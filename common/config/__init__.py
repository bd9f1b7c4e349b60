"""Configs: reading YAML safely, the schema, modes, overrides, and writing a config down.

Names are imported when first asked for, so that a script can say ``from common.config import Mode`` for its command
line without paying for the schema (about 150 ms) before it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.config.dumping import config_differences, config_sha256, config_to_mapping, dump_config
    from common.config.editor_schema import json_schema
    from common.config.loading import LoadedConfig, check_config, config_from_mapping, load_config
    from common.config.modes import PRESETS, Mode
    from common.config.problems import ConfigInvalidError, Problem
    from common.config.sections import Config
    from common.config.yaml_document import Document, load_yaml, load_yaml_text, read_yaml, read_yaml_text

_HOMES = {
    "dumping": ("config_differences", "config_sha256", "config_to_mapping", "dump_config"),
    "editor_schema": ("json_schema",),
    "loading": ("LoadedConfig", "check_config", "config_from_mapping", "load_config"),
    "modes": ("PRESETS", "Mode"),
    "problems": ("ConfigInvalidError", "Problem"),
    "sections": ("Config",),
    "yaml_document": ("Document", "load_yaml", "load_yaml_text", "read_yaml", "read_yaml_text"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "PRESETS",
    "Config",
    "ConfigInvalidError",
    "Document",
    "LoadedConfig",
    "Mode",
    "Problem",
    "check_config",
    "config_differences",
    "config_from_mapping",
    "config_sha256",
    "config_to_mapping",
    "dump_config",
    "json_schema",
    "load_config",
    "load_yaml",
    "load_yaml_text",
    "read_yaml",
    "read_yaml_text",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
