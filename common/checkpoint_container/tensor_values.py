"""Values in a checkpoint's tensors that no healthy training leaves: not finite, all zero, all the same."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.checkpoint_container.description import CheckpointDescription
from common.checkpoint_container.tensors import TensorEntry
from common.checkpoint_container.zip_headers import read_at

if TYPE_CHECKING:
    import numpy as np

_BLOCK_ELEMENTS = 2**18
_MAX_STRIDED_ELEMENTS = 2**24
# bfloat16 is the upper half of a float32 (so two zero bytes in front make one); a complex number is two reals.
_READ_AS = {
    "float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "complex128": "<f8", "complex64": "<f4",
    "complex32": "<f2",
}  # fmt: skip


@dataclass(frozen=True)
class ValueProblem:
    """``kind`` is ``nan`` (NaN, perhaps infinities too), ``infinite``, ``all zero`` or ``constant``; ``count`` is the
    number of values concerned. ``is_weight``: the tensor is part of the model's state dict."""

    tensor: str
    kind: str
    count: int
    is_weight: bool

    def __str__(self) -> str:
        return f"{self.tensor}: {self.kind} ({self.count:,} values)"


def find_value_problems(description: CheckpointDescription) -> list[ValueProblem]:
    """Look at every floating-point tensor; all zero and constant count as problems among the model's weights only.

    Passed over: 8-bit floats, and views that skip or repeat elements where they are over 16 million.
    """
    weights = {tensor.name for tensor in description.weights}
    found = []
    with description.path.open("rb", buffering=0) as file:
        for tensor in description.tensors:
            if tensor.dtype in _READ_AS and tensor.file_offset is not None and tensor.num_elements:
                found += _problems(_Extremes.of(file.fileno(), tensor), tensor, is_weight=tensor.name in weights)
    return found


def _problems(extremes: _Extremes, tensor: TensorEntry, *, is_weight: bool) -> Iterator[ValueProblem]:
    if extremes.num_nan:
        yield ValueProblem(tensor.name, "nan", extremes.num_nan + extremes.num_infinite, is_weight)
    elif extremes.num_infinite:
        yield ValueProblem(tensor.name, "infinite", extremes.num_infinite, is_weight)
    elif is_weight and tensor.num_elements > 1 and extremes.lowest == extremes.highest:
        kind = "all zero" if extremes.lowest == 0 else "constant"
        yield ValueProblem(tensor.name, kind, tensor.num_elements, is_weight)


@dataclass
class _Extremes:
    lowest: float = math.inf
    highest: float = -math.inf
    num_nan: int = 0
    num_infinite: int = 0

    @classmethod
    def of(cls, handle: int, tensor: TensorEntry) -> _Extremes:
        extremes = cls()
        for values in _values(handle, tensor):
            extremes.add(values)
        return extremes

    def add(self, values: np.ndarray) -> None:
        import numpy as np

        low, high = float(values.min()), float(values.max())  # NaN wins both
        if not (math.isfinite(low) and math.isfinite(high)):
            self.num_nan += int(np.isnan(values).sum())
            self.num_infinite += int(np.isinf(values).sum())
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)


def _values(handle: int, tensor: TensorEntry) -> Iterator[np.ndarray]:
    """The tensor's values as real numbers, block by block."""
    if _is_dense(tensor):
        yield from _dense_values(handle, tensor, tensor.num_elements)
    elif max(tensor.span_elements, tensor.num_elements) <= _MAX_STRIDED_ELEMENTS:
        yield _strided_values(handle, tensor)


def _is_dense(tensor: TensorEntry) -> bool:
    """Whether the view covers every element of its span once, in whatever order."""
    return tensor.span_elements == tensor.num_elements and all(
        step > 0 for size, step in zip(tensor.shape, tensor.stride, strict=True) if size > 1
    )


def _dense_values(handle: int, tensor: TensorEntry, count: int) -> Iterator[np.ndarray]:
    offset, item_bytes = tensor.file_offset, tensor.item_bytes
    for start in range(0, count, _BLOCK_ELEMENTS):
        length = min(_BLOCK_ELEMENTS, count - start) * item_bytes
        yield _as_real(read_at(handle, length, offset + start * item_bytes), tensor.dtype)


def _strided_values(handle: int, tensor: TensorEntry) -> np.ndarray:
    import numpy as np

    flat = _as_real(os.pread(handle, tensor.span_elements * tensor.item_bytes, tensor.file_offset), tensor.dtype)
    parts = flat.reshape(tensor.span_elements, -1)  # (elements, 1 or 2): a complex number has two
    step, inner = parts.strides
    strides = (*(step * stride for stride in tensor.stride), inner)
    return np.lib.stride_tricks.as_strided(parts, (*tensor.shape, parts.shape[1]), strides, writeable=False)


def _as_real(raw: bytes, dtype: str) -> np.ndarray:
    import numpy as np

    values = np.frombuffer(raw, dtype=_READ_AS[dtype])
    return (values.astype("<u4") << 16).view("<f4") if dtype == "bfloat16" else values
