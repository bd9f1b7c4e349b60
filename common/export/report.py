"""What an export came to: beside each file, for programs (``FILE.json``) and for people (``FILE.md``)."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import markdown
from common.console import format_bytes, format_count
from common.environment import cpu_description
from common.export.formats import FORMATS
from common.export.pipeline import ExportedFile, ExportResult
from common.export.workspace import write_report

SCHEMA_VERSION = 1
KIND = "ml_trainer_export"
_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")


def report_paths(path: Path) -> tuple[Path, Path]:
    """Of an exported file: the JSON and the Markdown report."""
    return path.with_name(f"{path.name}.json"), path.with_name(f"{path.name}.md")


def write_reports(result: ExportResult) -> list[dict[str, Any]]:
    """Write both reports of every file; returns the contents of the JSON ones.

    Raises:
        EnvironmentLackError: they cannot be written.
    """
    documents = []
    for file in result.files:
        document = as_json(file, result)
        json_path, markdown_path = report_paths(file.path)
        write_report(json_path, json.dumps(document, indent=2, allow_nan=False) + "\n")
        write_report(markdown_path, as_markdown(document))
        documents.append(document)
    return documents


def as_json(file: ExportedFile, result: ExportResult) -> dict[str, Any]:
    """Strict JSON: accuracies and agreement in percent, sizes in bytes, times in ms."""
    metadata, spec = file.metadata, file.metadata.model_spec
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "file": {
            "name": file.path.name,
            "format": file.format,
            "precision": metadata.precision,
            "opset": metadata.opset,
            "size_bytes": file.size_bytes,
            "sha256": file.sha256,
            "fp32_size_bytes": file.fp32_size_bytes,
        },
        "checkpoint": {
            "path": os.path.relpath(result.source.path, file.path.parent),
            "sha256": metadata.checkpoint_sha256,
            "git_commit": metadata.git_commit,
            "val_acc": metadata.val_acc,
            "test_acc": metadata.test_acc,
        },
        "model": {
            "architecture": spec["architecture"],
            "num_parameters": sum(parameter.numel() for parameter in result.source.model.parameters()),
            "input_name": metadata.input_name,
            "output_name": metadata.output_name,
            "input_shape": list(metadata.input_shape),
            "class_names": metadata.class_names,
            "preprocessing": metadata.preprocessing,
        },
        "quantization": file.quantization,
        "verification": file.verification.as_json(),
        "speed": file.speed.as_json(),
        "environment": {"cpu": cpu_description()["model"], **_versions()},
        "notices": list(result.notices),
    }


def as_markdown(document: Mapping[str, Any]) -> str:
    """The same for people."""
    file = document["file"]
    sections = [
        ("", f"`{file['name']}` answers as its checkpoint does. It may be deployed."),
        ("File", markdown.table(["Property", "Value"], _file_rows(document))),
        ("Verification", markdown.table(["Measure", "Value"], verification_rows(document["verification"]))),
        ("Speed", speed_sentence(document)),
    ]
    if document["quantization"] is not None:
        rows = [(key.replace("_", " "), _spoken(value)) for key, value in document["quantization"].items()]
        sections.append(("Quantisation", markdown.table(["Property", "Value"], rows)))
    sections.append(("Notices", markdown.bullet_list(document["notices"], empty="None.")))
    return markdown.document(f"Export report: {file['name']}", sections)


def verification_rows(verification: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of a table: measure and value."""
    rows = [("Compared on", f"{verification['num_samples']} samples: {verification['data']}")]
    if verification["labelled"]:
        rows += [
            ("Accuracy of the checkpoint", f"{verification['reference_acc']:.2f}%"),
            ("Accuracy of this file", f"{verification['exported_acc']:.2f}%"),
            (
                "Right in one only",
                f"checkpoint {verification['reference_only']}, this file {verification['exported_only']} "
                f"(exact McNemar p = {verification['p_value']:.3g})",
            ),
        ]
    difference = verification["max_logit_difference"]
    return [
        *rows,
        ("Same class predicted", f"{verification['agreement_pct']:.2f}%"),
        (
            "Largest difference of logits",
            f"{'not finite' if difference is None else f'{difference:.1e}'} "
            f"(logits up to {verification['largest_logit']:.1f})",
        ),
        ("Allowed", verification["tolerance"]),
        ("Batch sizes tried", ", ".join(map(str, verification["batch_sizes"]))),
    ]


def speed_sentence(document: Mapping[str, Any]) -> str:
    """The measured time, and how it compares."""
    speed = document["speed"]
    return (
        f"{speed['median_ms']:.3f} ms (median) for one sample on one core of {document['environment']['cpu']}: "
        f"{speed['verdict']} ({speed['baseline_ms']:.3f} ms; speed ratio {speed['speedup']:.2f}, 95% interval "
        f"{speed['low']:.2f} to {speed['high']:.2f}; measured in turns, {format_count(speed['num_calls'])} calls)."
    )


def size_words(file: Mapping[str, Any]) -> str:
    """``44.7 MB``, with the share of the fp32 file where it was quantised."""
    size = format_bytes(file["size_bytes"])
    fp32_bytes = file["fp32_size_bytes"]
    return size if fp32_bytes is None else f"{size} ({100 * file['size_bytes'] / fp32_bytes:.0f}% of fp32)"


def _file_rows(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    file, checkpoint, model = document["file"], document["checkpoint"], document["model"]
    opset = "" if file["opset"] is None else f", opset {file['opset']}"
    return [
        ("Format", f"{FORMATS[file['format']].title}{opset}, {file['precision']}"),
        ("Size", size_words(file)),
        ("SHA-256", file["sha256"]),
        ("Architecture", f"{model['architecture']}, {format_count(model['num_parameters'])} parameters"),
        ("Checkpoint", checkpoint["path"]),
        ("Checkpoint's SHA-256", checkpoint["sha256"]),
        ("Git commit of the training", _spoken(checkpoint["git_commit"])),
        ("Validation accuracy when trained", _percent(checkpoint["val_acc"])),
        ("Test accuracy of the checkpoint", _percent(checkpoint["test_acc"])),
    ]


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}%"


def _spoken(value: object) -> str:
    if value is None:
        return "n/a"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _versions() -> dict[str, str]:
    """Versions of what is installed of the packages that matter."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.import_module(name).__version__
        except ImportError:
            continue
    return found
