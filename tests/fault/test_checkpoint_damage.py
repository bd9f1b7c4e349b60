"""Damage of every kind is found, named, and told from what is no checkpoint at all."""

from __future__ import annotations

import io
import os
import random
import tarfile
import zipfile

import pytest
import torch

from common.checkpoint_container import NotACheckpointError, describe, verify
from tests.checkpoint_samples import checkpoint, flip, save, save_without_checksums


@pytest.fixture
def small(tmp_path):
    content = {"epoch": 1, "model_state_dict": {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(3)}}
    return save(content, tmp_path / "small.pt")


def test_every_single_changed_byte_is_found(small):
    content = small.read_bytes()
    rng = random.Random(0)
    missed = []
    with small.open("r+b", buffering=0) as file:
        for offset, byte in enumerate(content):
            os.pwrite(file.fileno(), bytes([byte ^ rng.randrange(1, 256)]), offset)
            if verify(small).status != "damaged":
                missed.append(offset)
            os.pwrite(file.fileno(), bytes([byte]), offset)
    assert missed == []
    assert verify(small).status == "ok"


@pytest.mark.parametrize("where", ["data", "header", "directory"])
def test_damage_names_the_tensor(small, where):
    record = next(record for record in describe(small).records if record.name == "archive/data/0")
    in_directory = small.read_bytes().rindex(b"archive/data/0")
    flip(small, {"data": record.data_offset, "header": record.header_offset, "directory": in_directory + 10}[where])
    damages = verify(small).damages
    assert damages and all(damage.tensors == ("model_state_dict/w",) for damage in damages)
    assert "model_state_dict/w" in str(damages[0]) and "archive/data/0" in str(damages[0])


def test_damaged_structure_is_damage_of_its_own_record(small):
    record = describe(small).records[0]
    flip(small, record.data_offset + 3)
    assert any(damage.record == "archive/data.pkl" for damage in verify(small).damages)


def test_tensors_that_share_a_storage_are_all_named(tmp_path):
    base = torch.arange(12.0)
    path = save({"state_dict": {"a": base[:4], "tied": base[:4], "rest": base[4:]}}, tmp_path / "shared.pt")
    record = next(record for record in describe(path).records if record.name == "archive/data/0")
    flip(path, record.data_offset)
    assert set(verify(path).damages[0].tensors) == {"state_dict/a", "state_dict/tied", "state_dict/rest"}


def test_truncation_at_any_place_is_found(tmp_path):
    whole = save(checkpoint(), tmp_path / "whole.pt").read_bytes()
    path = tmp_path / "cut.pt"
    for length in [*range(4, 40), *range(40, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        report = verify(path)
        assert report.status == "damaged", length


def test_truncation_says_which_tensors_are_lost(tmp_path):
    path = save(checkpoint(), tmp_path / "cut.pt")
    described = describe(path)
    first_lost = described.tensors[3]
    path.write_bytes(path.read_bytes()[: first_lost.file_offset])
    cut = describe(path)
    assert cut.epoch == 5
    assert "truncated" in cut.damages[0].what
    assert first_lost.name in cut.damages[1].tensors
    assert described.tensors[0].name not in cut.damages[1].tensors


def test_appended_bytes_are_damage(small):
    small.write_bytes(small.read_bytes() + b"x")
    assert verify(small).status == "damaged"


def test_two_records_swapped_in_place_are_damage(small):
    first, second = (r for r in describe(small).records if r.name in ("archive/data/0", "archive/byteorder"))
    content = bytearray(small.read_bytes())
    content[first.data_offset : first.data_offset + 6], content[second.data_offset : second.data_offset + 6] = (
        content[second.data_offset : second.data_offset + 6],
        content[first.data_offset : first.data_offset + 6],
    )
    small.write_bytes(content)
    assert verify(small).status == "damaged"


def test_a_file_without_checksums_is_never_ok(tmp_path):
    path = save_without_checksums(checkpoint(), tmp_path / "unchecked.pt")
    assert not describe(path).has_checksums
    assert verify(path).status == "unverifiable"
    record = describe(path).records[1]
    flip(path, record.header_offset + 40)
    assert verify(path).status == "damaged"


def test_a_compressed_archive_is_refused(tmp_path):
    whole = save(checkpoint(), tmp_path / "whole.pt")
    path = tmp_path / "compressed.pt"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert any("compressed" in damage.what for damage in verify(path).damages)


def test_an_archive_rewritten_by_python_is_read_and_checked(tmp_path):
    whole = save(checkpoint(), tmp_path / "whole.pt")
    path = tmp_path / "rewritten.pt"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert verify(path).status == "ok"
    assert describe(path).tensors[0].shape == (3, 4)
    record = next(record for record in describe(path).records if record.name.endswith("data/0"))
    flip(path, record.data_offset)
    assert verify(path).damages[0].tensors == ("model_state_dict/0.weight",)


def test_a_missing_storage_is_damage(tmp_path):
    whole = save(checkpoint(), tmp_path / "whole.pt")
    path = tmp_path / "incomplete.pt"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            if name != "archive/data/0":
                target.writestr(name, source.read(name))
    assert "missing" in verify(path).damages[0].what
    assert verify(path).damages[0].tensors == ("model_state_dict/0.weight",)


def test_an_absurd_count_of_records_is_refused_quickly(small):
    content = bytearray(small.read_bytes())
    end = len(content) - 22 - 20 - 56
    content[end + 24 : end + 40] = (2**40).to_bytes(8, "little") * 2
    small.write_bytes(content)
    assert verify(small).status == "damaged"


def _legacy(path):
    torch.save(checkpoint(), path, _use_new_zipfile_serialization=False)


def _tar(path):
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("storages")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))


def _torchscript(path):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(path)


def _npz(path):
    import numpy as np

    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3))


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("empty", lambda path: path.touch()),
        ("missing", lambda path: None),
        ("not-a-file", lambda path: path.mkdir()),
        ("unknown", lambda path: path.write_bytes(b"hello, world" * 50)),
        ("unknown", lambda path: path.write_bytes(b"P")),
        ("unknown", lambda path: path.write_bytes(bytes(4096))),
        ("pickle", lambda path: path.write_bytes(b"\x80\x04N.")),
        ("git-lfs", lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")),
        ("legacy", _legacy),
        ("tar", _tar),
        ("torchscript", _torchscript),
        ("npz", _npz),
    ],
)
def test_what_is_no_checkpoint_gets_its_own_answer(tmp_path, kind, make):
    path = tmp_path / "file.pt"
    make(path)
    with pytest.raises(NotACheckpointError) as caught:
        describe(path)
    assert caught.value.kind == kind
    assert str(path) in str(caught.value)


def test_a_pipe_does_not_hang(tmp_path):
    path = tmp_path / "pipe.pt"
    os.mkfifo(path)
    with pytest.raises(NotACheckpointError, match="regular file"):
        describe(path)
