"""The three headers that a zip file keeps for each record, taken apart without judging them.

Source: PKWARE APPNOTE 6.3.9: 4.3.7 (local header), 4.3.9 (descriptor), 4.3.12 (directory), 4.5.3 (64-bit numbers).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from common.checkpoint_container.labels import label

LOCAL_SIGNATURE = b"PK\x03\x04"
DIRECTORY_SIGNATURE = b"PK\x01\x02"
DESCRIPTOR_SIGNATURE = b"PK\x07\x08"
SATURATED = 0xFFFFFFFF
HAS_DESCRIPTOR = 0x0008
ZIP64_ID = 0x0001
PADDING_ID = int.from_bytes(b"FB", "little")  # PyTorch's own, to align the data

DESCRIPTOR = struct.Struct("<4s3I")
DESCRIPTOR_64 = struct.Struct("<4sI2Q")
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_DIRECTORY_ENTRY = struct.Struct("<4s6H3I5H2I")
_FIRST_READ_BYTES = 512

Extras = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class DirectoryEntry:
    """One entry of the directory, with 64-bit numbers filled in; ``position`` and offsets count from the file's start.

    ``shared`` is what the local header repeats: version needed, flags, method, time, date. ``lone`` is what only the
    directory says: version made by, disk, internal and external attributes.
    """

    position: int
    length: int
    name: bytes
    shared: tuple[int, ...]
    lone: tuple[int, ...]
    crc32: int
    compressed_size: int
    size: int
    header_offset: int
    extras: Extras
    has_comment: bool


@dataclass(frozen=True)
class LocalHeader:
    """The header in front of a record's data; ``extras`` is None where they do not fill their space exactly."""

    signature_sound: bool
    length: int
    name: bytes
    shared: tuple[int, ...]
    crc32: int
    compressed_size: int
    size: int
    extras: Extras | None


def read_at(handle: int, length: int, offset: int) -> bytes:
    """``length`` bytes of a file at ``offset``; fewer where it ends, none where the offset is absurd."""
    return os.pread(handle, length, offset) if 0 <= offset < 2**62 and length > 0 else b""


def text(raw: bytes) -> str:
    """A record's name as it may be printed."""
    return label(raw.decode("utf-8", errors="backslashreplace"))


def parse_directory_entry(raw: bytes, start: int, position: int) -> DirectoryEntry | None:
    """The entry at ``raw[start:]``, which stands at byte ``position`` of the file; None where it is unreadable."""
    if start + _DIRECTORY_ENTRY.size > len(raw):
        return None
    signature, made_by, *shared, crc32, compressed, size, name_length, extra_length, comment_length, disk, internal, \
        external, header_offset = _DIRECTORY_ENTRY.unpack_from(raw, start)  # fmt: skip
    name_start = start + _DIRECTORY_ENTRY.size
    extra_start = name_start + name_length
    extras = parse_extras(raw[extra_start : extra_start + extra_length])
    length = _DIRECTORY_ENTRY.size + name_length + extra_length + comment_length
    if signature != DIRECTORY_SIGNATURE or start + length > len(raw) or extras is None:
        return None
    wide = iter(wide_numbers(extras))
    size, compressed, header_offset = (
        next(wide, number) if number == SATURATED else number for number in (size, compressed, header_offset)
    )
    return DirectoryEntry(
        position=position,
        length=length,
        name=raw[name_start:extra_start],
        shared=tuple(shared),
        lone=(made_by, disk, internal, external),
        crc32=crc32,
        compressed_size=compressed,
        size=size,
        header_offset=header_offset,
        extras=extras,
        has_comment=comment_length > 0,
    )


def read_local_header(handle: int, offset: int) -> LocalHeader | None:
    """The header at byte ``offset``; None where the file ends before it does."""
    raw = read_at(handle, _FIRST_READ_BYTES, offset)
    if len(raw) < _LOCAL_HEADER.size:
        return None
    signature, *shared, crc32, compressed, size, name_length, extra_length = _LOCAL_HEADER.unpack_from(raw)
    extra_start = _LOCAL_HEADER.size + name_length
    length = extra_start + extra_length
    if length > len(raw):
        raw = read_at(handle, length, offset)
    return LocalHeader(
        signature_sound=signature == LOCAL_SIGNATURE,
        length=length,
        name=raw[_LOCAL_HEADER.size : extra_start],
        shared=tuple(shared),
        crc32=crc32,
        compressed_size=compressed,
        size=size,
        extras=parse_extras(raw[extra_start:length]) if length <= len(raw) else None,
    )


def parse_extras(raw: bytes) -> Extras | None:
    """Extra fields as (id, content); None where they do not fill ``raw`` exactly."""
    found = []
    position = 0
    while position + 4 <= len(raw):
        identity, length = struct.unpack_from("<2H", raw, position)
        found.append((identity, raw[position + 4 : position + 4 + length]))
        position += 4 + length
    return tuple(found) if position == len(raw) else None


def wide_numbers(extras: Extras) -> list[int]:
    """The 64-bit numbers that stand in for saturated 32-bit ones."""
    for identity, content in extras:
        if identity == ZIP64_ID:
            return [number for (number,) in struct.iter_unpack("<Q", content[: len(content) // 8 * 8])]
    return []
