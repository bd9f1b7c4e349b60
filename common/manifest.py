"""``checkpoints/manifest.json``: the SHA-256, size and position of each checkpoint, and which of them are sound.

The file is ``{"schema_version": 1, "files": {NAME: {"sha256", "size_bytes", "epoch", "step", "previous_sha256"}},
"checksum"}``. The checksum (SHA-256 of ``files`` as canonical JSON) tells a damaged manifest from damaged checkpoints;
a manifest without one, or without ``previous_sha256``, is accepted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from common import atomic
from common.checkpoint_container import NotACheckpointError, describe, sha256_of_file, verify

__all__ = [
    "Manifest",
    "ManifestEntry",
    "checkpoint_files",
    "checkpoint_folder",
    "damaged_checkpoints",
    "iterate_sound_checkpoints",
    "load_manifest",
    "manifest_entry",
    "read_manifest",
    "sha256_of_file",
    "sound_checkpoints",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
CHECKPOINT_SUFFIXES = (".pt", ".pth")
_MAX_MANIFEST_BYTES = 16 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"sha256", "size_bytes", "epoch", "step"}


@dataclass(frozen=True)
class ManifestEntry:
    """What one checkpoint is: its bytes, and how far training was (``step`` counts optimiser steps from the start).

    An entry is written before its file is replaced. ``previous_sha256`` is that of the file it replaces, which still
    stands if the writer was stopped between the two; None where there was none.
    """

    sha256: str
    size_bytes: int
    epoch: int
    step: int
    previous_sha256: str | None = None


@dataclass(frozen=True)
class Manifest:
    """``entries`` is empty unless ``state`` is ``present``; ``reason`` says what is wrong with a damaged one."""

    state: Literal["present", "missing", "damaged"]
    entries: Mapping[str, ManifestEntry] = field(default_factory=dict)
    reason: str | None = None


def read_manifest(folder: str | Path) -> dict[str, ManifestEntry]:
    """The entries by file name; empty where the manifest is missing or damaged (``load_manifest`` tells which)."""
    return dict(load_manifest(folder).entries)


def load_manifest(folder: str | Path) -> Manifest:
    """Read and check ``folder/manifest.json``; never raises for what the file holds."""
    path = Path(folder) / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Manifest("missing")
    except OSError as error:
        return Manifest("damaged", reason=f"cannot be read ({error.strerror})")
    try:
        return Manifest("present", _checked_entries(raw))
    except (ValueError, RecursionError) as error:
        return Manifest("damaged", reason=str(error))


def write_manifest(folder: str | Path, entries: Mapping[str, ManifestEntry]) -> None:
    """Replace ``folder/manifest.json`` in one step.

    Raises:
        OSError: the disk is full, or the folder is not writable; the old manifest then stands.
    """
    files = {name: asdict(entry) for name, entry in sorted(entries.items())}
    content = {"schema_version": SCHEMA_VERSION, "files": files, "checksum": _checksum(files)}
    atomic.write_text(Path(folder) / MANIFEST_NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def manifest_entry(checkpoint: str | Path) -> ManifestEntry | None:
    """The entry of a checkpoint in the manifest beside it."""
    checkpoint = Path(checkpoint)
    return load_manifest(checkpoint.parent).entries.get(checkpoint.name)


# The checkpoints of a folder.


def checkpoint_folder(folder: str | Path) -> Path:
    """Where the checkpoints are: ``folder/checkpoints`` of a run folder, else ``folder`` itself."""
    folder = Path(folder)
    inner = folder / "checkpoints"
    return inner if inner.is_dir() and not checkpoint_files(folder) else folder


def checkpoint_files(folder: str | Path) -> list[Path]:
    """The files in ``folder`` that are named like checkpoints, by name; temporary ones begin with a dot."""
    files = (path for path in Path(folder).iterdir() if path.suffix in CHECKPOINT_SUFFIXES and path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))


def sound_checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints whose every byte is as written, newest first by (step, epoch).

    A file that the manifest does not list, or whose manifest is missing or damaged, is judged by its own checksums. A
    file that cannot be verified is not sound.

    Raises:
        OSError: the folder cannot be read.
    """
    return list(iterate_sound_checkpoints(folder))


def iterate_sound_checkpoints(folder: str | Path) -> Iterator[Path]:
    """``sound_checkpoints`` one by one: a file is only verified when it is its turn."""
    folder = checkpoint_folder(folder)
    entries = read_manifest(folder)
    for path in _newest_first(folder, entries):
        if _status(path, entries.get(path.name))[0] == "ok":
            yield path


def damaged_checkpoints(folder: str | Path) -> list[tuple[Path, str]]:
    """The checkpoints of ``folder`` that something is wrong with, by name, each with what it is.

    A file that cannot be verified, or is of another kind without the manifest knowing it, is neither sound nor damaged.

    Raises:
        OSError: the folder cannot be read.
    """
    folder = checkpoint_folder(folder)
    entries = read_manifest(folder)
    judged = ((path, *_status(path, entries.get(path.name))) for path in checkpoint_files(folder))
    return [(path, reason) for path, status, reason in judged if status == "damaged"]


def _status(path: Path, entry: ManifestEntry | None) -> tuple[str, str]:
    """``ok``, ``damaged``, ``unverifiable`` or ``other``, and what is wrong."""
    try:
        report = verify(path, entry)
    except NotACheckpointError as error:
        is_remains = entry is not None or error.kind in ("empty", "unknown")
        return ("damaged" if is_remains else "other"), error.message
    return report.status, str(report.damages[0]) if report.damages else ""


def _newest_first(folder: Path, entries: Mapping[str, ManifestEntry]) -> list[Path]:
    """Newest first; of several at the same step the last saved state before the best, then by name."""

    def rank(path: Path) -> tuple[int, int, bool, str]:
        step, epoch = _position(path, entries.get(path.name))
        return (-step, -epoch, "best" in path.name, path.name)

    return sorted(checkpoint_files(folder), key=rank)


def _position(path: Path, entry: ManifestEntry | None) -> tuple[int, int]:
    """What the file says itself, since an entry may be newer than its file; the entry where the file says nothing."""
    try:
        described = describe(path)
    except NotACheckpointError:
        return -1, -1
    step = described.step if described.step is not None else entry.step if entry else -1
    epoch = described.epoch if described.epoch is not None else entry.epoch if entry else -1
    return step, epoch


# The manifest's own form.


def _checked_entries(raw: bytes) -> dict[str, ManifestEntry]:
    if len(raw) > _MAX_MANIFEST_BYTES:
        raise ValueError(f"it is longer than {_MAX_MANIFEST_BYTES} bytes")
    try:
        content = json.loads(raw)
    except ValueError:
        raise ValueError("it is not valid JSON") from None
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"its schema_version is not {SCHEMA_VERSION}")
    files = content.get("files")
    if not isinstance(files, dict):
        raise ValueError("it has no list of files")
    if "checksum" in content and content["checksum"] != _checksum(files):
        raise ValueError("its own checksum does not match")
    return {name: _checked_entry(name, fields) for name, fields in files.items()}


def _checked_entry(name: str, fields: object) -> ManifestEntry:
    if not name or "/" in name or "\\" in name or name.startswith("."):
        raise ValueError(f"{name!r} is not the name of a checkpoint")
    if not isinstance(fields, dict) or not fields.keys() >= _FIELDS:
        raise ValueError(f"the entry of {name!r} lacks fields")
    counts = [fields[key] for key in ("size_bytes", "epoch", "step")]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"the entry of {name!r} holds something else than counts")
    previous = fields.get("previous_sha256")
    if not _is_sha256(fields["sha256"]) or not (previous is None or _is_sha256(previous)):
        raise ValueError(f"the entry of {name!r} has no SHA-256")
    return ManifestEntry(fields["sha256"], *counts, previous)


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _checksum(files: Mapping[str, object]) -> str:
    canonical = json.dumps(files, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()
