"""Starting from weights that were trained elsewhere."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from common.exits import InputFileError

_LOGGER = logging.getLogger("ml_trainer")
FIELD = "model.pretrained"
# Where the weights stand inside a checkpoint, and what wrappers put before every name.
_NESTED_KEYS = ("model_state_dict", "state_dict", "model")
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")


def load_pretrained(model: nn.Module, path: str | Path) -> list[str]:
    """Copy the weights in ``path`` into ``model``; nothing in the file is executed.

    The file is a state dict, or a checkpoint that holds one. The first layer and the classifier follow the data, so
    these two may be missing or of another shape: they then keep their initialisation, and the log says so. Everything
    between must be there in the same shape.

    Returns:
        The names of parameters and buffers that kept their initialisation.
    Raises:
        InputFileError: no such file, not a state dict, or made for another architecture.
    """
    found = _state_dict_in(_load(path), path)
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in found.items() if name in own and own[name].shape == tensor.shape}
    kept = [name for name in own if name not in fitting]
    adaptable = _first_and_last_layer(model)
    # Files from before PyTorch 0.4.1 lack this counter, and nothing but a momentum of None reads it.
    misfits = [name for name in kept if name not in adaptable and not name.endswith(".num_batches_tracked")]
    if misfits:
        raise InputFileError(
            _misfit(misfits, found, own), path=path, field=FIELD, hint="use weights of that architecture"
        )
    model.load_state_dict(fitting, strict=False)
    if kept := [name for name in kept if name in adaptable]:
        _LOGGER.warning("%s: %s keep their initialisation (missing there or of another shape)", path, ", ".join(kept))
    return kept


def _load(path: str | Path) -> object:
    try:
        with open(path, "rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputFileError(f"cannot be read ({error.strerror})", path=path, field=FIELD) from error
    except pickle.UnpicklingError as error:
        message = "holds more than tensors, or is no PyTorch file, and was not loaded"
        raise InputFileError(message, path=path, field=FIELD, hint="save model.state_dict() alone") from error
    except Exception as error:
        # On damaged bytes PyTorch's reader raises whatever they happen to run into: IndexError, struct.error, ...
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputFileError(f"is damaged or no PyTorch file ({reason})", path=path, field=FIELD) from error


def _state_dict_in(content: object, path: str | Path) -> dict[str, Tensor]:
    for key in _NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputFileError("holds no state dict of tensors by name", path=path, field=FIELD)
    return {_unwrapped(str(name)): tensor for name, tensor in content.items()}


def _unwrapped(name: str) -> str:
    for prefix in _WRAPPER_PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _first_and_last_layer(model: nn.Module) -> set[str]:
    """Parameter names of the layer that sees the data and of the classifier."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    ends = {f"{layers[0]}.", f"{layers[-1]}."} if layers else set()
    return {name for name, _ in model.named_parameters() if name.startswith(tuple(ends))} if ends else set()


def _misfit(misfits: list[str], found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    name = misfits[0]
    wanted = tuple(own[name].shape)
    there = f"is {tuple(found[name].shape)} there and {wanted} here" if name in found else "is missing there"
    more = f" (and {len(misfits) - 1} more)" if len(misfits) > 1 else ""
    return f"does not fit the model: `{name}` {there}{more}"
