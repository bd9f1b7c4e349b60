"""Checkpoints of quickly trained models, and models that exporters stumble over."""

from __future__ import annotations

import functools
import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.checkpoints import to_bytes
from common.config import config_from_mapping, config_to_mapping
from common.data import Dataset, load_dataset
from common.export.evaluation_data import LabelledInputs
from common.export.source import ExportSource, load_source
from common.export.verification import Outputs, run_over
from common.inference.torch_engines import TorchEngine
from common.models import build_model, count_parameters
from tests.training_runs import config_mapping

HERE = "tests.exported_models"
EPOCHS = 4


def checkpoint_file(folder: Path, architecture: str = "simple_cnn", source: str = "digits", **spec: Any) -> Path:
    """``checkpoints/final_model_best.pt`` in ``folder``; ``spec`` are further arguments of the architecture."""
    path = folder / "checkpoints" / "final_model_best.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_checkpoint(architecture, source, tuple(sorted(spec.items()))))
    return path


def source_of(folder: Path, architecture: str = "simple_cnn", source: str = "digits", **spec: Any) -> ExportSource:
    """The same, loaded for export."""
    return load_source(checkpoint_file(folder, architecture, source, **spec))


def held_out(source: str = "digits") -> LabelledInputs:
    """The test split of a bundled data set."""
    return LabelledInputs(f"{source}, test split", dataset(source).splits["test"], is_test=True)


def reference(source: ExportSource, inputs: LabelledInputs) -> Outputs:
    """What the checkpoint answers."""
    engine = TorchEngine(source.path, source.model, source.metadata, torch.device("cpu"), torch.get_num_threads())
    return run_over(engine, inputs)


def contents(archive_or_model: bytes) -> bytes:
    """All bytes of a file, those of a zip archive decompressed, one after another."""
    if not archive_or_model.startswith(b"PK"):
        return archive_or_model
    with zipfile.ZipFile(io.BytesIO(archive_or_model)) as archive:
        return b"\n".join(name.encode() + archive.read(name) for name in archive.namelist())


@functools.cache
def dataset(source: str) -> Dataset:
    """A bundled data set; nothing is written."""
    return load_dataset(source, write_files=False)


@functools.cache
def _checkpoint(architecture: str, source: str, spec: tuple[tuple[str, Any], ...]) -> bytes:
    """Trained for a few passes, so that its answers mean something; once in a process."""
    data, arguments = dataset(source), dict(spec)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(
            architecture, input_shape=data.input_shape, num_classes=data.num_classes, dropout=0.0,
            architecture_args=arguments,
        )  # fmt: skip
        _train(model, data)
    model_spec = {
        "architecture": architecture,
        "architecture_args": arguments,
        "input_shape": list(data.input_shape),
        "num_classes": data.num_classes,
        "dropout": 0.0,
        "hidden_dims": None,
        "activation": "relu",
        "class_names": list(data.class_names),
        "preprocessing": data.preprocessing(),
        "num_parameters": count_parameters(model),
    }
    mapping = config_mapping(data__source=source, model__architecture=architecture, model__hidden_dims=None)
    config = config_to_mapping(config_from_mapping(mapping, "config of a test"))
    content = {"schema_version": 1, "epoch": EPOCHS, "step": 1, "model_state_dict": model.state_dict(),
               "val_loss": 0.5, "val_acc": 90.0, "config": config, "model_spec": model_spec}  # fmt: skip
    return to_bytes(content)


def _train(model: nn.Module, data: Dataset) -> None:
    split = data.splits["train"]
    inputs = data.normalizer()(split.inputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for indices in torch.randperm(split.num_samples).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs[indices]), split.labels[indices]).backward()
            optimizer.step()


class Erfcx(nn.Module):
    """A layer whose operator ONNX does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.erfcx(x)


class WithUnknownOperator(nn.Module):
    """A perceptron with that layer in its middle, named ``body.strange``."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        size = torch.Size(input_shape).numel()
        self.body = nn.Sequential()
        self.body.add_module("flatten", nn.Flatten())
        self.body.add_module("first", nn.Linear(size, 8))
        self.body.add_module("strange", Erfcx())
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Branching(nn.Module):
    """A layer that looks at values to decide what to compute."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x - 1


class WithBranch(WithUnknownOperator):
    """The same perceptron with a branch on values in its middle."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.body.strange = Branching()


class NotTraceable(nn.Module):
    """A layer that leaves PyTorch for NumPy in a way that no tracer can follow."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            raise RuntimeError("this layer cannot be traced")
        return x


class WithUntraceableLayer(WithUnknownOperator):
    """The same perceptron with a layer that refuses to be traced."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(input_shape, num_classes)
        self.body.strange = NotTraceable()


class FixedBatch(nn.Module):
    """A perceptron that writes its batch size into the graph when traced."""

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.size = torch.Size(input_shape).numel()
        self.head = nn.Linear(self.size, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.reshape(int(x.shape[0]), self.size))
