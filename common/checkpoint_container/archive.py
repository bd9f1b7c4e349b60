"""The zip container of a checkpoint, read strictly: every byte outside the records has one right value.

``torch.save`` writes a very regular zip file: each record starts where the one before it ended, is stored uncompressed
after a header padded with ``Z``, and is followed by a descriptor that repeats its checksum and size; the directory
repeats the headers; three end records repeat the directory's place. So a damaged byte outside the records' data (which
CRC-32 covers) shows as a disagreement, without any outside knowledge.

Sources: PKWARE APPNOTE 6.3.9; PyTorch ``caffe2/serialize/inline_container.cc`` and its copy of miniz.
"""

from __future__ import annotations

import dataclasses
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from common.checkpoint_container.end_records import EndOfArchive, find_end
from common.checkpoint_container.zip_headers import (
    DESCRIPTOR,
    DESCRIPTOR_64,
    DESCRIPTOR_SIGNATURE,
    HAS_DESCRIPTOR,
    PADDING_ID,
    SATURATED,
    ZIP64_ID,
    DirectoryEntry,
    LocalHeader,
    parse_directory_entry,
    read_at,
    read_local_header,
    text,
    wide_numbers,
)

MAX_RECORDS = 200_000
MAX_DIRECTORY_BYTES = 64 * 2**20
_SEARCH_BYTES = 2**20
_NUM_PROBED = 5


@dataclass(frozen=True)
class Problem:
    """A disagreement in the container: what, at which byte, and in which record (under its one or two names)."""

    what: str
    offset: int
    record_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """One record: ``name`` as the directory has it, ``local_name`` as its own header has it; sizes in bytes."""

    name: str
    local_name: str
    header_offset: int
    data_offset: int
    size: int
    crc32: int

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,) if self.name == self.local_name else (self.name, self.local_name)


@dataclass
class Archive:
    """All records that could be found, and every disagreement between what describes them."""

    size_bytes: int
    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    truncated: bool = False

    @property
    def has_checksums(self) -> bool:
        """False where the writer left all checksums at 0 (``torch.serialization.set_crc32_options(False)``)."""
        return any(record.crc32 for record in self.records)

    def by_path(self) -> dict[str, Record]:
        """Records by their path below the archive's folder (``data.pkl``, ``data/0``), under either of their names."""
        found: dict[str, Record] = {}
        for record in sorted(self.records, key=lambda record: len(record.names)):
            for name in record.names:
                found.setdefault(name.partition("/")[2], record)
        return found


def read_archive(handle: int, size_bytes: int) -> Archive:
    """Read headers, directory and end records (never the records' data) of the file behind descriptor ``handle``."""
    archive = Archive(size_bytes)
    end = find_end(handle, size_bytes)
    archive.problems += [Problem(what, offset) for offset, what in end.problems]
    if end.directory_offset is None:
        archive.truncated = not end.problems
        _walk_headers(handle, archive, 0)
        return archive
    entries = list(_directory(handle, archive, end))
    if not entries:
        _walk_headers(handle, archive, 0)
    elif _is_from_torch(handle, entries):
        _check_uniform(archive, entries)
        _read_regular(handle, archive, end, entries)
    else:
        _read_foreign(handle, archive, entries)
    return archive


# The directory.


def _directory(handle: int, archive: Archive, end: EndOfArchive) -> Iterator[DirectoryEntry]:
    """The entries up to the first unreadable one; from there on the headers themselves have to serve."""
    if end.directory_size > MAX_DIRECTORY_BYTES or end.num_records > MAX_RECORDS:
        what = f"an absurd directory of {end.num_records} records in {end.directory_size} bytes"
        archive.problems.append(Problem(what, end.offset))
        return
    raw = read_at(handle, end.directory_size, end.directory_offset)
    start = 0
    for number in range(end.num_records):
        position = end.directory_offset + start
        entry = parse_directory_entry(raw, start, position)
        if entry is None:
            what = f"directory entry {number + 1} of {end.num_records} is unreadable"
            archive.problems.append(Problem(what, position))
            return
        yield entry
        start += entry.length
    if start != len(raw):
        archive.problems.append(Problem("the directory is longer than its entries", end.directory_offset + start))


def _is_from_torch(handle: int, entries: list[DirectoryEntry]) -> bool:
    """Whether most of the first headers carry PyTorch's padding; other writers leave more freedom in the headers."""
    headers = [read_local_header(handle, entry.header_offset) for entry in entries[:_NUM_PROBED]]
    padded = [bool(header and header.extras and header.extras[-1][0] == PADDING_ID) for header in headers]
    return sum(padded) * 2 > len(padded)


def _check_uniform(archive: Archive, entries: list[DirectoryEntry]) -> None:
    """What only the directory says is the same in all entries of a file that PyTorch wrote."""
    usual = Counter(entry.lone for entry in entries).most_common(1)[0][0]
    for entry in entries:
        foreign_extra = any(identity != ZIP64_ID for identity, _ in entry.extras)
        if entry.lone != usual or entry.has_comment or foreign_extra:
            what = "its directory entry differs from all others in a field that should be the same"
            archive.problems.append(Problem(what, entry.position, (text(entry.name),)))


# Records as PyTorch writes them.


def _read_regular(handle: int, archive: Archive, end: EndOfArchive, entries: list[DirectoryEntry]) -> None:
    expected = 0
    for entry in entries:
        entry = _at_its_place(handle, archive, entry, expected)
        header = read_local_header(handle, entry.header_offset)
        if header is None or not _add_record(archive, entry, header):
            continue
        descriptor = _descriptor_after(handle, entry, header)
        complaints = [*_disagreements(entry, header), *_irregularities(entry, header)]
        if descriptor is None:
            complaints.append("the descriptor after it disagrees with the directory")
        record = archive.records[-1]
        archive.problems += [Problem(what, record.header_offset, record.names) for what in complaints]
        expected = record.data_offset + record.size + (descriptor or _likely_descriptor(entry)).size
    if len(entries) < end.num_records:
        _walk_headers(handle, archive, expected)
    elif expected != end.directory_offset and not archive.problems:
        archive.problems.append(Problem("the directory does not start where the last record ends", expected))


def _at_its_place(handle: int, archive: Archive, entry: DirectoryEntry, expected: int) -> DirectoryEntry:
    """The entry, moved to where the record before it ended if nothing stands where the entry points to."""
    if entry.header_offset == expected:
        return entry
    names = (text(entry.name),)
    pointed_to = read_local_header(handle, entry.header_offset)
    if pointed_to and pointed_to.signature_sound and pointed_to.name == entry.name:
        # The record is there, so a size before it must be wrong; the header with that size has been named.
        archive.problems.append(Problem("it does not start where the record before it ends", expected, names))
        return entry
    archive.problems.append(Problem("its directory entry points to another place", entry.position, names))
    return dataclasses.replace(entry, header_offset=expected)


def _irregularities(entry: DirectoryEntry, header: LocalHeader) -> Iterator[str]:
    if (header.crc32, header.compressed_size, header.size) != (0, 0, 0):
        yield "its header states a size or checksum, which belongs into the descriptor after it"
    if header.extras is None or not header.extras or not all(_is_sound_extra(entry, *extra) for extra in header.extras):
        yield "the padding of its header is damaged"


def _is_sound_extra(entry: DirectoryEntry, identity: int, content: bytes) -> bool:
    if identity == PADDING_ID:
        return not content.strip(b"Z")
    stated = wide_numbers(((identity, content),))
    return identity == ZIP64_ID and set(stated) <= {0, entry.size, entry.header_offset}


def _descriptor_after(handle: int, entry: DirectoryEntry, header: LocalHeader) -> struct.Struct | None:
    """The form of the descriptor after a record's data; None where neither form says what the directory says."""
    raw = read_at(handle, DESCRIPTOR_64.size, entry.header_offset + header.length + entry.size)
    for layout in (DESCRIPTOR, DESCRIPTOR_64):
        fits = entry.size < SATURATED or layout is DESCRIPTOR_64
        if fits and raw[: layout.size] == layout.pack(DESCRIPTOR_SIGNATURE, entry.crc32, entry.size, entry.size):
            return layout
    return None


def _likely_descriptor(entry: DirectoryEntry) -> struct.Struct:
    return DESCRIPTOR_64 if wide_numbers(entry.extras) else DESCRIPTOR


# Records as any zip writer writes them.


def _read_foreign(handle: int, archive: Archive, entries: list[DirectoryEntry]) -> None:
    for entry in entries:
        header = read_local_header(handle, entry.header_offset)
        if header is None or not _add_record(archive, entry, header):
            continue
        record = archive.records[-1]
        complaints = list(_disagreements(entry, header))
        if not _sizes_agree(entry, header):
            complaints.append("its header and its directory entry disagree about size or checksum")
        archive.problems += [Problem(what, record.header_offset, record.names) for what in complaints]
    if sum(record.size for record in archive.records) > archive.size_bytes:
        archive.problems.append(Problem("its records overlap", 0))


def _sizes_agree(entry: DirectoryEntry, header: LocalHeader) -> bool:
    """With a descriptor after the data, the header may leave size and checksum at 0."""
    blank = {0} if entry.shared[1] & HAS_DESCRIPTOR else set()
    sizes_agree = {header.compressed_size, header.size} <= {SATURATED, entry.size} | blank
    return sizes_agree and header.crc32 in {entry.crc32} | blank


# Both.


def _add_record(archive: Archive, entry: DirectoryEntry, header: LocalHeader) -> bool:
    data_offset = entry.header_offset + header.length
    names = (text(entry.name), text(header.name))
    if data_offset + entry.size > archive.size_bytes:
        archive.problems.append(Problem("it reaches beyond the end of the file", entry.position, names[:1]))
        return False
    archive.records.append(Record(*names, entry.header_offset, data_offset, entry.size, entry.crc32))
    return True


def _disagreements(entry: DirectoryEntry, header: LocalHeader) -> Iterator[str]:
    if not header.signature_sound:
        yield "the signature of its header is damaged"
    if header.name != entry.name:
        yield f"its header calls it {text(header.name)!r}, the directory {text(entry.name)!r}"
    if header.shared != entry.shared:
        yield "its header and its directory entry disagree"
    if entry.shared[2] != 0 or entry.compressed_size != entry.size:
        yield "it is compressed, which PyTorch never does and which could hide any size"


# Without a directory.


def _walk_headers(handle: int, archive: Archive, offset: int) -> None:
    """Add the complete records from ``offset`` on, as far as one follows the other."""
    while len(archive.records) < MAX_RECORDS:
        header = read_local_header(handle, offset)
        if header is None or not header.signature_sound or header.extras is None:
            return
        data_offset = offset + header.length
        found = _search_descriptor(handle, archive.size_bytes, data_offset)
        if found is None:
            return
        crc32, size, length = found
        name = text(header.name)
        archive.records.append(Record(name, name, offset, data_offset, size, crc32))
        offset = data_offset + size + length


def _search_descriptor(handle: int, size_bytes: int, data_offset: int) -> tuple[int, int, int] | None:
    """The first descriptor after ``data_offset`` that states its own distance: (checksum, size, its length)."""
    position = data_offset
    while position < size_bytes:
        # The overlap keeps a descriptor that lies across the border of two reads whole.
        block = read_at(handle, _SEARCH_BYTES + DESCRIPTOR_64.size, position)
        at = block.find(DESCRIPTOR_SIGNATURE)
        while 0 <= at < _SEARCH_BYTES:
            distance = position + at - data_offset
            for layout in (DESCRIPTOR, DESCRIPTOR_64):
                if at + layout.size <= len(block):
                    _, crc32, compressed, size = layout.unpack_from(block, at)
                    if compressed == size == distance:
                        return crc32, size, layout.size
            at = block.find(DESCRIPTOR_SIGNATURE, at + 1)
        position += _SEARCH_BYTES
    return None
