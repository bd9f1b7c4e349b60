"""An inspection as people read it, and as programs do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal

from common.checkpoint_container.inert_objects import InertCall, TensorRef
from common.checkpoint_container.inspection import Inspection
from common.checkpoint_container.labels import label
from common.checkpoint_container.tensors import TensorEntry, walk_tensors
from common.console import format_bytes, format_count

Detail = Literal["block", "brief", "full"]
_BRIEF_LINES = 5
_MAX_LISTED_TEXT = 60


def as_lines(inspection: Inspection, detail: Detail) -> Iterator[str]:
    """The documented block; what is wrong; with ``brief`` what else there is to say; with ``full`` all of it."""
    yield from _block(inspection)
    if detail != "block":
        yield from _facts(inspection, detail)
    yield from _findings(inspection, detail)
    if detail == "full":
        yield from _contents(inspection)
        yield from _tensor_table(inspection.description.tensors)


def _block(inspection: Inspection) -> Iterator[str]:
    described, against = inspection.description, inspection.reason_against_loading
    yield f"Checkpoint: {inspection.path}"
    yield f"Epoch: {_or_na(described.epoch, str)}"
    yield f"Val Loss: {_or_na(described.val_loss, _number)}"
    yield f"Val Acc: {_or_na(described.val_acc, lambda percent: f'{percent:.1f}%')}"
    yield f"Model params: {_or_na(described.num_parameters, format_count)}"
    yield f"Optimizer state: {'present' if described.has_optimizer_state else 'absent'}"
    yield f"Loadable: ✗ ({label(against)})" if against else "Loadable: ✓"


def _facts(inspection: Inspection, detail: Detail) -> Iterator[str]:
    described = inspection.description
    yield f"Integrity: {_integrity(inspection)}"
    if inspection.load and inspection.load.loaded:
        model = inspection.load.model
        outcome = f"{label(model)} takes its weights" if model else label(inspection.load.reason)
        yield f"Loaded: yes, in a process of its own; {outcome}"
    yield f"Size: {format_bytes(described.size_bytes)}, {len(described.tensors)} tensors"
    if described.metadata and detail == "brief":
        yield f"Contents: {', '.join(label(key) for key in described.metadata)}"
    metrics = {key: value for key, value in _metrics(inspection).items() if isinstance(value, (int, float))}
    if metrics:
        yield "Metrics: " + ", ".join(f"{label(key)} {_number(value)}" for key, value in metrics.items())


def _integrity(inspection: Inspection) -> str:
    report, manifest = inspection.integrity, inspection.manifest
    if report is None:
        if inspection.is_damaged:
            return "damaged"
        return f"not verified ({format_bytes(inspection.description.size_bytes)}; --verify checks every byte)"
    listed = {True: "its SHA-256 is the manifest's", False: "its SHA-256 is not the manifest's"}.get(
        report.matches_manifest, _why_no_entry(manifest.state, manifest.reason)
    )
    if report.status == "unverifiable":
        return f"unverifiable (it has no checksums inside; {listed})"
    inside = f"{report.num_records_checked} records checked by CRC-32" if report.num_records_checked else "no CRC-32"
    return f"{report.status} ({inside}; {listed})"


def _why_no_entry(state: str, reason: str | None) -> str:
    if state == "present":
        return "the manifest does not list it"
    return "no manifest" if state == "missing" else f"the manifest is damaged: {label(reason)}"


def _findings(inspection: Inspection, detail: Detail) -> Iterator[str]:
    limit = None if detail == "full" else _BRIEF_LINES
    damages = inspection.integrity.damages if inspection.integrity else inspection.description.damages
    yield from _listed("Damage", [str(damage) for damage in damages], limit)
    # Every one of them, however many: this is what would run.
    yield from _listed("Unsafe global", list(inspection.description.unsafe_globals), None)
    problems = [problem for problem in inspection.value_problems if detail != "block" or problem.kind == "nan"]
    yield from _listed("Problem", [str(problem) for problem in problems], limit)


def _listed(title: str, findings: list[str], limit: int | None) -> Iterator[str]:
    yield from (f"{title}: {finding}" for finding in findings[:limit])
    if limit is not None and len(findings) > limit:
        yield f"{title}: {len(findings) - limit} more (--verbose shows all)"


def _contents(inspection: Inspection) -> Iterator[str]:
    for key, value in inspection.description.metadata.items():
        yield f"- {label(key)}: {summary(value)}"


def _tensor_table(tensors: tuple[TensorEntry, ...]) -> Iterator[str]:
    rows = [("Tensor", "Dtype", "Shape", "Size")]
    rows += [(tensor.name, tensor.dtype, _shape(tensor), _size(tensor)) for tensor in tensors]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, dtype, shape, size in rows:
        yield f"{name:<{widths[0]}}  {dtype:<{widths[1]}}  {shape:<{widths[2]}}  {size}"


def _shape(tensor: TensorEntry) -> str:
    return "×".join(str(size) for size in tensor.shape) or "scalar"


def _size(tensor: TensorEntry) -> str:
    return "n/a" if tensor.item_bytes is None else format_bytes(tensor.num_elements * tensor.item_bytes)


def summary(value: object) -> str:
    """One value of the top level in a few words."""
    if isinstance(value, str):
        return repr(label(value[:_MAX_LISTED_TEXT])) + (" ..." if len(value) > _MAX_LISTED_TEXT else "")
    if value is None or isinstance(value, (bool, int)):
        return label(value)
    if isinstance(value, float):
        return _number(value)
    tensors = [tensor for _, tensor in walk_tensors(value)]
    if isinstance(value, TensorRef):
        return f"a tensor of shape {list(value.shape)}"
    if tensors:
        return f"{len(tensors)} tensors, {format_count(sum(math.prod(tensor.shape) for tensor in tensors))} elements"
    if isinstance(value, dict):
        return f"{len(value)} entries" + (f" ({', '.join(label(key) for key in list(value)[:6])})" if value else "")
    if isinstance(value, InertCall):
        return f"an object of {label(value.function)}, not made"
    return f"{len(value)} values" if isinstance(value, (list, tuple, bytes)) else type(value).__name__


def as_json(inspection: Inspection) -> dict[str, object]:
    """All of it, for ``--json``; numbers that are not finite are null."""
    described, report = inspection.description, inspection.integrity
    damages = report.damages if report else described.damages
    return {
        "path": str(inspection.path),
        "size_bytes": described.size_bytes,
        "epoch": described.epoch,
        "step": described.step,
        "val_loss": _finite(described.val_loss),
        "val_acc": _finite(described.val_acc),
        "num_parameters": described.num_parameters,
        "optimizer_state": described.has_optimizer_state,
        "loadable": inspection.reason_against_loading is None,
        "reason": inspection.reason_against_loading,
        "integrity": {
            "status": report.status if report else ("damaged" if damages else "not_verified"),
            "num_records_checked": report.num_records_checked if report else 0,
            "matches_manifest": report.matches_manifest if report else None,
            "manifest": inspection.manifest.state,
        },
        "damages": [vars(damage) for damage in damages],
        "value_problems": [vars(problem) for problem in inspection.value_problems],
        "globals": described.globals,
        "unsafe_globals": described.unsafe_globals,
        "load": vars(inspection.load) if inspection.load else None,
        "metrics": {label(key): _finite(value) for key, value in _metrics(inspection).items()},
        "contents": {label(key): summary(value) for key, value in described.metadata.items()},
        "tensors": [
            {"name": tensor.name, "dtype": tensor.dtype, "shape": tensor.shape, "is_parameter": tensor.is_parameter}
            for tensor in described.tensors
        ],
        "exit_code": int(inspection.exit),
    }


def _metrics(inspection: Inspection) -> Mapping[object, object]:
    metrics = inspection.description.metadata.get("metrics")
    if not isinstance(metrics, dict):
        return {}
    return {key: value for key, value in metrics.items() if value is None or isinstance(value, (bool, int, float, str))}


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float) -> str:
    if isinstance(value, int):
        return label(value)
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


def _or_na(value: object, form: object) -> str:
    return "n/a" if value is None else form(value)
