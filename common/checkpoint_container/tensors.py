"""The tensors of a checkpoint by name: dtype, shape, and where their bytes stand; no value is read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from common.checkpoint_container.archive import Record
from common.checkpoint_container.inert_objects import InertCall, StorageRef, TensorRef
from common.checkpoint_container.labels import label

MAX_DEPTH = 64

_ITEM_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "complex128": 16, "complex64": 8, "complex32": 4,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1,
    "float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
    "float4_e2m1fn_x2": 1, "qint32": 4, "qint8": 1, "quint8": 1, "quint4x2": 1, "quint2x4": 1,
}  # fmt: skip
_STORAGE_DTYPES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexDouble": "complex128",
    "ComplexFloat": "complex64", "QInt32": "qint32", "QInt8": "qint8", "QUInt8": "quint8", "QUInt4x2": "quint4x2",
    "QUInt2x4": "quint2x4", "Untyped": "uint8",
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: a strided view of ``storage_key``'s record.

    ``name`` is its path through the checkpoint, joined by ``/`` (``model_state_dict/conv1.weight``), safe to print.
    ``storage_offset`` and ``stride`` count elements; ``file_offset`` counts bytes from the file's start to the first
    element (None where the record is missing or too short); ``dtype`` is PyTorch's name without ``torch.``.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    storage_key: str
    storage_offset: int
    file_offset: int | None
    is_parameter: bool

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def item_bytes(self) -> int | None:
        """Bytes per element; None for a dtype not known here."""
        return _ITEM_BYTES.get(self.dtype)

    @property
    def is_floating(self) -> bool:
        return self.dtype.startswith(("float", "bfloat", "complex"))

    @property
    def span_elements(self) -> int:
        """Elements of the storage from the first to the last one used, both included."""
        if self.num_elements == 0:
            return 0
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))


_WALKED = (TensorRef, InertCall, dict, list, tuple)


def walk_tensors(value: object) -> Iterator[tuple[tuple[str, ...], TensorRef]]:
    """Every tensor in ``value`` with its path, in order; a container met again, or over 64 deep, is passed over."""
    pending: list[tuple[tuple[str, ...], object]] = [((), value)]
    seen: set[int] = set()
    while pending:
        path, current = pending.pop()
        if isinstance(current, TensorRef):
            yield path, current
            continue
        if id(current) in seen or len(path) >= MAX_DEPTH:
            continue
        seen.add(id(current))
        children = [((*path, label(key)), child) for key, child in _children(current) if isinstance(child, _WALKED)]
        pending.extend(reversed(children))


def tensor_entry(path: tuple[str, ...], tensor: TensorRef, records: dict[str, Record]) -> TensorEntry:
    """Describe one tensor; ``records`` are the archive's, by path (``data/0``)."""
    dtype = dtype_of(tensor)
    record = records.get(f"data/{tensor.storage.key}")
    entry = TensorEntry(
        name="/".join(path) or "(the checkpoint itself)",
        dtype=dtype,
        shape=tensor.shape,
        stride=tensor.stride,
        storage_key=tensor.storage.key,
        storage_offset=tensor.offset,
        file_offset=None,
        is_parameter=tensor.is_parameter,
    )
    if record is None or entry.item_bytes is None:
        return entry
    if (entry.storage_offset + entry.span_elements) * entry.item_bytes > record.size:
        return entry
    return dataclasses.replace(entry, file_offset=record.data_offset + entry.storage_offset * entry.item_bytes)


def dtype_of(tensor: TensorRef) -> str:
    return (tensor.dtype_name or "").removeprefix("torch.") or _storage_dtype(tensor.storage)


def storage_bytes(storage: StorageRef) -> int | None:
    """How long the storage's record must be; None for a dtype not known here."""
    item_bytes = _ITEM_BYTES.get(_storage_dtype(storage))
    return None if item_bytes is None else storage.numel * item_bytes


def _storage_dtype(storage: StorageRef) -> str:
    name = storage.type_name.rpartition(".")[2].removesuffix("Storage")
    return _STORAGE_DTYPES.get(name, name)


def _children(value: object) -> Iterator[tuple[object, object]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif isinstance(value, InertCall):
        yield from enumerate(value.arguments)
        yield from _children(value.state)
        yield from enumerate(value.items)
