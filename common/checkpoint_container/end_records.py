"""The end of a zip file: where its directory lies, said up to twice (32 and 64 bit), every field checked."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from common.checkpoint_container.zip_headers import DIRECTORY_SIGNATURE, read_at

_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END_SIGNATURE = b"PK\x05\x06"
_END_64_SIGNATURE = b"PK\x06\x06"
_LOCATOR_SIGNATURE = b"PK\x06\x07"
# Version 3.0 on Unix (PyTorch), or 4.5 (Python), each needing 4.5.
_KNOWN_VERSIONS = ([0x031E, 45], [45, 45])
_MAX_COMMENT_BYTES = 0xFFFF


@dataclass
class EndOfArchive:
    """``directory_offset`` is None where no end was found; ``problems`` are (byte, sentence)."""

    offset: int = 0
    directory_offset: int | None = None
    directory_size: int = 0
    num_records: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Directory:
    num_records: int
    size: int
    offset: int


def find_end(handle: int, size_bytes: int) -> EndOfArchive:
    """Find and check the end records of the file behind descriptor ``handle``."""
    tail_size = min(size_bytes, _MAX_COMMENT_BYTES + _END.size + _LOCATOR.size + _END_64.size)
    tail = read_at(handle, tail_size, size_bytes - tail_size)
    base = size_bytes - tail_size
    end = EndOfArchive()
    at = _end_position(tail)
    if at is None:
        return end
    end.offset = base + at
    short = _short_directory(tail, at, end)
    wide = _wide_directory(tail, at, base, end)
    limit = end.offset - (_LOCATOR.size + _END_64.size if wide else 0)
    _choose(handle, end, short, wide, limit)
    return end


def _end_position(tail: bytes) -> int | None:
    """Where the last record starts. Its signature may be damaged while the two before it still stand."""
    last = len(tail) - _END.size
    if last < 0:
        return None
    neighbours = (_LOCATOR.size, _LOCATOR_SIGNATURE), (_LOCATOR.size + _END_64.size, _END_64_SIGNATURE)
    if any(last >= back and tail.startswith(signature, last - back) for back, signature in neighbours):
        return last
    found = tail.rfind(_END_SIGNATURE, 0, last + len(_END_SIGNATURE))
    return found if found >= 0 else None


def _short_directory(tail: bytes, at: int, end: EndOfArchive) -> _Directory | None:
    signature, disk, directory_disk, here, total, size, offset, comment_length = _END.unpack_from(tail, at)
    if signature != _END_SIGNATURE:
        end.problems.append((end.offset, "the signature of the archive's end record is damaged"))
    if disk or directory_disk or here != total:
        end.problems.append((end.offset + 4, "the archive's end record speaks of several disks"))
    if comment_length != len(tail) - at - _END.size:
        end.problems.append((end.offset + 20, "bytes follow the archive's end record, or its last field is damaged"))
    return _Directory(total, size, offset)


def _wide_directory(tail: bytes, at: int, base: int, end: EndOfArchive) -> _Directory | None:
    """What the 64-bit end record says, where there is one; PyTorch always writes it."""
    locator_at = at - _LOCATOR.size
    record_at = locator_at - _END_64.size
    if record_at < 0 or not (
        tail.startswith(_LOCATOR_SIGNATURE, locator_at) or tail.startswith(_END_64_SIGNATURE, record_at)
    ):
        return None
    if tail[locator_at:at] != _LOCATOR.pack(_LOCATOR_SIGNATURE, 0, base + record_at, 1):
        end.problems.append((base + locator_at, "the locator of the archive's 64-bit end record is damaged"))
    signature, length, *versions, disk, directory_disk, here, total, size, offset = _END_64.unpack_from(tail, record_at)
    sound = signature == _END_64_SIGNATURE and length == _END_64.size - 12 and versions in _KNOWN_VERSIONS
    if not sound or disk or directory_disk or here != total:
        end.problems.append((base + record_at, "the archive's 64-bit end record is damaged"))
    return _Directory(total, size, offset)


def _choose(handle: int, end: EndOfArchive, short: _Directory, wide: _Directory | None, limit: int) -> None:
    """Take the statement that fits the file; where the two differ, say so."""
    if wide is not None and not _agree(short, wide):
        end.problems.append((end.offset, "the archive's two end records disagree"))
    for stated in (wide, short):
        if stated is not None and stated.offset + stated.size == limit:
            _take(end, stated)
            return
    for stated in (wide, short):
        if stated and stated.offset < limit and read_at(handle, 4, stated.offset) == DIRECTORY_SIGNATURE:
            end.problems.append((end.offset, "the directory does not end where the end record starts"))
            _take(end, _Directory(stated.num_records, limit - stated.offset, stated.offset))
            return
    end.problems.append((end.offset, "the archive's end record names no directory"))


def _take(end: EndOfArchive, stated: _Directory) -> None:
    end.num_records, end.directory_size, end.directory_offset = stated.num_records, stated.size, stated.offset


def _agree(short: _Directory, wide: _Directory) -> bool:
    pairs = (
        (short.num_records, wide.num_records, 0xFFFF),
        (short.size, wide.size, 0xFFFFFFFF),
        (short.offset, wide.offset, 0xFFFFFFFF),
    )
    return all(narrow in (full, saturated) for narrow, full, saturated in pairs)
