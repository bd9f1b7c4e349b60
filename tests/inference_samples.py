"""A small trained classifier as a file of every format, and test data of every kind for it."""

from __future__ import annotations

import functools
import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from common.checkpoints import build_from_spec
from common.model_metadata import EXTRA_FILE, INPUT_NAME, ONNX_KEY, OUTPUT_NAME, ModelMetadata

CLASS_NAMES = ["ant", "bee", "cat"]
PER_CLASS = 12
MEAN, STD = [0.45], [0.3]
MODEL_SPEC = {
    "architecture": "simple_mlp",
    "architecture_args": {},
    "input_shape": [1, 6, 6],
    "num_classes": 3,
    "dropout": 0.0,
    "hidden_dims": [16],
    "activation": "relu",
    "class_names": CLASS_NAMES,
    "preprocessing": {"kind": "image", "resize": None, "mean": MEAN, "std": STD},
}
METADATA = ModelMetadata(model_spec=MODEL_SPEC, checkpoint_sha256="0" * 64, val_acc=90.0, test_acc=88.8)


@functools.cache
def images() -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, 1, 6, 6) and class indices (N,), sorted by class: noise whose left, middle or right third is bright."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(3), PER_CLASS)
    pixels = rng.integers(0, 150, size=(len(labels), 1, 6, 6))
    for index, label in enumerate(labels):
        pixels[index, :, :, 2 * label : 2 * label + 2] += rng.integers(0, 100)
    return pixels.astype(np.uint8), labels


def normalized() -> torch.Tensor:
    """What the model is to be fed, written out here once more: float32 (N, 1, 6, 6)."""
    return torch.from_numpy((images()[0] / 255.0 - MEAN[0]) / STD[0]).float()


@functools.cache
def trained_model() -> nn.Module:
    """In eval mode; good, but not perfect on the data above."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_from_spec(MODEL_SPEC)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        inputs, labels = normalized(), torch.from_numpy(images()[1])
        for _ in range(15):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    return model.eval()


def expected_predictions() -> np.ndarray:
    """Class indices that the model gives for ``images()``."""
    with torch.inference_mode():
        return trained_model()(normalized()).argmax(dim=1).numpy()


def expected_accuracy_pct() -> float:
    return 100.0 * float((expected_predictions() == images()[1]).mean())


def write_folder(folder: Path, names: list[str] = CLASS_NAMES) -> Path:
    """``folder/<class>/NN.png``."""
    for index, (pixels, label) in enumerate(zip(*images(), strict=True)):
        path = folder / names[label] / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0]).save(path)
    return folder


def write_npz(path: Path) -> Path:
    pixels, labels = images()
    np.savez(path, x=pixels, y=labels, class_names=np.array(CLASS_NAMES))
    return path


def write_checkpoint(path: Path) -> Path:
    content = {
        "schema_version": 1,
        "epoch": 1,
        "step": 1,
        "model_state_dict": trained_model().state_dict(),
        "val_acc": 90.0,
        "model_spec": MODEL_SPEC,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getvalue())
    return path


def write_onnx(
    path: Path,
    metadata: ModelMetadata | None = METADATA,
    *,
    model: nn.Module | None = None,
    batch_size: int | None = None,
) -> Path:
    """``batch_size`` None leaves it open."""
    import onnx

    example = torch.zeros(batch_size or 1, *MODEL_SPEC["input_shape"])
    dynamic = {INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}} if batch_size is None else None
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model or trained_model(), (example,), buffer, dynamo=False, opset_version=17,
            input_names=[INPUT_NAME], output_names=[OUTPUT_NAME], dynamic_axes=dynamic,
        )  # fmt: skip
    proto = onnx.load_from_string(buffer.getvalue())
    if metadata is not None:
        proto.metadata_props.add(key=ONNX_KEY, value=metadata.to_json())
    path.write_bytes(proto.SerializeToString())
    return path


def write_torchscript(path: Path, metadata: ModelMetadata | None = METADATA) -> Path:
    extra = {} if metadata is None else {EXTRA_FILE: metadata.to_json()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(trained_model(), normalized()[:2]), str(path), _extra_files=extra)
    return path


def write_exported(path: Path) -> Path:
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(trained_model(), (normalized()[:2],), dynamic_shapes=({0: batch},))
    torch.export.save(program, str(path), extra_files={EXTRA_FILE: METADATA.to_json()})
    return path
