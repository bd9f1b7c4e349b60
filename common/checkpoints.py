"""Writing checkpoints so that none is ever half there, and loading only what is proven sound."""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import atomic, manifest
from common.checkpoint_container import verify
from common.exits import CheckFailedError, InputFileError
from common.models import build_model

SCHEMA_VERSION = 1


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a state dict, in its order, whatever the layout in memory."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def snapshot(value: Any) -> Any:
    """The same nested value with every tensor copied to the CPU, so that going on with the training leaves it alone."""
    if isinstance(value, Tensor):
        return value.detach().clone() if value.device.type == "cpu" else value.detach().cpu()
    if isinstance(value, dict):
        copied = copy.copy(value)  # a state dict's own type and metadata stay
        for key, item in value.items():
            copied[key] = snapshot(item)
        return copied
    if isinstance(value, (list, tuple)):
        return type(value)(map(snapshot, value))
    return value


def to_bytes(checkpoint: dict) -> bytes:
    """Serialise a checkpoint. The same content gives the same bytes, whatever the file will be called."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


class CheckpointStore:
    """The checkpoint files of one run, and the manifest that holds their hashes.

    One process writes (the holder of the run's lock). A file's new hash enters the manifest before the file is
    replaced, beside the hash of the old one, so that whatever instant the process dies at, what is there is
    accounted for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._entries = manifest.read_manifest(folder)
        self._sha256_on_disk: dict[str, str] = {}

    def save(self, names: Collection[str], content: bytes, *, epoch: int, step: int) -> None:
        """Write ``content`` under every one of ``names``.

        Raises:
            OSError: disk full, folder not writable. What stood there before is still there and still accounted for.
        """
        if not names:
            return
        sha256 = hashlib.sha256(content).hexdigest()
        entries = dict(self._entries)
        for name in names:
            entries[name] = self._next_entry(name, sha256, len(content), epoch, step)
        manifest.write_manifest(self.folder, entries)
        self._entries = entries
        for name in names:
            atomic.write_bytes(self.folder / name, content)
            self._sha256_on_disk[name] = sha256

    def copy(self, name: str, other: str) -> None:
        """Let ``other`` hold what ``name`` holds, so that ``name`` can be written anew; nothing where there is none.

        Raises:
            OSError: as ``save``.
        """
        entry, path = self._entries.get(name), self.folder / name
        if entry is not None and path.is_file():
            self.save([other], path.read_bytes(), epoch=entry.epoch, step=entry.step)

    def prune(self, keep: Collection[str]) -> list[str]:
        """Delete the listed checkpoints that are not in ``keep``, and forget those that could not be written.

        Returns:
            The names that are no longer listed.
        """
        dropped = sorted(name for name in self._entries if name not in keep or not (self.folder / name).is_file())
        for name in dropped:
            (self.folder / name).unlink(missing_ok=True)
            self._sha256_on_disk.pop(name, None)
            del self._entries[name]
        if dropped:
            manifest.write_manifest(self.folder, self._entries)
        return dropped

    def epoch_of(self, name: str) -> int | None:
        """The epoch that the file ``name`` holds, or None where there is no such file or it is not sound."""
        path = self.folder / name
        entry = self._entries.get(name)
        if entry is None or not path.is_file() or manifest.sha256_of_file(path) != entry.sha256:
            return None
        return entry.epoch

    def set_aside_damaged(self) -> list[tuple[Path, str]]:
        """Rename every damaged checkpoint to ``NAME.damaged`` (``.damaged.1``, ...); returns the paths with reasons."""
        moved = []
        for path, reason in manifest.damaged_checkpoints(self.folder):
            target = _first_free(path.with_name(f"{path.name}.damaged"))
            path.replace(target)
            self._entries.pop(path.name, None)
            moved.append((target, reason))
        if moved:
            manifest.write_manifest(self.folder, self._entries)
        return moved

    def lists(self, name: str) -> bool:
        """Whether the manifest has an entry of that name."""
        return name in self._entries

    def adopt(self, name: str, *, epoch: int, step: int) -> None:
        """Enter a sound checkpoint into the manifest that knew of it before it was damaged."""
        path = self.folder / name
        self._entries[name] = manifest.ManifestEntry(manifest.sha256_of_file(path), path.stat().st_size, epoch, step)
        manifest.write_manifest(self.folder, self._entries)

    def sizes(self) -> dict[str, int]:
        """Size in bytes of every checkpoint there is, by name."""
        return {name: (self.folder / name).stat().st_size for name in sorted(self._entries)
                if (self.folder / name).is_file()}  # fmt: skip

    def _next_entry(self, name: str, sha256: str, size: int, epoch: int, step: int) -> manifest.ManifestEntry:
        return manifest.ManifestEntry(sha256, size, epoch, step, previous_sha256=self._sha256_of_current(name))

    def _sha256_of_current(self, name: str) -> str | None:
        """The hash of the file as it lies there, which after a crash need not be what the manifest expected to come."""
        path = self.folder / name
        if name not in self._sha256_on_disk and path.is_file():
            self._sha256_on_disk[name] = manifest.sha256_of_file(path)
        return self._sha256_on_disk.get(name)


def _first_free(path: Path) -> Path:
    candidate, number = path, 0
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}.{number}")
    return candidate


def load_checkpoint(path: str | Path) -> dict:
    """Load one of our checkpoints on the CPU after checking its bytes; nothing in it is executed.

    Raises:
        InputFileError: missing, not a checkpoint, or not one of ours.
        CheckFailedError: damaged, or asking for code to be run.
    """
    path = Path(path)
    report = verify(path, manifest.read_manifest(path.parent).get(path.name) if path.parent.is_dir() else None)
    if report.status == "damaged":
        raise CheckFailedError(
            "is damaged", path=path, hint="checkpoint_inspector.py says where; use another checkpoint"
        )
    try:
        with path.open("rb") as file:
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise CheckFailedError(f"asks for more than plain tensors and was not loaded ({reason})", path=path) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise InputFileError(f"cannot be loaded as a checkpoint ({error})", path=path) from error
    return _checked(checkpoint, path)


def build_from_spec(model_spec: Mapping) -> nn.Module:
    """The untrained model that a checkpoint's ``model_spec`` describes."""
    return build_model(
        model_spec["architecture"],
        input_shape=tuple(model_spec["input_shape"]),
        num_classes=model_spec["num_classes"],
        dropout=model_spec["dropout"],
        hidden_dims=model_spec["hidden_dims"],
        activation=model_spec["activation"],
        architecture_args=model_spec["architecture_args"],
    )


def load_model(checkpoint: Mapping) -> nn.Module:
    """The trained model of a loaded checkpoint, in eval mode: the averaged weights where it has them."""
    model = build_from_spec(checkpoint["model_spec"])
    model.load_state_dict(inference_state(checkpoint))
    return model.eval()


def inference_state(checkpoint: Mapping) -> Mapping[str, Tensor]:
    """The weights to predict with: the exponential moving average where one was kept, else the raw ones."""
    average = checkpoint.get("ema_state_dict")
    return average["model_state_dict"] if average else checkpoint["model_state_dict"]


def _checked(checkpoint: object, path: Path) -> dict:
    if not isinstance(checkpoint, dict) or "model_state_dict" not in checkpoint or "model_spec" not in checkpoint:
        raise InputFileError(
            "is no checkpoint of this trainer (it has no model_state_dict and model_spec)",
            path=path,
            hint="give a .pt file from a run's checkpoints/ folder",
        )
    if checkpoint.get("schema_version", 0) > SCHEMA_VERSION:
        raise InputFileError(
            f"has schema version {checkpoint['schema_version']}, newer than {SCHEMA_VERSION}", path=path
        )
    return checkpoint
