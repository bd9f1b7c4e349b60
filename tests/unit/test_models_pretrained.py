"""Starting from given weights: what is taken over, what keeps its initialisation, what is refused."""

from __future__ import annotations

import pickle
import random

import pytest
import torch

from common.exits import Exit, InputFileError
from common.models import build_model


def cnn(num_classes: int = 4, channels: int = 1, pretrained=None, hidden_dims=(4, 6)):
    return build_model(
        "simple_cnn",
        input_shape=(channels, 8, 8),
        num_classes=num_classes,
        hidden_dims=hidden_dims,
        pretrained=pretrained,
    )


@pytest.fixture
def source():
    torch.manual_seed(7)
    return cnn()


def save(content, path):
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model_state_dict": state, "epoch": 3},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
    ],
    ids=["plain", "checkpoint", "distributed", "compiled"],
)
def test_all_weights_are_taken_over(source, tmp_path, wrap):
    path = save(wrap(source.state_dict()), tmp_path / "weights.pt")
    loaded = cnn(pretrained=path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in source.state_dict().items())


def test_a_classifier_of_other_size_keeps_its_initialisation_and_the_log_says_so(source, tmp_path, caplog):
    path = save(source.state_dict(), tmp_path / "weights.pt")
    torch.manual_seed(1)
    fresh = cnn(num_classes=9).state_dict()
    torch.manual_seed(1)
    loaded = cnn(num_classes=9, pretrained=path).state_dict()
    assert torch.equal(loaded["head.weight"], fresh["head.weight"])
    assert torch.equal(loaded["block2.0.weight"], source.state_dict()["block2.0.weight"])
    assert "head.weight, head.bias keep their initialisation" in caplog.text
    assert caplog.records[0].name == "ml_trainer"


def test_the_first_layer_may_see_other_channels(source, tmp_path, caplog):
    path = save(source.state_dict(), tmp_path / "weights.pt")
    loaded = cnn(channels=3, pretrained=path).state_dict()
    assert torch.equal(loaded["head.weight"], source.state_dict()["head.weight"])
    assert "block1.0.weight keep" in caplog.text


def test_weights_for_large_images_start_a_resnet_for_small_ones(tmp_path, caplog):
    large = build_model("resnet18", input_shape=(3, 64, 64), num_classes=5).state_dict()
    without_counters = {name: tensor for name, tensor in large.items() if not name.endswith("num_batches_tracked")}
    path = save(without_counters, tmp_path / "resnet18.pth")
    loaded = build_model("resnet18", input_shape=(3, 32, 32), num_classes=2, pretrained=path).state_dict()
    assert torch.equal(loaded["layer4.1.conv2.weight"], large["layer4.1.conv2.weight"])
    assert "conv1.weight, fc.weight, fc.bias keep their initialisation" in caplog.text


def test_another_architecture_is_refused(source, tmp_path):
    path = save(cnn(hidden_dims=(4, 7)).state_dict(), tmp_path / "other.pt")
    shapes = r"`block2.0.weight` is \(7, 4, 3, 3\) there and \(6, 4, 3, 3\) here \(and 4 more\)"
    with pytest.raises(InputFileError, match=shapes) as caught:
        cnn(pretrained=path)
    assert caught.value.exit == Exit.BAD_INPUT
    assert caught.value.path == path
    missing = {name: tensor for name, tensor in source.state_dict().items() if name != "block2.1.bias"}
    with pytest.raises(InputFileError, match=r"`block2\.1\.bias` is missing there"):
        cnn(pretrained=save(missing, tmp_path / "missing.pt"))


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, {"model_state_dict": {"a": "b"}}], ids=str)
def test_files_without_a_state_dict_are_refused(tmp_path, content):
    with pytest.raises(InputFileError, match="holds no state dict"):
        cnn(pretrained=save(content, tmp_path / "odd.pt"))


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_file_is_never_run(tmp_path):
    trace = tmp_path / "was-run"
    for name, dump in (
        ("zip.pt", torch.save),
        ("bare.pt", lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))),
    ):
        dump({"weights": RunsCode(trace)}, tmp_path / name)
        with pytest.raises(InputFileError, match="more than tensors"):
            cnn(pretrained=tmp_path / name)
    assert not trace.exists()


def test_missing_truncated_and_foreign_files_are_named(source, tmp_path):
    path = save(source.state_dict(), tmp_path / "weights.pt")
    broken = tmp_path / "broken.pt"
    for content in (path.read_bytes()[:-100], b"", b"PK\x03\x04 no archive", b"hello", b"\x80\x02}q"):
        broken.write_bytes(content)
        with pytest.raises(InputFileError, match=r"broken\.pt: model\.pretrained: "):
            cnn(pretrained=broken)
    with pytest.raises(InputFileError, match=r"absent\.pt: model\.pretrained: cannot be read \(No such file"):
        cnn(pretrained=tmp_path / "absent.pt")
    with pytest.raises(InputFileError, match="cannot be read"):
        cnn(pretrained=tmp_path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_damage_anywhere_in_the_structure_is_reported_or_harmless(source, tmp_path, zipped):
    path = tmp_path / "weights.pt"
    torch.save(source.state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    stream = random.Random(0)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[stream.randrange(len(damaged) // 3)] = stream.randrange(256)
        path.write_bytes(damaged)
        try:
            cnn(pretrained=path)
            outcomes.add("loaded")
        except InputFileError:
            outcomes.add("refused")
    assert "refused" in outcomes
