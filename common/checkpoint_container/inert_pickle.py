"""Reads the structure of a pickle without running any of it.

An interpreter of the pickle opcodes in which nothing is ever imported or called: globals and calls become
the inert objects of ``inert_objects``. CPython's own unpickler is not used, since a pickle of a few
bytes can make it reserve gigabytes (``LONG_BINPUT`` with a huge index) or overflow the stack (deep tuples as keys).

Source of the opcodes: CPython's ``pickletools``; of the persistent ids: ``torch.serialization`` (zip format).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from common.checkpoint_container.inert_objects import GlobalRef, InertCall, StorageRef, call, plain_key

MAX_PICKLE_BYTES = 32 * 2**20
MAX_OPCODES = 2_000_000
MAX_STRING_BYTES = 4 * 2**20
MAX_NUMBER_BYTES = 1024
_MAX_NAME_BYTES = 4096


class PickleStructureError(ValueError):
    """The pickle is malformed, or larger than a checkpoint's structure can be.

    ``globals`` holds the names that it asked for until then.
    """

    globals: tuple[str, ...] = ()


@dataclass(frozen=True)
class PickleStructure:
    """The object that a pickle describes, and every global that it asks for, in order of first use."""

    value: object
    globals: tuple[str, ...]


def read_structure(data: bytes) -> PickleStructure:
    """Read the first pickle in ``data``.

    Raises:
        PickleStructureError: malformed, or over one of the limits above.
    """
    reader = _Reader(data)
    try:
        return PickleStructure(reader.run(), tuple(reader.globals))
    except PickleStructureError as error:
        error.globals = tuple(reader.globals)
        raise


class _Reader:
    """One pass over one pickle: a stack, a memo, and a position."""

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_PICKLE_BYTES:
            raise PickleStructureError(f"the structure takes {len(data)} bytes, over the limit of {MAX_PICKLE_BYTES}")
        self.data = data
        self.position = 0
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.globals: dict[str, None] = {}

    def run(self) -> object:
        data, opcodes = self.data, _OPCODES
        for _ in range(MAX_OPCODES):
            start = self.position
            try:
                code = data[start]
                if code == _STOP:
                    return self.stack[-1]
                self.position = start + 1
                opcodes[code](self)
            except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
                raise PickleStructureError(self._complaint(start, error)) from error
        raise PickleStructureError(f"more than {MAX_OPCODES} instructions")

    def _complaint(self, start: int, error: Exception) -> str:
        if start >= len(self.data):
            return f"ends after {start} bytes without its end mark"
        if isinstance(error, PickleStructureError):
            return f"byte {start}: {error}"
        return f"byte {start}: instruction 0x{self.data[start]:02x} makes no sense there"

    # Bytes.

    def take(self, count: int, limit: int = MAX_STRING_BYTES) -> bytes:
        if count > limit:
            raise PickleStructureError(f"a value of {count} bytes, over the limit of {limit}")
        end = self.position + count
        if end > len(self.data):
            raise PickleStructureError("a value reaches beyond the end")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def number(self, layout: struct.Struct) -> int | float:
        value = layout.unpack_from(self.data, self.position)[0]
        self.position += layout.size
        return value

    def line(self, limit: int = _MAX_NAME_BYTES) -> str:
        end = self.data.find(b"\n", self.position, self.position + limit)
        if end < 0:
            raise PickleStructureError("a line without an end")
        text = self.data[self.position : end]
        self.position = end + 1
        return _text(text)

    # Stack.

    def to_mark(self) -> list[object]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def pop(self, count: int) -> list[object]:
        if len(self.stack) < count:
            raise PickleStructureError("the stack is empty")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    # What would be imports and calls.

    def global_ref(self, module: object, name: object) -> GlobalRef:
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > _MAX_NAME_BYTES:
            raise PickleStructureError("a global without a name")
        full_name = f"{module}.{name}"
        self.globals[full_name] = None
        return GlobalRef(full_name)

    def persistent(self, reference: object) -> StorageRef:
        match reference:
            case ("storage", GlobalRef(name=type_name), str(key), str(location), int(numel)) if numel >= 0:
                return StorageRef(type_name, key, location, numel)
        raise PickleStructureError("a reference that is no tensor storage")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="backslashreplace")


# One small function per group of opcodes; the table below says which opcode runs which.

_Handler = Callable[[_Reader], None]
_U1, _U2, _I4, _U4, _U8, _F8 = (struct.Struct(layout) for layout in ("<B", "<H", "<i", "<I", "<Q", ">d"))
_STOP = ord(".")


def _constant(value: object) -> _Handler:
    return lambda reader: reader.stack.append(value)


def _fresh(make: Callable[[], object]) -> _Handler:
    return lambda reader: reader.stack.append(make())


def _number(layout: struct.Struct) -> _Handler:
    return lambda reader: reader.stack.append(reader.number(layout))


def _sized(layout: struct.Struct, convert: Callable[[bytes], object], limit: int = MAX_STRING_BYTES) -> _Handler:
    return lambda reader: reader.stack.append(convert(reader.take(reader.number(layout), limit)))


def _line(convert: Callable[[str], object], limit: int = MAX_NUMBER_BYTES) -> _Handler:
    return lambda reader: reader.stack.append(convert(reader.line(limit)))


def _small_tuple(count: int) -> _Handler:
    return lambda reader: reader.stack.append(tuple(reader.pop(count)))


def _marked(convert: Callable[[list[object]], object]) -> _Handler:
    def gather(reader: _Reader) -> None:
        items = reader.to_mark()
        reader.stack.append(convert(items))

    return gather


def _skip(layout: struct.Struct) -> _Handler:
    return lambda reader: reader.number(layout)


def _get(index: Callable[[_Reader], int]) -> _Handler:
    return lambda reader: reader.stack.append(reader.memo[index(reader)])


def _put(index: Callable[[_Reader], int]) -> _Handler:
    def put(reader: _Reader) -> None:
        reader.memo[index(reader)] = reader.stack[-1]

    return put


def _mark(reader: _Reader) -> None:
    reader.marks.append(reader.stack)
    reader.stack = []


def _append(reader: _Reader) -> None:
    _extend(reader, reader.pop(1))


def _extend_to_mark(reader: _Reader) -> None:
    _extend(reader, reader.to_mark())


def _extend(reader: _Reader, items: list[object]) -> None:
    target = reader.stack[-1]
    if isinstance(target, InertCall):
        target = target.items
    if not isinstance(target, list):
        raise PickleStructureError("appends to something that is no list")
    target.extend(items)


def _set_item(reader: _Reader) -> None:
    _set_items(reader, reader.pop(2))


def _set_items_to_mark(reader: _Reader) -> None:
    _set_items(reader, reader.to_mark())


def _set_items(reader: _Reader, flat: list[object]) -> None:
    target = reader.stack[-1]
    if isinstance(target, InertCall):
        target.items.extend(flat)
    elif isinstance(target, dict) and len(flat) % 2 == 0:
        target.update(_pairs(flat))
    else:
        raise PickleStructureError("sets items of something that is no dictionary")


def _pairs(flat: list[object]) -> dict[object, object]:
    return {plain_key(key): value for key, value in zip(flat[::2], flat[1::2], strict=True)}


def _build(reader: _Reader) -> None:
    (state,) = reader.pop(1)
    if isinstance(reader.stack[-1], InertCall):
        reader.stack[-1].state = state


def _global(reader: _Reader) -> None:
    module = reader.line()
    reader.stack.append(reader.global_ref(module, reader.line()))


def _stack_global(reader: _Reader) -> None:
    reader.stack.append(reader.global_ref(*reader.pop(2)))


def _reduce(reader: _Reader) -> None:
    reader.stack.append(call(*reader.pop(2)))


def _new_with_keywords(reader: _Reader) -> None:
    function, arguments, keywords = reader.pop(3)
    reader.stack.append(call(function, (arguments, keywords)))


def _instance(reader: _Reader) -> None:
    module = reader.line()
    function = reader.global_ref(module, reader.line())
    arguments = tuple(reader.to_mark())
    reader.stack.append(call(function, arguments))


def _object(reader: _Reader) -> None:
    function, *arguments = reader.to_mark()
    reader.stack.append(call(function, tuple(arguments)))


def _persistent(reader: _Reader) -> None:
    reader.stack.append(reader.persistent(*reader.pop(1)))


def _pop(reader: _Reader) -> None:
    if reader.stack:
        reader.stack.pop()
    else:
        reader.to_mark()


def _signed(raw: bytes) -> int:
    return int.from_bytes(raw, "little", signed=True)


def _integer(text: str) -> object:
    return {"00": False, "01": True}[text] if text in ("00", "01") else int(text.rstrip("L"))


_OPCODES: dict[int, _Handler] = {
    ord(code): handler
    for code, handler in {
        "\x80": _skip(_U1),  # PROTO
        "\x95": _skip(_U8),  # FRAME
        "N": _constant(None),
        "\x88": _constant(True),
        "\x89": _constant(False),
        "I": _line(_integer),
        "L": _line(_integer),
        "F": _line(float),
        "J": _number(_I4),
        "K": _number(_U1),
        "M": _number(_U2),
        "G": _number(_F8),
        "\x8a": _sized(_U1, _signed, MAX_NUMBER_BYTES),
        "\x8b": _sized(_U4, _signed, MAX_NUMBER_BYTES),
        "X": _sized(_U4, _text),
        "\x8c": _sized(_U1, _text),
        "\x8d": _sized(_U8, _text),
        "V": _line(str, MAX_STRING_BYTES),
        "S": _line(lambda text: text.strip("\"'"), MAX_STRING_BYTES),
        "T": _sized(_U4, _text),
        "U": _sized(_U1, _text),
        "B": _sized(_U4, bytes),
        "C": _sized(_U1, bytes),
        "\x8e": _sized(_U8, bytes),
        "\x96": _sized(_U8, bytes),  # BYTEARRAY8
        "]": _fresh(list),
        "}": _fresh(dict),
        "\x8f": _fresh(list),  # EMPTY_SET: a list serves, and hashes nothing
        ")": _constant(()),
        "\x85": _small_tuple(1),
        "\x86": _small_tuple(2),
        "\x87": _small_tuple(3),
        "t": _marked(tuple),
        "l": _marked(list),
        "d": _marked(_pairs),
        "\x91": _marked(tuple),  # FROZENSET
        "(": _mark,
        "0": _pop,
        "1": lambda reader: reader.to_mark(),
        "2": lambda reader: reader.stack.append(reader.stack[-1]),
        "a": _append,
        "e": _extend_to_mark,
        "\x90": _extend_to_mark,  # ADDITEMS
        "s": _set_item,
        "u": _set_items_to_mark,
        "g": _get(lambda reader: int(reader.line())),
        "h": _get(lambda reader: reader.number(_U1)),
        "j": _get(lambda reader: reader.number(_U4)),
        "p": _put(lambda reader: int(reader.line())),
        "q": _put(lambda reader: reader.number(_U1)),
        "r": _put(lambda reader: reader.number(_U4)),
        "\x94": _put(lambda reader: len(reader.memo)),  # MEMOIZE
        "c": _global,
        "\x93": _stack_global,
        "R": _reduce,
        "\x81": _reduce,  # NEWOBJ
        "\x92": _new_with_keywords,
        "i": _instance,
        "o": _object,
        "b": _build,
        "Q": _persistent,
    }.items()
}
