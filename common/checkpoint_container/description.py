"""What a checkpoint holds, from its headers and the structure of its pickle; tensors' values stay on the disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.checkpoint_container.archive import Archive, Problem, Record, read_archive
from common.checkpoint_container.formats import (
    HEAD_BYTES,
    begins_like_archive,
    refuse_archive_without_structure,
    refuse_other_archives,
    refuse_other_formats,
    require_regular_file,
)
from common.checkpoint_container.inert_objects import TensorRef
from common.checkpoint_container.inert_pickle import MAX_PICKLE_BYTES, PickleStructureError, read_structure
from common.checkpoint_container.labels import label
from common.checkpoint_container.tensors import (
    TensorEntry,
    storage_bytes,
    tensor_entry,
    walk_tensors,
)
from common.checkpoint_container.weights_only import WEIGHTS_ONLY_GLOBALS
from common.checkpoint_container.zip_headers import read_at

_STRUCTURE = "data.pkl"
_STATE_DICT_KEYS = ("model_state_dict", "state_dict", "model")
_OPTIMIZER_KEYS = ("optimizer_state_dict", "optimizer", "optimizer_states")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Damage:
    """Something wrong with the file: a sentence, the record it is in, its byte, and the tensors it spoils."""

    what: str
    record: str | None = None
    offset: int | None = None
    tensors: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = ", ".join(self.tensors[:3]) + (f" and {len(self.tensors) - 3} more" if len(self.tensors) > 3 else "")
        where = " ".join(part for part in (self.record, f"[{named}]" if named else None) if part)
        at = f" (byte {self.offset})" if self.offset is not None else ""
        return f"{where}: {self.what}{at}" if where else f"{self.what}{at}"


@dataclass(frozen=True)
class CheckpointDescription:
    """A checkpoint without its tensors' values.

    ``metadata`` is the top level as the file has it, with a ``TensorRef`` for each tensor and an ``InertCall`` for each
    object that was not made; it is empty where the file holds something else than a dictionary, or a bare state dict.
    ``val_acc`` is as stored (our own checkpoints: percent). What the file does not say is None. ``unsafe_globals`` are
    those that ``torch.load(weights_only=True)`` refuses. ``damages`` are those that show without reading the tensors.
    """

    path: Path
    size_bytes: int
    records: tuple[Record, ...]
    has_checksums: bool
    damages: tuple[Damage, ...] = ()
    tensors: tuple[TensorEntry, ...] = ()
    metadata: Mapping[str, object] = field(default_factory=dict)
    globals: tuple[str, ...] = ()
    unsafe_globals: tuple[str, ...] = ()
    is_readable: bool = True
    state_dict_name: str | None = None
    epoch: int | None = None
    step: int | None = None
    val_loss: float | None = None
    val_acc: float | None = None
    num_parameters: int | None = None
    has_optimizer_state: bool = False

    @property
    def weights(self) -> tuple[TensorEntry, ...]:
        """The tensors of the model's state dict."""
        return tuple(tensor for tensor in self.tensors if _is_below(tensor.name, self.state_dict_name))

    def tensors_of_record(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The tensors whose storage is the record with one of these names."""
        keys = {name.partition("/")[2].removeprefix("data/") for name in names}
        return tuple(tensor.name for tensor in self.tensors if tensor.storage_key in keys)


def describe(path: str | Path) -> CheckpointDescription:
    """Describe the checkpoint at ``path``, reading its headers and its structure only.

    A damaged file is described as far as it can be read, with its ``damages``.

    Raises:
        NotACheckpointError: missing, empty, or something else than a checkpoint.
    """
    path = Path(path)
    size_bytes = require_regular_file(path)
    with path.open("rb", buffering=0) as file:
        handle = file.fileno()
        archive = read_archive(handle, size_bytes)
        head = read_at(handle, HEAD_BYTES, 0)
        if not archive.records and not archive.problems and not begins_like_archive(head):
            refuse_other_formats(path, head)
        records = archive.by_path()
        refuse_other_archives(path, set(records))
        if _STRUCTURE not in records and not archive.problems and not archive.truncated:
            refuse_archive_without_structure(path, [record.name for record in archive.records])
        return _describe(path, handle, archive, records)


def _describe(path: Path, handle: int, archive: Archive, records: dict[str, Record]) -> CheckpointDescription:
    frame = {
        "path": path,
        "size_bytes": archive.size_bytes,
        "records": tuple(archive.records),
        "has_checksums": archive.has_checksums,
    }
    try:
        structure = read_structure(_structure_bytes(handle, records))
    except PickleStructureError as error:
        damages = (*_container_damages(archive, None), Damage(f"the checkpoint's structure: {error}", _STRUCTURE))
        asked_for = tuple(label(name) for name in error.globals)
        return CheckpointDescription(
            **frame, damages=damages, globals=asked_for, unsafe_globals=_unsafe(asked_for), is_readable=False
        )
    refs = list(walk_tensors(structure.value))
    tensors = tuple(tensor_entry(place, tensor, records) for place, tensor in refs)
    asked_for = tuple(label(name) for name in structure.globals)
    top = structure.value if isinstance(structure.value, dict) else {}
    described = CheckpointDescription(
        **frame,
        tensors=tensors,
        metadata={} if _is_bare_state_dict(top) else {key: value for key, value in top.items() if isinstance(key, str)},
        globals=asked_for,
        unsafe_globals=_unsafe(asked_for),
        **_facts(top, tensors),
    )
    damages = (*_container_damages(archive, described), *_tensor_damages(archive, refs, tensors, records))
    return dataclasses.replace(described, damages=damages)


def _structure_bytes(handle: int, records: dict[str, Record]) -> bytes:
    record = records.get(_STRUCTURE)
    if record is None:
        raise PickleStructureError("it is missing")
    if record.size > MAX_PICKLE_BYTES:
        raise PickleStructureError(f"it takes {record.size} bytes, over the limit of {MAX_PICKLE_BYTES}")
    return read_at(handle, record.size, record.data_offset)


def _unsafe(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in WEIGHTS_ONLY_GLOBALS)


# Damage that shows without reading a tensor.


def _container_damages(archive: Archive, described: CheckpointDescription | None) -> list[Damage]:
    found = [_damage(problem, described) for problem in archive.problems]
    if archive.truncated:
        what = f"the file is truncated: it ends after {archive.size_bytes} bytes, without the archive's end record"
        found.insert(0, Damage(what))
    return found


def _damage(problem: Problem, described: CheckpointDescription | None) -> Damage:
    tensors = described.tensors_of_record(problem.record_names) if described else ()
    record = problem.record_names[0] if problem.record_names else None
    return Damage(problem.what, record, problem.offset, tensors)


def _tensor_damages(
    archive: Archive,
    refs: list[tuple[tuple[str, ...], TensorRef]],
    tensors: tuple[TensorEntry, ...],
    records: dict[str, Record],
) -> list[Damage]:
    found = []
    lost = []
    for (_, tensor), entry in zip(refs, tensors, strict=True):
        record = records.get(f"data/{tensor.storage.key}")
        if record is None:
            lost.append(entry.name)
        elif storage_bytes(tensor.storage) not in (None, record.size):
            what = f"its storage should have {storage_bytes(tensor.storage)} bytes and has {record.size}"
            found.append(Damage(what, record.name, record.header_offset, (entry.name,)))
        elif entry.file_offset is None and entry.item_bytes is not None:
            found.append(Damage("it reaches outside its storage", record.name, None, (entry.name,)))
    if lost:
        where = "cut off" if archive.truncated else "missing"
        found.insert(0, Damage(f"{len(lost)} of {len(tensors)} tensors are {where}", None, None, tuple(lost)))
    return found


# What the checkpoint says about itself.


def _facts(top: dict[object, object], tensors: tuple[TensorEntry, ...]) -> dict[str, object]:
    bare = _is_bare_state_dict(top)
    state_dict_name = "" if bare else next((key for key in _STATE_DICT_KEYS if isinstance(top.get(key), dict)), None)
    metrics = top.get("metrics") if isinstance(top.get("metrics"), dict) else {}
    optimizer = next((top[key] for key in _OPTIMIZER_KEYS if isinstance(top.get(key), (dict, list))), None)
    return {
        "state_dict_name": state_dict_name,
        "epoch": _whole(top.get("epoch")),
        "step": _whole(top.get("step", top.get("global_step"))),
        "val_loss": _real(top.get("val_loss", metrics.get("val_loss"))),
        "val_acc": _real(top.get("val_acc", metrics.get("val_acc"))),
        "num_parameters": _num_parameters(top, tensors, state_dict_name),
        "has_optimizer_state": bool(optimizer),
    }


def _is_bare_state_dict(top: dict[object, object]) -> bool:
    return bool(top) and sum(isinstance(value, TensorRef) for value in top.values()) * 2 > len(top)


def _num_parameters(
    top: dict[object, object], tensors: tuple[TensorEntry, ...], state_dict_name: str | None
) -> int | None:
    """What the checkpoint states; else the floating elements of its state dict that no normalisation layer counts."""
    model_spec = top.get("model_spec")
    stated = _whole(model_spec.get("num_parameters")) if isinstance(model_spec, dict) else None
    if stated is not None or state_dict_name is None:
        return stated
    distinct = {
        (tensor.storage_key, tensor.storage_offset, tensor.shape): tensor.num_elements
        for tensor in tensors
        if tensor.is_floating and _is_below(tensor.name, state_dict_name) and not tensor.name.endswith(_STATISTICS)
    }
    return sum(distinct.values())


def _is_below(name: str, state_dict_name: str | None) -> bool:
    if state_dict_name is None:
        return False
    return not state_dict_name or name.startswith(f"{state_dict_name}/")


def _whole(value: object) -> int | None:
    return value if type(value) is int and abs(value) < 2**63 else None


def _real(value: object) -> float | None:
    return float(value) if type(value) is float or _whole(value) is not None else None
