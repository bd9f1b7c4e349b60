"""The models and inputs that the inference benchmarks run on."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch

from common.inference.engines import Engine, open_model
from common.model_metadata import INPUT_NAME, ONNX_KEY, OUTPUT_NAME, ModelMetadata
from common.models import build_model

NUM_CLASSES = 10
# The untrained simple_cnn takes about 0.2 ms on 32 x 32 pixels, the length of call that the harness is held to.
INPUT_SHAPE = (3, 32, 32)
NUM_INPUTS = 64


def small_cnn(path: Path, num_threads: int) -> Engine:
    """An untrained ``simple_cnn`` in ONNX Runtime: how long a call takes does not hang on the weights."""
    torch.manual_seed(0)
    model = build_model("simple_cnn", input_shape=INPUT_SHAPE, num_classes=NUM_CLASSES).eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.zeros(1, *INPUT_SHAPE),), buffer, dynamo=False, opset_version=17,
            input_names=[INPUT_NAME], output_names=[OUTPUT_NAME],
        )  # fmt: skip
    proto = onnx.load_from_string(buffer.getvalue())
    proto.metadata_props.add(key=ONNX_KEY, value=_metadata().to_json())
    path.write_bytes(proto.SerializeToString())
    return open_model(path, "cpu", num_threads)


def inputs() -> list[npt.NDArray[np.float32]]:
    """Batches of one sample, normal noise as normalised data has it."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, *INPUT_SHAPE), dtype=np.float32) for _ in range(NUM_INPUTS)]


def _metadata() -> ModelMetadata:
    spec = {
        "architecture": "simple_cnn",
        "input_shape": list(INPUT_SHAPE),
        "class_names": [str(number) for number in range(NUM_CLASSES)],
        "preprocessing": {"kind": "image", "resize": None, "mean": [0.5] * 3, "std": [0.25] * 3},
    }
    return ModelMetadata(model_spec=spec, checkpoint_sha256="0" * 64)
