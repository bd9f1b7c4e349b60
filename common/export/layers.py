"""Which layer of a model an exporter stumbled over."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_OPERATOR = re.compile(r"\b([a-z_]+::\w+)")
_CUSTOM_MODULE_SCOPE = re.compile(r"(?:__module\.)+")


class LayerTrail:
    """The innermost layer that a forward pass was in when it ended with an exception."""

    def __init__(self) -> None:
        self._open: list[str] = []

    @property
    def innermost(self) -> str | None:
        """Dotted name of the layer, ``""`` for the model itself; None where the pass went through."""
        return self._open[-1] if self._open else None

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[LayerTrail]:
        """Follow every layer of ``model`` while the block runs."""
        handles = []
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(self._entering(name)))
            handles.append(module.register_forward_hook(self._leaving))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _entering(self, name: str) -> Any:
        def enter(module: nn.Module, inputs: object) -> None:
            self._open.append(name)

        return enter

    def _leaving(self, module: nn.Module, inputs: object, output: object) -> None:
        self._open.pop()


def operator_in(message: str) -> str | None:
    """The first operator that an exporter's message names, such as ``aten::unique_dim``."""
    found = _OPERATOR.search(message)
    return found.group(1) if found else None


def layer_of_operator(model: nn.Module, example: Tensor, operator: str) -> str | None:
    """Dotted name of the first layer that uses ``operator``, ``""`` for the model itself; None where none does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, example, check_trace=False)
    graph = traced.inlined_graph
    for node in graph.findAllNodes(operator):
        innermost = node.scopeName().rsplit("/", 1)[-1]
        return _CUSTOM_MODULE_SCOPE.sub("", innermost).removeprefix("__module")
    return None


def spoken(layer: str | None) -> str:
    """``layer block1.0``, or how to say that it is not known."""
    if layer is None:
        return "an unknown layer"
    return f"layer {layer}" if layer else "the model's own forward"
