"""Loads a checkpoint for real, in a process of its own: ``python -m common.checkpoint_load_probe PATH``.

Prints one JSON object: ``loaded``, ``model`` (the architecture whose model took the weights, or null), ``reason``.
Only architectures of this project are built: a checkpoint that names an import path would choose which code runs here.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Mapping

import torch

from common.checkpoints import build_from_spec, load_checkpoint
from common.exits import ToolError
from common.import_path import is_import_path


def probe(path: str) -> dict[str, object]:
    """Load the file with ``weights_only=True`` and, where it has a ``model_spec``, build its model with its weights."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, OSError) as error:
        return {"loaded": False, "model": None, "reason": f"torch.load refuses it ({_first_line(error)})"}
    if not isinstance(checkpoint, Mapping) or "model_spec" not in checkpoint:
        return {"loaded": True, "model": None, "reason": "it has no model_spec, so no model was built"}
    del checkpoint
    return _build(path)


def _build(path: str) -> dict[str, object]:
    try:
        checkpoint = load_checkpoint(path)
        architecture = str(checkpoint["model_spec"]["architecture"])
        if is_import_path(architecture):
            reason = f"its model is your own code ({architecture}), which was not run"
            return {"loaded": True, "model": None, "reason": reason}
        model = build_from_spec(checkpoint["model_spec"])
        model.load_state_dict(checkpoint["model_state_dict"])
    except ToolError as error:
        return {"loaded": False, "model": None, "reason": error.message}
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        return {"loaded": False, "model": None, "reason": f"its model cannot be built ({_first_line(error)})"}
    return {"loaded": True, "model": architecture, "reason": None}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().split("\n")[0]


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1])))
