"""What a pickle's globals and calls become here: objects that only remember, and never do anything.

Only what PyTorch's checkpoints are made of (tensors, ordered dictionaries, sizes) is given a shape.

Source: ``torch._utils`` for the arguments of the functions that rebuild tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_DICTIONARIES = {"collections.OrderedDict", "collections.Counter", "collections.defaultdict", "builtins.dict"}
_REBUILD_TENSOR = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"}
_REBUILD_PARAMETER = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_SCALARS = (str, int, float, bool, bytes, type(None))


@dataclass(frozen=True)
class GlobalRef:
    """A name that the pickle asks to import, as ``module.name``; never imported."""

    name: str


@dataclass(frozen=True)
class StorageRef:
    """A tensor's storage: the record ``data/<key>`` of ``numel`` elements of the type that ``type_name`` says."""

    type_name: str
    key: str
    location: str
    numel: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor as a view of a storage; offset and stride count elements. ``dtype_name`` only where it is explicit."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype_name: str | None = None
    is_parameter: bool = False


@dataclass(eq=False)
class InertCall:
    """What the pickle would have made by calling ``function``; nothing was called."""

    function: str
    arguments: tuple[object, ...] = ()
    state: object = None
    items: list[object] = field(default_factory=list)


def call(function: object, arguments: object) -> object:
    """What stands for the result of ``function(*arguments)``; nothing is called."""
    if not isinstance(function, GlobalRef):
        return InertCall("(the result of another call)", (function, arguments))
    if not isinstance(arguments, tuple):
        return InertCall(function.name, (arguments,))
    made: object = None
    if function.name in _REBUILD_TENSOR:
        made = _tensor(arguments)
    elif function.name in _REBUILD_PARAMETER:
        made = _parameter(arguments)
    elif function.name in _DICTIONARIES:
        made = _dictionary(arguments)
    elif function.name == "torch.Size" and len(arguments) == 1 and isinstance(arguments[0], (tuple, list)):
        made = tuple(arguments[0])
    return InertCall(function.name, arguments) if made is None else made


def _tensor(arguments: tuple[object, ...]) -> TensorRef | None:
    if len(arguments) < 4:
        return None
    storage, offset, shape, stride = arguments[:4]
    sound = isinstance(storage, StorageRef) and _is_count(offset) and _are_counts(shape) and _are_counts(stride)
    if not sound or len(shape) != len(stride):
        return None
    dtype = arguments[6] if len(arguments) > 6 and isinstance(arguments[6], GlobalRef) else None
    return TensorRef(storage, offset, shape, stride, dtype.name if dtype else None)


def _parameter(arguments: tuple[object, ...]) -> TensorRef | None:
    tensor = arguments[0] if arguments else None
    if not isinstance(tensor, TensorRef):
        return None
    return TensorRef(tensor.storage, tensor.offset, tensor.shape, tensor.stride, tensor.dtype_name, is_parameter=True)


def _dictionary(arguments: tuple[object, ...]) -> dict[object, object]:
    pairs = arguments[-1] if arguments else ()
    if isinstance(pairs, dict):
        return dict(pairs)
    made: dict[object, object] = {}
    for pair in pairs if isinstance(pairs, (list, tuple)) else ():
        if isinstance(pair, (list, tuple)) and len(pair) == 2:
            made[plain_key(pair[0])] = pair[1]
    return made


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _are_counts(values: object) -> bool:
    return isinstance(values, tuple) and len(values) <= 64 and all(_is_count(value) for value in values)


def plain_key(key: object) -> object:
    """A key that can be hashed without recursion: a scalar, or a tuple of scalars."""
    if isinstance(key, _SCALARS):
        return key
    if isinstance(key, tuple) and all(isinstance(part, _SCALARS) for part in key):
        return key
    return f"<{type(key).__name__}>"
