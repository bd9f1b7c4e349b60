"""``deployment_guide.md``: how to use the exported files of one checkpoint, and what to watch once they are in use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import markdown
from common.export.formats import FORMATS
from common.export.guide_code import inference_program
from common.export.report import KIND, report_paths, size_words
from common.export.workspace import write_report
from common.manifest import sha256_of_file

NAME = "deployment_guide.md"
_TORCH_FORMATS = ("pt2", "torchscript")

Document = Mapping[str, Any]


def write_guide(folder: Path, documents: Sequence[Document], checkpoint: Path) -> Path:
    """Write the guide for these exports and for earlier ones of the same checkpoint that still lie in ``folder``.

    Raises:
        EnvironmentLackError: it cannot be written.
    """
    path = folder / NAME
    write_report(path, guide(_with_earlier(folder, documents), folder, checkpoint))
    return path


def guide(documents: Sequence[Document], folder: Path, checkpoint: Path) -> str:
    """The guide's text. ``documents`` are reports on files of one checkpoint in ``folder``, the newest first."""
    model = documents[0]["model"]
    return markdown.document(
        f"Deployment guide: {model['architecture']}",
        [
            ("Overview", _overview(documents)),
            ("Input", _input(model)),
            ("Output", _output(model)),
            ("Inference with ONNX Runtime", _onnx_section(documents)),
            ("Inference with PyTorch", _torch_section(documents, checkpoint)),
            ("Measured performance", _performance(documents, folder)),
            ("Monitoring", _monitoring(documents)),
            ("Troubleshooting", _troubleshooting()),
        ],
    )


def _with_earlier(folder: Path, documents: Sequence[Document]) -> list[Document]:
    names = {document["file"]["name"] for document in documents}
    found = list(documents)
    for path in sorted(folder.glob("*.json")):
        document = _own_report(path, documents[0])
        if (
            document is not None
            and document["file"]["name"] not in names
            and document["checkpoint"]["sha256"] == documents[0]["checkpoint"]["sha256"]
            and _is_intact(folder, document["file"])
        ):
            found.append(document)
    return found


def _own_report(path: Path, like: Document) -> Document | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("kind") != KIND or document.get("schema_version") != 1:
        return None
    return document if _has_fields_of(like, document) else None


def _has_fields_of(like: Document, document: Document) -> bool:
    """Whether every section that the guide reads has the fields of a report that was written just now."""
    sections = ("file", "checkpoint", "model", "verification", "speed", "environment")
    return all(isinstance(document.get(name), dict) and like[name].keys() <= document[name].keys() for name in sections)


def _is_intact(folder: Path, file: Mapping[str, Any]) -> bool:
    """Whether the file that a report describes is there as it was; a report beside it carries its name."""
    path = folder / Path(file["name"]).name
    return report_paths(path)[0].is_file() and path.is_file() and sha256_of_file(path) == file["sha256"]


def _overview(documents: Sequence[Document]) -> str:
    model, checkpoint = documents[0]["model"], documents[0]["checkpoint"]
    rows = [
        (
            f"`{document['file']['name']}`",
            FORMATS[document["file"]["format"]].title,
            document["file"]["precision"],
            size_words(document["file"]),
            document["file"]["sha256"][:16],
        )
        for document in documents
    ]
    return (
        f"A classifier of {len(model['class_names'])} classes with {model['num_parameters']:,} parameters, from the "
        f"checkpoint with SHA-256 `{checkpoint['sha256'][:16]}`. Every file below was compared with it, sample by "
        "sample, before it was written.\n\n"
        + markdown.table(["File", "Format", "Precision", "Size", "SHA-256 begins"], rows)
        + "\n\nEach file carries class names, preprocessing and origin in its own metadata; the programs below read "
        "them from there. TorchScript is deprecated in PyTorch: for new work choose ONNX, or `.pt2` with PyTorch."
    )


def _input(model: Mapping[str, Any]) -> str:
    spec = model["preprocessing"]
    shape = ", ".join(["batch", *map(str, model["input_shape"])])
    if len(model["input_shape"]) == 3:
        channels = "one grey channel" if model["input_shape"][0] == 1 else "RGB channels"
        resize = (
            "Resize to {} x {} pixels (height x width), bilinear with antialiasing.".format(*spec["resize"])
            if spec["resize"]
            else "Take the image at its size; another size than the model's must be resized first (bilinear)."
        )
        steps = [
            f"Decode upright (EXIF orientation applied) to {channels}.",
            resize,
            "Divide by 255, so that values are from 0 to 1.",
            "Subtract the mean and divide by the standard deviation of each channel.",
            "Put the channels first: NCHW.",
        ]
    else:
        steps = [
            "Put the columns into the order they had in training.",
            "Subtract the mean and divide by the standard deviation of each column.",
        ]
    rows = [("Name", f"`{model['input_name']}`"), ("Type", "float32"), ("Shape", f"({shape}), any batch size"),
            ("Mean", _numbers(spec["mean"])), ("Standard deviation", _numbers(spec["std"]))]  # fmt: skip
    numbered = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    return f"{markdown.table(['Property', 'Value'], rows)}\n\nPreprocessing is not part of the model:\n\n{numbered}"


def _output(model: Mapping[str, Any]) -> str:
    names = model["class_names"]
    shown = ", ".join(f"{index}: {name}" for index, name in enumerate(names[:20]))
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return (
        f"`{model['output_name']}`, float32, shape (batch, {len(names)}): unnormalised scores. The largest is the "
        "predicted class; softmax turns them into probabilities, which are not calibrated unless you calibrate them."
        f"\n\nClasses in order: {shown}{more}."
    )


def _onnx_section(documents: Sequence[Document]) -> str:
    document = _first_of(documents, ("onnx",))
    if document is None:
        return "No ONNX file was exported; `python export_model.py --format onnx` writes one."
    return (
        "`pip install onnxruntime numpy pillow`, then, in the folder of the model:\n\n"
        + _program("onnx", document)
        + "\n\nOn a GPU: `pip install onnxruntime-gpu`, put `CUDAExecutionProvider` first in `providers`, and check "
        "`session.get_providers()`: ONNX Runtime falls back to the CPU without an error."
    )


def _torch_section(documents: Sequence[Document], checkpoint: Path) -> str:
    document = _first_of(documents, _TORCH_FORMATS)
    if document is not None:
        return (
            "`pip install torch numpy pillow`, then, in the folder of the model. Both kinds of file are programs: load "
            "only what you trust.\n\n" + _program(document["file"]["format"], document)
        )
    images = len(documents[0]["model"]["input_shape"]) == 3
    code = inference_program("checkpoint", str(checkpoint), images=images)
    return (
        "No PyTorch file was exported (`--format pt2` writes one that needs nothing of this project). From the "
        "checkpoint, in the folder of this project:\n\n" + markdown.code_block(code, "python")
    )


def _program(kind: str, document: Document) -> str:
    images = len(document["model"]["input_shape"]) == 3
    return markdown.code_block(inference_program(kind, document["file"]["name"], images=images), "python")


def _performance(documents: Sequence[Document], folder: Path) -> str:
    rows = []
    for document in documents:
        speed, verification = document["speed"], document["verification"]
        accuracy = verification["exported_acc"]
        rows.append(
            (
                f"`{document['file']['name']}`",
                "n/a" if accuracy is None else f"{accuracy:.2f}%",
                f"{verification['agreement_pct']:.2f}%",
                f"{speed['median_ms']:.3f}",
                speed["verdict"],
            )
        )
    verification = documents[0]["verification"]
    return (
        markdown.table(["File", "Accuracy", "Agrees with checkpoint", "ms a sample", "Speed"], rows)
        + f"\n\nAccuracy on {verification['data']} ({verification['num_samples']} samples). Time: median of one sample "
        f"at a time on one core of {documents[0]['environment']['cpu']}, without preprocessing. Measure on the machine "
        "of the deployment, at its batch size:\n\n"
        + markdown.code_block(
            f"python test_inference.py --model {folder / documents[0]['file']['name']} --test-data data/test/ "
            "--batch-size 1",
            "bash",
        )
    )


def _monitoring(documents: Sequence[Document]) -> str:
    accuracy = documents[0]["checkpoint"]["test_acc"]
    expected = "the measured one" if accuracy is None else f"{accuracy:.1f}%"
    return markdown.bullet_list(
        [
            "**Inputs**: mean and standard deviation of the prepared inputs per hour. They were 0 and 1 in training; a "
            "shift of more than 0.1 means that preprocessing or the world has changed.",
            "**Predictions**: the share of each class per day against that of the training data.",
            "**Confidence**: the mean of the largest probability. It falls before accuracy can be measured.",
            f"**Accuracy**: label a random sample every week and compare with {expected}; 400 labels tell a loss of 5 "
            "points at 90% (standard error 1.5 points).",
            "**Latency**: p50, p95 and p99, and errors; p99 needs 662 calls or more to mean anything.",
            "**Retrain** when the accuracy on fresh labels has fallen by more than its standard error explains; keep "
            "the old file, so that going back is one rename.",
        ],
        empty="",
    )


def _troubleshooting() -> str:
    return markdown.table(
        ["Symptom", "Cause", "Remedy"],
        [
            (
                "Accuracy far below the report's",
                "other preprocessing: BGR for RGB, no division by 255, another resize",
                "feed one training image through both programs and compare the prepared arrays",
            ),
            (
                "INVALID_ARGUMENT: Unexpected input data type",
                "float64 or uint8 input",
                "`.astype(np.float32)` at the end",
            ),
            ("Got invalid dimensions", "HWC for CHW, or no batch axis", "`.transpose(2, 0, 1)[None]`"),
            (
                "The GPU is idle",
                "ONNX Runtime without CUDA runs on the CPU silently",
                "look at `session.get_providers()`",
            ),
            ("int8 is slow", "a CPU without VNNI, or a model of few weights", "deploy the fp32 file; see the table"),
            ("First call slow", "memory is allocated, kernels are chosen", "call it once at start-up"),
            ("Unsupported opset", "an old runtime", "export again with `--opset 13`"),
        ],
    )


def _first_of(documents: Sequence[Document], formats: Sequence[str]) -> Document | None:
    """By format in the order given, and within one the unquantised before others."""
    of_interest = [document for document in documents if document["file"]["format"] in formats]

    def rank(document: Document) -> tuple[int, bool]:
        return formats.index(document["file"]["format"]), document["file"]["precision"] != "fp32"

    return min(of_interest, key=rank, default=None)


def _numbers(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:.6g}" for value in values[:8])
    return f"{shown}, ... ({len(values)} values, in the metadata)" if len(values) > 8 else shown
