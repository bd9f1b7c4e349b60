"""Models by name or by import path."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from common.choices import unknown_name
from common.exits import UsageError
from common.import_path import import_callable, is_import_path
from common.models.plugged_in import build_plugged_in
from common.models.pretrained import load_pretrained
from common.models.registry import ARCHITECTURES

__all__ = ["ARCHITECTURES", "build_model", "count_parameters"]

FIELD = "model.architecture"


def build_model(
    architecture: str,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    dropout: float = 0.0,
    hidden_dims: Sequence[int] | None = None,
    activation: str = "relu",
    pretrained: str | Path | None = None,
    architecture_args: Mapping[str, Any] | None = None,
) -> nn.Module:
    """An untrained model on the CPU in fp32, initialised from PyTorch's global random stream.

    Args:
        architecture: a name in ``ARCHITECTURES`` in any case, or an import path ``my_pkg.nets:build`` of a callable
            that takes ``num_classes`` and as many as it wants of ``input_shape``, ``dropout``, ``hidden_dims`` and
            ``activation`` as keywords.
        input_shape: of one sample: (C, H, W) in pixels, or (F,).
        num_classes: >= 2; the model maps (B, *input_shape) to logits (B, num_classes).
        dropout: probability in [0, 1).
        hidden_dims: widths of the hidden layers, where the architecture has such; None for its default.
        pretrained: a file with weights to start from (see ``load_pretrained``).
        architecture_args: further keywords for the architecture.
    Raises:
        UsageError: unknown name, or arguments that the architecture cannot take or that do not fit the data.
        InputFileError: ``pretrained`` cannot be used.
    """
    _check_common(input_shape, num_classes, dropout)
    builder = _find_builder(architecture)
    common_arguments = {
        "input_shape": tuple(input_shape),
        "num_classes": num_classes,
        "dropout": dropout,
        "hidden_dims": None if hidden_dims is None else list(hidden_dims),
        "activation": activation.lower(),
    }
    arguments = _accepted(builder, architecture, common_arguments, dict(architecture_args or {}))
    if is_import_path(architecture):
        model = build_plugged_in(builder, arguments, architecture, tuple(input_shape), num_classes)
    else:
        model = builder(**arguments)
    if pretrained is not None:
        load_pretrained(model, pretrained)
    return model


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learns or could learn; buffers such as batch norm's statistics do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def _check_common(input_shape: Sequence[int], num_classes: int, dropout: float) -> None:
    if len(input_shape) not in (1, 3) or min(input_shape) < 1:
        raise UsageError(f"a sample must be of shape (C, H, W) or (F,), not {tuple(input_shape)}", field="data.source")
    if num_classes < 2:
        raise UsageError(f"a classifier needs at least 2 classes, not {num_classes}", field="model.num_classes")
    if not 0.0 <= dropout < 1.0:
        raise UsageError(f"dropout must be in [0, 1), not {dropout}", field="model.dropout")


def _find_builder(architecture: str) -> Callable[..., nn.Module]:
    if is_import_path(architecture):
        return import_callable(architecture, field=FIELD)
    if architecture.lower() not in ARCHITECTURES:
        raise unknown_name("architecture", architecture, ARCHITECTURES, field=FIELD)
    return ARCHITECTURES[architecture.lower()]


# What an architecture may leave out of its signature only while nobody asks for it.
_SETTINGS_WITHOUT_EFFECT = {"dropout": 0.0, "hidden_dims": None, "activation": "relu"}


def _accepted(
    builder: Callable, architecture: str, common_arguments: dict[str, Any], architecture_args: dict[str, Any]
) -> dict[str, Any]:
    """The keywords to call ``builder`` with. A setting that it would ignore is an error, never silence."""
    try:
        names, takes_any = _keywords(builder)
    except ValueError as error:
        raise UsageError(f"`{architecture}` does not tell which arguments it takes", field=FIELD) from error
    if "num_classes" not in names and not takes_any:
        raise UsageError(f"`{architecture}` must take the keyword `num_classes`", field=FIELD)
    for name in architecture_args:
        if name in common_arguments or (name not in names and not takes_any):
            raise UsageError(f"`{architecture}` takes no further argument `{name}`", field="model.architecture_args")
    accepted = {}
    for name, value in common_arguments.items():
        if name in names or (takes_any and value != _SETTINGS_WITHOUT_EFFECT.get(name, ())):
            accepted[name] = value
        elif name in _SETTINGS_WITHOUT_EFFECT and value != _SETTINGS_WITHOUT_EFFECT[name]:
            raise UsageError(f"`{architecture}` takes no {name}", field=f"model.{name}", hint="leave it out")
    return {**accepted, **architecture_args}


def _keywords(builder: Callable) -> tuple[set[str], bool]:
    """Names that ``builder`` can be given as keywords, and whether it takes any others."""
    parameters = inspect.signature(builder).parameters.values()
    by_name = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return by_name, any(p.kind is p.VAR_KEYWORD for p in parameters)
