from __future__ import annotations

import errno
import os
import stat

import pytest

from common import atomic


def test_replaces_content_whole(tmp_path):
    path = tmp_path / "file.txt"
    atomic.write_text(path, "old")
    atomic.write_text(path, "new\n")
    assert path.read_bytes() == b"new\n"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_file_has_the_usual_permissions(tmp_path):
    atomic.write_bytes(tmp_path / "ours", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch, broken):
    path = tmp_path / "file.txt"
    atomic.write_text(path, "old")

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space"):
        atomic.write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, bytes(data)[:3]))
    atomic.write_bytes(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_link_is_relative_and_replaced(tmp_path):
    (tmp_path / "results/a").mkdir(parents=True)
    (tmp_path / "results/b").mkdir()
    link = tmp_path / "logs/run"
    assert atomic.replace_link(link, tmp_path / "results/a")
    assert atomic.replace_link(link, tmp_path / "results/b")
    assert os.readlink(link) == "../results/b"


def test_a_real_file_is_never_replaced_by_a_link(tmp_path):
    (tmp_path / "mine").write_text("precious")
    assert not atomic.replace_link(tmp_path / "mine", tmp_path / "other")
    assert (tmp_path / "mine").read_text() == "precious"


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    for name in (".model.pt.abc123.tmp", "notes.tmp", ".hidden"):
        (tmp_path / name).write_text("x")
    assert atomic.remove_leftovers(tmp_path) == 1
    assert sorted(os.listdir(tmp_path)) == [".hidden", "notes.tmp"]
