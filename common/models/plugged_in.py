"""Architectures that are not ours: called, and tried out before a training is built on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from common.exits import UsageError
from common.seeding import preserve_rng

FIELD = "model.architecture"


def build_plugged_in(
    builder: Callable[..., Any],
    arguments: Mapping[str, Any],
    architecture: str,
    input_shape: tuple[int, ...],
    num_classes: int,
) -> nn.Module:
    """The model that ``builder`` returns for ``arguments``, tried on two samples of zeros in eval mode.

    Raises:
        UsageError: the builder or the model fails, or what they return is no model or no logits (B, num_classes).
    """
    try:
        model = builder(**arguments)
    except Exception as error:
        raise _failure(architecture, "building it", error) from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"`{architecture}` returned a {type(model).__name__}, not a torch.nn.Module", field=FIELD)
    try:
        logits_BC = _try_out(model, torch.zeros(2, *input_shape))
    except Exception as error:
        raise _failure(architecture, f"a batch of shape {(2, *input_shape)}", error) from error
    if not isinstance(logits_BC, torch.Tensor) or logits_BC.shape != (2, num_classes):
        found = tuple(logits_BC.shape) if isinstance(logits_BC, torch.Tensor) else type(logits_BC).__name__
        raise UsageError(
            f"`{architecture}` must map a batch of 2 to logits of shape {(2, num_classes)}, not {found}", field=FIELD
        )
    return model


def _try_out(model: nn.Module, batch: torch.Tensor) -> Any:
    was_training = model.training
    with preserve_rng(), torch.no_grad():
        output = model.eval()(batch)
    model.train(was_training)
    return output


def _failure(architecture: str, doing: str, error: Exception) -> UsageError:
    return UsageError(f"`{architecture}` failed at {doing} with {type(error).__name__}: {error}", field=FIELD)
