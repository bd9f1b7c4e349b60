"""The manifest: written whole, read with suspicion, and the order of the sound checkpoints."""

from __future__ import annotations

import hashlib
import json

import pytest

from common.manifest import (
    ManifestEntry,
    damaged_checkpoints,
    iterate_sound_checkpoints,
    load_manifest,
    read_manifest,
    sha256_of_file,
    sound_checkpoints,
    write_manifest,
)
from tests.checkpoint_samples import checkpoint, flip, save, save_without_checksums


def entry_of(path, *, epoch=1, step=10, previous_sha256=None):
    return ManifestEntry(sha256_of_file(path), path.stat().st_size, epoch, step, previous_sha256)


@pytest.fixture
def run(tmp_path):
    """Three checkpoints of one run and their manifest; the names do not tell the order."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    steps = {"last_model.pt": 30, "checkpoint_epoch_1.pt": 10, "best_model.pt": 20}
    for name, step in steps.items():
        save(checkpoint(epoch=step // 10, step=step), folder / name)
    write_manifest(folder, {name: entry_of(folder / name, epoch=s // 10, step=s) for name, s in steps.items()})
    return folder


def names(paths):
    return [path.name for path in paths]


def test_what_is_written_is_read(tmp_path):
    entries = {
        "a.pt": ManifestEntry("0" * 64, 12, 1, 100),
        "ü b.pt": ManifestEntry("f" * 64, 0, 0, 0, previous_sha256="1" * 64),
    }
    write_manifest(tmp_path, entries)
    assert read_manifest(tmp_path) == entries
    assert json.loads((tmp_path / "manifest.json").read_text())["schema_version"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_sha256_of_file(tmp_path):
    path = tmp_path / "file"
    for content in (b"", b"abc", bytes(range(256)) * 10_000):
        path.write_bytes(content)
        assert sha256_of_file(path) == hashlib.sha256(content).hexdigest()


def test_missing_and_damaged_are_told_apart(tmp_path):
    assert load_manifest(tmp_path).state == "missing"
    assert load_manifest(tmp_path / "nowhere").state == "missing"
    (tmp_path / "manifest.json").write_text("{")
    assert load_manifest(tmp_path).state == "damaged"
    assert read_manifest(tmp_path) == {}


GOOD = {"sha256": "0" * 64, "size_bytes": 1, "epoch": 1, "step": 1}


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"files": {}},
        {"schema_version": 2, "files": {}},
        {"schema_version": 1, "files": []},
        {"schema_version": 1, "files": {"a.pt": []}},
        {"schema_version": 1, "files": {"../a.pt": GOOD}},
        {"schema_version": 1, "files": {"a.pt": {**GOOD, "sha256": "0" * 63}}},
        {"schema_version": 1, "files": {"a.pt": {**GOOD, "step": -1}}},
        {"schema_version": 1, "files": {"a.pt": {**GOOD, "epoch": 1.5}}},
        {"schema_version": 1, "files": {"a.pt": {**GOOD, "previous_sha256": 7}}},
        {"schema_version": 1, "files": {"a.pt": GOOD}, "checksum": "0" * 64},
    ],
)
def test_malformed_manifests_are_damaged(tmp_path, content):
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    manifest = load_manifest(tmp_path)
    assert manifest.state == "damaged" and manifest.reason and not manifest.entries


def test_a_manifest_of_another_writer_is_accepted(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"schema_version": 1, "files": {"a.pt": GOOD}}))
    assert read_manifest(tmp_path) == {"a.pt": ManifestEntry("0" * 64, 1, 1, 1)}


def test_every_changed_byte_of_the_manifest_is_found_or_changes_nothing(run):
    path = run / "manifest.json"
    content = path.read_bytes()
    expected = read_manifest(run)
    for offset in range(len(content)):
        flipped = bytearray(content)
        flipped[offset] ^= 1
        path.write_bytes(flipped)
        manifest = load_manifest(run)
        assert manifest.state == "damaged" or manifest.entries == expected


def test_a_deeply_nested_manifest_is_damaged(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 200_000)
    assert load_manifest(tmp_path).state == "damaged"


def test_sound_checkpoints_come_newest_first(run):
    assert names(sound_checkpoints(run)) == ["last_model.pt", "best_model.pt", "checkpoint_epoch_1.pt"]
    assert damaged_checkpoints(run) == []


def test_the_run_folder_means_its_checkpoints(run):
    assert sound_checkpoints(run.parent) == sound_checkpoints(run)


def test_a_damaged_checkpoint_is_passed_over_and_named(run):
    flip(run / "last_model.pt", 1500)
    assert names(sound_checkpoints(run)) == ["best_model.pt", "checkpoint_epoch_1.pt"]
    ((path, reason),) = damaged_checkpoints(run)
    assert path.name == "last_model.pt" and reason


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: flip(path, 120)])
def test_without_a_manifest_the_files_speak_for_themselves(run, damage):
    damage(run / "manifest.json")
    flip(run / "best_model.pt", 1500)
    assert names(sound_checkpoints(run)) == ["last_model.pt", "checkpoint_epoch_1.pt"]
    assert [path.name for path, _ in damaged_checkpoints(run)] == ["best_model.pt"]


def test_another_file_under_a_listed_name_is_damaged(run):
    save(checkpoint(epoch=3, step=30, val_acc=99.0), run / "last_model.pt")
    ((path, reason),) = damaged_checkpoints(run)
    assert path.name == "last_model.pt" and "SHA-256" in reason


def test_an_entry_written_ahead_accepts_the_file_it_replaces(run):
    before = sha256_of_file(run / "last_model.pt")
    entries = read_manifest(run)
    entries["last_model.pt"] = ManifestEntry("a" * 64, 1, 4, 40, previous_sha256=before)
    write_manifest(run, entries)
    assert names(sound_checkpoints(run))[0] == "last_model.pt"
    assert damaged_checkpoints(run) == []


def test_a_file_that_the_manifest_does_not_list_takes_its_own_place(run):
    save(checkpoint(epoch=2, step=25), run / "extra.pth")
    assert names(sound_checkpoints(run)) == ["last_model.pt", "extra.pth", "best_model.pt", "checkpoint_epoch_1.pt"]


def test_of_equal_steps_the_last_state_comes_before_the_best(run):
    save(checkpoint(epoch=3, step=30), run / "best_model.pt")
    (run / "manifest.json").unlink()
    assert names(sound_checkpoints(run))[:2] == ["last_model.pt", "best_model.pt"]


def test_unverifiable_is_neither_sound_nor_damaged(run):
    (run / "manifest.json").unlink()
    path = save_without_checksums(checkpoint(epoch=9, step=90), run / "unchecked.pt")
    assert path not in sound_checkpoints(run)
    assert damaged_checkpoints(run) == []
    write_manifest(run, {path.name: entry_of(path, epoch=9, step=90)})
    assert sound_checkpoints(run)[0] == path


def test_empty_and_foreign_files(run):
    (run / "empty.pt").touch()
    (run / ".best_model.pt.tmp").write_bytes(b"half")
    (run / "notes.txt").write_text("no checkpoint")
    (run / "bare.pt").write_bytes(b"\x80\x04N.")
    assert [path.name for path, _ in damaged_checkpoints(run)] == ["empty.pt"]
    assert len(sound_checkpoints(run)) == 3


def test_only_as_many_files_are_verified_as_are_asked_for(run):
    assert next(iterate_sound_checkpoints(run)).name == "last_model.pt"
