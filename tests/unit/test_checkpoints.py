"""Writing checkpoints and loading them: whole or not at all, never more than plain values, never silently wrong."""

from __future__ import annotations

import hashlib
import os
import pickle

import pytest
import torch

from common import checkpoints
from common.checkpoints import CheckpointStore, build_from_spec, inference_state, load_checkpoint, load_model, to_bytes
from common.exits import CheckFailedError, InputFileError
from common.manifest import read_manifest, sound_checkpoints

SPEC = {
    "architecture": "simple_mlp", "architecture_args": {}, "input_shape": [3], "num_classes": 2, "dropout": 0.5,
    "hidden_dims": [4], "activation": "relu",
}  # fmt: skip


def checkpoint(step: int = 1, **more) -> dict:
    torch.manual_seed(step)
    model = build_from_spec(SPEC)
    return {"schema_version": 1, "epoch": step, "step": step, "model_state_dict": model.state_dict(),
            "model_spec": SPEC, **more}  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints")


def save(store: CheckpointStore, *names: str, step: int = 1) -> bytes:
    content = to_bytes(checkpoint(step))
    store.save(names, content, epoch=step, step=step)
    return content


# The hash of a state


def test_the_hash_knows_every_part_of_a_state():
    state = {"a": torch.arange(4.0), "b": torch.zeros(2, 2)}
    same = {"a": torch.arange(4.0).clone(), "b": torch.zeros(2, 2)}
    assert checkpoints.state_sha256(state) == checkpoints.state_sha256(same)
    others = [
        {"b": torch.zeros(2, 2), "a": torch.arange(4.0)},
        {"a": torch.arange(4.0), "c": torch.zeros(2, 2)},
        {"a": torch.arange(4.0).double(), "b": torch.zeros(2, 2)},
        {"a": torch.arange(4.0), "b": torch.zeros(4)},
        {"a": torch.arange(4.0), "b": torch.tensor([[0.0, 0.0], [0.0, -0.0]])},
        {"a": torch.arange(4.0)},
    ]
    hashes = {checkpoints.state_sha256(other) for other in [state, *others]}
    assert len(hashes) == len(others) + 1


def test_the_hash_does_not_know_the_layout_in_memory():
    images = torch.randn(2, 3, 4, 5)
    in_other_order = images.contiguous(memory_format=torch.channels_last)
    assert checkpoints.state_sha256({"w": images}) == checkpoints.state_sha256({"w": in_other_order})
    assert checkpoints.state_sha256({"w": images[:, :, 1]}) == checkpoints.state_sha256({"w": images[:, :, 1].clone()})


@pytest.mark.parametrize(
    "tensor", [torch.tensor(3), torch.zeros(0), torch.ones(2, dtype=torch.bool), torch.ones(2).half()]
)
def test_every_kind_of_tensor_has_a_hash(tensor):
    assert len(checkpoints.state_sha256({"t": tensor})) == 64


# Saving


def test_the_same_content_gives_the_same_bytes():
    assert to_bytes(checkpoint()) == to_bytes(checkpoint())


def test_saving_lists_what_it_wrote(store):
    content = save(store, "best_model.pt", "last_model.pt", step=7)
    entries = read_manifest(store.folder)
    assert entries.keys() == {"best_model.pt", "last_model.pt"}
    for name, entry in entries.items():
        assert (store.folder / name).read_bytes() == content
        assert (entry.sha256, entry.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
        assert (entry.epoch, entry.step) == (7, 7)
    assert store.sizes() == dict.fromkeys(entries, len(content))


def test_a_write_that_fails_leaves_the_old_file_accounted_for(store, monkeypatch):
    """The manifest is written first; if the file itself cannot be, the file before is still a sound checkpoint."""
    before = save(store, "last_model.pt", step=1)
    real = os.replace

    def full_disk(source, target):
        if str(target).endswith(".pt"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="space"):
        save(store, "last_model.pt", step=2)
    assert (store.folder / "last_model.pt").read_bytes() == before
    assert [path.name for path in sound_checkpoints(store.folder)] == ["last_model.pt"]
    assert load_checkpoint(store.folder / "last_model.pt")["step"] == 1
    assert {path.name for path in store.folder.iterdir()} == {"last_model.pt", "manifest.json"}


def test_pruning_deletes_what_is_not_wanted_and_nothing_else(store):
    save(store, "a.pt", "b.pt", "c.pt")
    (store.folder / "foreign.pt").write_bytes(b"someone's")
    assert store.prune({"b.pt"}) == ["a.pt", "c.pt"]
    assert {path.name for path in store.folder.iterdir()} == {"b.pt", "foreign.pt", "manifest.json"}
    assert read_manifest(store.folder).keys() == {"b.pt"}
    assert store.prune({"b.pt"}) == []


def test_a_new_process_knows_what_the_last_one_saved(store):
    save(store, "last_model.pt", step=3)
    again = CheckpointStore(store.folder)
    assert again.epoch_of("last_model.pt") == 3 and again.epoch_of("best_model.pt") is None
    (store.folder / "last_model.pt").write_bytes(b"something else")
    assert again.epoch_of("last_model.pt") is None


def test_damaged_files_are_set_aside(store):
    save(store, "good.pt", "bad.pt", "short.pt")
    whole = (store.folder / "bad.pt").read_bytes()
    (store.folder / "bad.pt").write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    (store.folder / "short.pt").write_bytes(whole[:-9])
    moved = dict(store.set_aside_damaged())
    assert {path.name for path in moved} == {"bad.pt.damaged", "short.pt.damaged"} and all(moved.values())
    assert {path.name for path in store.folder.glob("*.pt")} == {"good.pt"}
    assert CheckpointStore(store.folder).sizes().keys() == {"good.pt"}


def test_an_earlier_damaged_file_is_not_lost(store):
    for content in (b"first", b"second"):
        save(store, "last_model.pt")
        (store.folder / "last_model.pt").write_bytes(content)
        store.set_aside_damaged()
    assert {path.read_bytes() for path in store.folder.glob("last_model.pt.damaged*")} == {b"first", b"second"}


# Loading


def test_what_is_saved_is_what_is_loaded(store):
    save(store, "last_model.pt", step=5)
    loaded = load_checkpoint(str(store.folder / "last_model.pt"))
    assert loaded["step"] == 5
    assert all(torch.equal(loaded["model_state_dict"][k], v) for k, v in checkpoint(5)["model_state_dict"].items())


def test_a_flipped_bit_is_refused(store):
    content = bytearray(save(store, "last_model.pt"))
    content[len(content) // 2] ^= 1
    (store.folder / "last_model.pt").write_bytes(content)
    with pytest.raises(CheckFailedError, match="damaged"):
        load_checkpoint(store.folder / "last_model.pt")


def test_a_flipped_bit_is_refused_without_a_manifest_too(tmp_path):
    content = bytearray(to_bytes(checkpoint()))
    content[len(content) // 2] ^= 1
    (tmp_path / "alone.pt").write_bytes(content)
    with pytest.raises(CheckFailedError, match="damaged"):
        load_checkpoint(tmp_path / "alone.pt")


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch owned",)


def test_code_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("evil.pt", "wb") as file:
        torch.save({**checkpoint(), "payload": Payload()}, file)
    with open("pickle.pt", "wb") as file:
        pickle.dump(Payload(), file)
    for name in ("evil.pt", "pickle.pt"):
        with pytest.raises((CheckFailedError, InputFileError), match=name):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"weight": torch.zeros(1)}, "no checkpoint of this trainer"),
        ([1, 2], "no checkpoint of this trainer"),
        ({**checkpoint(), "schema_version": 2}, "newer"),
    ],
)
def test_other_files_of_torch_are_named_as_such(content, what, tmp_path):
    with open(tmp_path / "other.pt", "wb") as file:
        torch.save(content, file)
    with pytest.raises(InputFileError, match=what):
        load_checkpoint(tmp_path / "other.pt")


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04"])
def test_what_is_no_checkpoint_at_all(content, tmp_path):
    if content is not None:
        (tmp_path / "no.pt").write_bytes(content)
    with pytest.raises((InputFileError, CheckFailedError), match=r"no\.pt"):
        load_checkpoint(tmp_path / "no.pt")


# The model in it


def test_the_model_comes_in_eval_mode_with_its_weights():
    content = checkpoint(3)
    model = load_model(content)
    assert not model.training
    assert all(torch.equal(model.state_dict()[key], value) for key, value in content["model_state_dict"].items())


def test_averaged_weights_predict_where_there_are_any():
    content, averaged = checkpoint(3), checkpoint(4)["model_state_dict"]
    assert inference_state(content) is content["model_state_dict"]
    content["ema_state_dict"] = {"decay": 0.9, "num_updates": 1, "model_state_dict": averaged}
    assert inference_state(content) is averaged
    assert all(torch.equal(load_model(content).state_dict()[key], value) for key, value in averaged.items())
