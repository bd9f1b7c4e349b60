from __future__ import annotations

import pytest

from common.engine import memory_note
from common.run_folder import RunFolder


def test_a_note_comes_back(tmp_path):
    folder, note = RunFolder(tmp_path), memory_note.MemoryNote(samples=32, epoch=2, step=5)
    assert memory_note.read(folder) is None
    memory_note.write(folder, note)
    assert memory_note.read(folder) == note


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"[]", b"7", b"{}", b"[" * 100_000, b'{"samples": 1, "epoch": 1, "step": 0}',
        b'{"samples": "32", "epoch": 1, "step": 0}', b'{"samples": true, "epoch": 1, "step": 0}',
        b'{"samples": 32, "epoch": 1, "step": -1}', b'{"samples": 32, "epoch": 1, "step": 0, "more": 1}',
    ],
)  # fmt: skip
def test_what_is_no_note_asks_for_nothing(tmp_path, content):
    folder = RunFolder(tmp_path)
    folder.memory_note.write_bytes(content)
    assert memory_note.read(folder) is None
