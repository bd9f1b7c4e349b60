"""Whether a checkpoint's bytes are those that were written: every byte against checksums and the manifest."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from common.checkpoint_container.archive import Record
from common.checkpoint_container.description import CheckpointDescription, Damage, describe

if TYPE_CHECKING:
    from common.manifest import ManifestEntry

_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class IntegrityReport:
    """The outcome of ``verify``.

    ``status`` is ``ok`` where every byte is covered by checksums that hold, ``unverifiable`` where nothing is wrong but
    the file has no checksums and the manifest does not know it. ``matches_manifest`` is None without an entry.
    """

    status: Literal["ok", "damaged", "unverifiable"]
    damages: tuple[Damage, ...]
    num_records_checked: int
    matches_manifest: bool | None


def verify(
    path: str | Path, manifest_entry: ManifestEntry | None = None, *, description: CheckpointDescription | None = None
) -> IntegrityReport:
    """Check every byte of the checkpoint at ``path``.

    The records' data is checked against CRC-32, all other bytes by the strict reading of the container, and all of it
    against the manifest's SHA-256 where ``manifest_entry`` is given.

    Args:
        description: what ``describe(path)`` returned, to spare describing the file again.
    Raises:
        NotACheckpointError: missing, empty, or something else than a checkpoint.
    """
    path = Path(path)
    description = description or describe(path)
    damages = [*description.damages]
    num_checked = 0
    if description.has_checksums:
        damages += _checksum_damages(path, description)
        num_checked = len(description.records)
    matches = None
    if manifest_entry is not None:
        matches = sha256_of_file(path) in (manifest_entry.sha256, manifest_entry.previous_sha256)
    if matches is False and not damages:
        damages.append(Damage("the file is not the one that manifest.json lists: its SHA-256 differs"))
    otherwise = "ok" if num_checked or matches else "unverifiable"
    return IntegrityReport("damaged" if damages else otherwise, tuple(damages), num_checked, matches)


def sha256_of_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb", buffering=0) as file:
        for block in _blocks(file.fileno(), 0, os.fstat(file.fileno()).st_size):
            digest.update(block)
    return digest.hexdigest()


def _checksum_damages(path: Path, description: CheckpointDescription) -> Iterator[Damage]:
    with path.open("rb", buffering=0) as file:
        for record in description.records:
            if _crc32(file.fileno(), record) != record.crc32:
                what = "its bytes do not match their checksum (CRC-32)"
                tensors = description.tensors_of_record(record.names)
                yield Damage(what, record.name, record.data_offset, tensors)


def _crc32(handle: int, record: Record) -> int:
    checksum = 0
    for block in _blocks(handle, record.data_offset, record.size):
        checksum = zlib.crc32(block, checksum)
    return checksum


def _blocks(handle: int, offset: int, length: int) -> Iterator[memoryview]:
    """The bytes in turn, in one buffer that each step overwrites."""
    buffer = memoryview(bytearray(min(_BLOCK_BYTES, length)))
    while length > 0:
        count = os.preadv(handle, [buffer[: min(length, len(buffer))]], offset)
        if count == 0:
            return
        yield buffer[:count]
        offset += count
        length -= count
