"""A config as YAML, as a plain mapping, as a hash, and compared with another."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.config.sections import Config
from common.config.yaml_scalars import is_text_when_plain

# What has no influence on the numbers that training gives: words, what is written down and how often, how fast data
# is loaded, and what happens with the model afterwards.
NOT_IN_HASH = (
    "experiment",
    "logging",
    "export",
    "target",
    "data.num_workers",
    "data.pin_memory",
    "data.persistent_workers",
    "data.prefetch_factor",
    "data.cache",
    "checkpointing.save_last",
    "checkpointing.checkpoint_every_n_epochs",
    "checkpointing.checkpoint_every_n_steps",
    "checkpointing.checkpoint_every_n_seconds",
    "checkpointing.min_seconds_between_saves",
    "checkpointing.keep_last_n",
    "checkpointing.save_top_k",
)

_PLAIN_TEXT = re.compile(r"[A-Za-z_][A-Za-z0-9_./+-]*", re.ASCII)


def config_to_mapping(config: Config) -> dict[str, Any]:
    """Every field as dicts, lists, text, numbers, booleans and None; ``config_from_mapping`` reads it back."""
    return config.model_dump(mode="json")


def dump_config(config: Config, header_lines: Sequence[str] = (), notes: Mapping[str, str] | None = None) -> str:
    """Every field as YAML, in the order of the schema; ``load_config`` gives an equal config.

    Args:
        header_lines: comment lines for the top, without ``#``.
        notes: by dotted key, what is to stand in a comment behind the field.
    """
    header = [f"# {line}".rstrip() for text in header_lines for line in re.split(r"[^\S ]", text)]
    comments = {key: f"  # {' '.join(note.split())}" for key, note in (notes or {}).items()}
    return "\n".join([*header, *_mapping_lines(config_to_mapping(config), (), comments)]) + "\n"


def config_sha256(config: Config) -> str:
    """Hash, 64 hex digits, of what influences the result of training.

    SHA-256 of canonical JSON (sorted keys, no spaces, UTF-8) of the config without the sections ``experiment``,
    ``logging``, ``export`` and ``target``, without what only sets how data is loaded (``num_workers``, ``pin_memory``,
    ``persistent_workers``, ``prefetch_factor``, ``cache``), and without what only sets how often and how many
    checkpoints are saved (``save_last``, ``checkpoint_every_n_*``, ``min_seconds_between_saves``, ``keep_last_n``,
    ``save_top_k``).
    """
    mapping = config_to_mapping(config)
    for key in NOT_IN_HASH:
        *section, field = key.split(".")
        (mapping[section[0]] if section else mapping).pop(field)
    canonical = json.dumps(mapping, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def config_differences(a: Config, b: Config) -> list[tuple[str, Any, Any]]:
    """Fields that differ: dotted key, value in ``a``, value in ``b``, in the order of the schema.

    Lists are compared as a whole. A key that only one of them has (in ``model.architecture_args``) is None in the
    other.
    """
    old, new = dict(_leaves(config_to_mapping(a), "")), dict(_leaves(config_to_mapping(b), ""))
    return [(key, old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)]


def _leaves(value: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _leaves(inner, f"{prefix}{key}.")
        elif not isinstance(inner, dict):
            yield f"{prefix}{key}", inner


def _mapping_lines(mapping: dict[str, Any], above: tuple[str, ...], comments: Mapping[str, str]) -> Iterator[str]:
    indent = "  " * len(above)
    for key, value in mapping.items():
        path = (*above, key)
        lead, comment = f"{indent}{_text(key)}:", comments.get(".".join(path), "")
        if isinstance(value, dict) and value:
            yield f"{lead}{comment}"
            yield from _mapping_lines(value, path, comments)
        elif isinstance(value, list) and any(isinstance(entry, (dict, list)) for entry in value):
            yield f"{lead}{comment}"
            yield from (f"{indent}  - {_flow(entry)}" for entry in value)
        else:
            yield f"{lead} {_flow(value)}{comment}"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(entry) for entry in value) + "]"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return _float(value)
    return json.dumps(value)


def _float(value: float) -> str:
    """The shortest text that gives the same number to readers of YAML 1.1 too, which need a point and a sign."""
    mantissa, e, exponent = repr(value).partition("e")
    if not e:
        return mantissa
    point = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{point}e{exponent if exponent[0] in '+-' else '+' + exponent}"


def _text(text: str) -> str:
    if _PLAIN_TEXT.fullmatch(text) and is_text_when_plain(text):
        return text
    return json.dumps(text, ensure_ascii=False)
