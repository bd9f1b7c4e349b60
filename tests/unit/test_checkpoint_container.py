"""What is said of a sound checkpoint is what torch.load finds in it."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from common.checkpoint_container import TensorRef, describe, find_value_problems, verify
from tests.checkpoint_samples import MODEL_SPEC, checkpoint, save

ROOT = Path(__file__).resolve().parents[2]


def flatten(value, path=()):
    if isinstance(value, torch.Tensor):
        yield "/".join(path), value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from flatten(child, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for number, child in enumerate(value):
            yield from flatten(child, (*path, str(number)))


VIEWS = {
    "plain": torch.arange(6.0).view(2, 3),
    "scalar": torch.tensor(3),
    "empty": torch.zeros(0, 4),
    "bfloat16": torch.arange(5, dtype=torch.bfloat16),
    "half": torch.ones(2, dtype=torch.float16),
    "bool": torch.tensor([True, False]),
    "complex": torch.ones(2, dtype=torch.complex64),
    "uint16": torch.ones(3, dtype=torch.uint16),
    "float8": torch.ones(3).to(torch.float8_e4m3fn),
    "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "slice": torch.arange(10.0)[2:8:2],
    "transposed": torch.arange(6.0).view(2, 3).t(),
    "expanded": torch.ones(1).expand(4),
    "parameter": nn.Parameter(torch.ones(2, 2)),
}


def test_tensors_are_those_that_torch_loads(tmp_path):
    path = save({"views": VIEWS, **checkpoint()}, tmp_path / "file.pt")
    loaded = dict(flatten(torch.load(path, weights_only=True)))
    described = {tensor.name: tensor for tensor in describe(path).tensors}
    assert list(described) == list(loaded)
    for name, tensor in loaded.items():
        entry = described[name]
        assert (f"torch.{entry.dtype}", entry.shape) == (str(tensor.dtype), tuple(tensor.shape))
        assert entry.stride == tensor.stride()
        assert entry.is_parameter == isinstance(tensor, nn.Parameter)


def test_file_offset_points_at_the_values(tmp_path):
    base = torch.arange(100.0)
    path = save({"a": base[10:20], "b": base}, tmp_path / "file.pt")
    content = path.read_bytes()
    for tensor in describe(path).tensors:
        first = np.frombuffer(content, "<f4", count=1, offset=tensor.file_offset)[0]
        assert first == (10 if tensor.name == "a" else 0)


def test_our_own_checkpoint(tmp_path):
    path = save(checkpoint(model_spec=MODEL_SPEC), tmp_path / "file.pt")
    described = describe(path)
    assert (described.epoch, described.step, described.val_loss, described.val_acc) == (5, 50, 0.745, 78.9)
    assert described.num_parameters == 43
    assert described.has_optimizer_state
    assert described.unsafe_globals == () and described.damages == ()
    assert described.metadata["model_spec"] == MODEL_SPEC
    assert isinstance(described.metadata["model_state_dict"]["0.weight"], TensorRef)
    assert [tensor.name for tensor in described.weights][:2] == ["model_state_dict/0.weight", "model_state_dict/0.bias"]


def test_statistics_of_normalisation_are_no_parameters(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    path = save({"model_state_dict": model.state_dict()}, tmp_path / "file.pt")
    assert describe(path).num_parameters == sum(p.numel() for p in model.parameters())


def test_resnet18_has_its_documented_number_of_parameters(tmp_path):
    from common.models import build_model

    model = build_model("resnet18", input_shape=(3, 224, 224), num_classes=1000, dropout=0.0)
    path = save({"state_dict": model.state_dict()}, tmp_path / "file.pt")
    assert describe(path).num_parameters == 11_689_512


def test_tied_weights_count_once(tmp_path):
    weight = torch.zeros(5, 3)
    path = save({"model_state_dict": {"encoder": weight, "decoder": weight}}, tmp_path / "file.pt")
    assert describe(path).num_parameters == 15


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"w": torch.zeros(2, 3), "b": torch.zeros(3)}, (None, None, None, 9, False)),
        ({"state_dict": {"w": torch.zeros(4)}}, (None, None, None, 4, False)),
        ({"model_state_dict": {"w": torch.zeros(4)}, "epoch": 7}, (7, None, None, 4, False)),
        ({"model": {"w": torch.zeros(4)}, "optimizer": {"state": {}}}, (None, None, None, 4, True)),
        ({"epoch": 2, "metrics": {"val_loss": 0.5, "val_acc": 91}}, (2, 0.5, 91.0, None, False)),
        ({"epoch": "three", "val_loss": [1]}, (None, None, None, None, False)),
        ([torch.zeros(2)], (None, None, None, None, False)),
        (torch.zeros(2), (None, None, None, None, False)),
    ],
)
def test_foreign_checkpoints_say_what_they_have(tmp_path, content, expected):
    described = describe(save(content, tmp_path / "file.pt"))
    assert (
        described.epoch,
        described.val_loss,
        described.val_acc,
        described.num_parameters,
        described.has_optimizer_state,
    ) == expected
    assert verify(described.path).status == "ok"


def test_a_file_saved_by_path_is_regular_too(tmp_path):
    path = tmp_path / "by path.pt"
    torch.save(checkpoint(), path)
    assert verify(path).status == "ok"
    assert describe(path).records[0].name == "by path/data.pkl"


def test_values_that_no_healthy_training_leaves(tmp_path):
    tensors = {
        "nan": torch.tensor([1.0, math.nan, math.inf]),
        "infinite": torch.tensor([[-math.inf, 0.0]]),
        "zero": torch.zeros(3, 3),
        "constant": torch.full((4,), 2.5),
        "healthy": torch.arange(4.0),
        "one": torch.ones(1),
        "whole": torch.zeros(4, dtype=torch.int64),
        "nan_bfloat16": torch.tensor([1.0, math.nan], dtype=torch.bfloat16),
        "large_bfloat16": torch.tensor([1e38, 1.0], dtype=torch.bfloat16),
        "nan_half": torch.tensor([math.nan, 1.0], dtype=torch.float16),
        "nan_complex": torch.tensor([complex(0, math.nan), 1j]),
        "between": torch.tensor([1.0, math.nan, 2.0, math.nan])[::2],
        "strided_nan": torch.tensor([1.0, 0.0, math.nan, 0.0])[::2],
        "strided_half": torch.tensor([[1.0, 2.0], [math.nan, 3.0]], dtype=torch.bfloat16)[:, 0],
        "expanded": torch.ones(1).expand(1000),
    }
    path = save({"model_state_dict": tensors, "other": torch.zeros(5)}, tmp_path / "file.pt")
    found = {p.tensor.partition("/")[2]: (p.kind, p.count) for p in find_value_problems(describe(path))}
    assert found == {
        "nan": ("nan", 2),
        "infinite": ("infinite", 1),
        "zero": ("all zero", 9),
        "constant": ("constant", 4),
        "nan_bfloat16": ("nan", 1),
        "nan_half": ("nan", 1),
        "nan_complex": ("nan", 1),
        "strided_nan": ("nan", 1),
        "strided_half": ("nan", 1),
        "expanded": ("constant", 1000),
    }


def test_a_problem_in_a_later_block_is_seen(tmp_path):
    values = torch.zeros(3 * 2**18)
    values[-1] = math.nan
    path = save({"optimizer_state_dict": {"exp_avg": values}}, tmp_path / "file.pt")
    (problem,) = find_value_problems(describe(path))
    assert (problem.kind, problem.count, problem.is_weight) == ("nan", 1, False)


def test_neither_torch_nor_pickle_is_imported(tmp_path):
    path = save(checkpoint(), tmp_path / "file.pt")
    code = (
        "import sys, checkpoint_inspector\n"
        f"assert checkpoint_inspector.main(['--checkpoint', {str(path)!r}, '--no-verify']) == 0\n"
        "print(sorted({'torch', 'numpy', 'pickle'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[]\n")
