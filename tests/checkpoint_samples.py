"""Checkpoints as PyTorch really writes them, small enough to be damaged byte by byte."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import nn

MODEL_SPEC = {
    "architecture": "simple_mlp",
    "architecture_args": {},
    "input_shape": [4],
    "num_classes": 3,
    "dropout": 0.0,
    "hidden_dims": [5],
    "activation": "relu",
    "num_parameters": 43,
}


def checkpoint(model: nn.Module | None = None, *, epoch: int = 5, step: int = 50, **changes: object) -> dict:
    """A checkpoint of our own schema, with the optimiser's state after one step."""
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(6, 4)).sum().backward()
    optimizer.step()
    return {
        "schema_version": 1,
        "epoch": epoch,
        "step": step,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "val_loss": 0.745,
        "val_acc": 78.9,
        "metrics": {"val_f1": 0.781, "val_loss": 0.745, "lr": 1e-05},
        **changes,
    }


def save(content: object, path: Path) -> Path:
    """``torch.save`` to a file object, as our trainer does; returns ``path``."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getvalue())
    return path


def save_without_checksums(content: object, path: Path) -> Path:
    """The same with PyTorch's CRC-32 turned off."""
    torch.serialization.set_crc32_options(False)
    try:
        return save(content, path)
    finally:
        torch.serialization.set_crc32_options(True)


def flip(path: Path, offset: int) -> None:
    """Invert one byte of the file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)


class RunsCode:
    """Unpickling this calls ``os.system``, as an attacker's file would."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        import os

        return os.system, (self.command,)
