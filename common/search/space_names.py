"""From the name of a hyperparameter, as a search space has it, to its place in the config."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from common.config.dumping import NOT_IN_HASH
from common.config.editor_schema import all_keys
from common.config.problems import did_you_mean

_FREE_FORM = "model.architecture_args"
_OTHER_EXAM = "trials would be scored on different validation data"
_NO_PART = "it has no influence on what a trial scores"
# What may not be searched for: a section or field, and the reason.
_UNSEARCHABLE = {
    "reproducibility": "a seed or a mode of computing is no hyperparameter",
    "data.source": _OTHER_EXAM,
    "data.root": _OTHER_EXAM,
    "data.label_column": _OTHER_EXAM,
    "data.split": _OTHER_EXAM,
    "test_set": _NO_PART,
    "validation.metric": _NO_PART,
    "validation.metrics": _NO_PART,
    "diagnostics": _NO_PART,
    "checkpointing.monitor": "trials would be scored by different measures",
    "checkpointing.mode": "trials would be scored by different measures",
    "training.device": _NO_PART,
    "training.num_threads": _NO_PART,
    **dict.fromkeys(NOT_IN_HASH, _NO_PART),
}


@dataclass(frozen=True)
class Refusal:
    """Why a name cannot be used: the kind, a clause, and what to do."""

    code: str
    message: str
    hint: str


def path_of(name: str) -> str | Refusal:
    """The full path that a leaf name, the end of a path, or a full path means."""
    found = _matches(name)
    if len(found) > 1:
        listed = ", ".join(f"`{path}`" for path in found)
        return Refusal("ambiguous-key", f"`{name}` can mean several fields", f"write one of {listed}")
    if not found:
        return _unknown(name)
    reason = next((why for part, why in _UNSEARCHABLE.items() if f"{found[0]}.".startswith(f"{part}.")), None)
    if reason is not None:
        return Refusal("not-searchable", f"cannot be searched for: {reason}", "remove it")
    return found[0]


def _matches(name: str) -> list[str]:
    fields = _fields()
    if name in fields or name.startswith(f"{_FREE_FORM}."):
        return [name]
    ends = [path for path in fields if path.endswith(f".{name}")]
    # A name that only one searchable field has needs no more words.
    searchable = [path for path in ends if not any(f"{path}.".startswith(f"{part}.") for part in _UNSEARCHABLE)]
    return searchable or ends


@functools.lru_cache(maxsize=1)
def _fields() -> tuple[str, ...]:
    """The dotted path of every field that is no section."""
    keys = [".".join(path) for path in all_keys()]
    sections = {key.rpartition(".")[0] for key in keys}
    return tuple(dict.fromkeys(key for key in keys if key not in sections))


def _unknown(name: str) -> Refusal:
    inside = [path for path in _fields() if path.startswith(f"{name}.")]
    if inside:
        return Refusal("section", f"`{name}` is a section, not a field", f"name a field, such as `{inside[0]}`")
    leaves = {path.rpartition(".")[2]: path for path in reversed(_fields())}
    close = did_you_mean(name, _fields()) if "." in name else did_you_mean(name, leaves)
    hint = f"did you mean `{close}`?" if close else "configs/README.md lists every field"
    return Refusal("unknown-key", f"unknown hyperparameter `{name}`", hint)
