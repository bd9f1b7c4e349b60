"""Whatever is done to a checkpoint file, inspecting it ends with an answer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.checkpoint_container.inspection import inspect_checkpoint
from common.checkpoint_container.report import as_json, as_lines
from common.command import print_json
from common.exits import Exit, ToolError
from tests.checkpoint_samples import checkpoint, save, save_without_checksums

EDITS = st.lists(st.tuples(st.sampled_from(["set", "cut", "insert", "repeat"]), st.floats(0, 1), st.binary(max_size=9)))


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    checked = save(checkpoint(), folder / "checked.pt").read_bytes()
    # Without checksums nothing but the structure itself stands between a changed byte and the reader.
    return [checked, save_without_checksums(checkpoint(), folder / "unchecked.pt").read_bytes()]


@settings(
    deadline=None, derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(which=st.integers(0, 1), edits=EDITS)
def test_every_edited_file_gets_an_answer(originals, tmp_path, capsys, which, edits):
    content = bytearray(originals[which])
    for kind, place, data in edits:
        edit(content, kind, int(place * len(content)), data)
    path = tmp_path / "edited.pt"
    path.write_bytes(content)
    try:
        inspection = inspect_checkpoint(path)
    except ToolError as error:
        assert error.exit in (Exit.NO, Exit.BAD_INPUT)
        return
    lines = list(as_lines(inspection, "full"))
    assert lines[0].startswith("Checkpoint: ") and all(line.isprintable() for line in lines)
    print_json(as_json(inspection))
    capsys.readouterr()
    assert bytes(content) == originals[which] or inspection.exit is Exit.NO or which == 1


def edit(content: bytearray, kind: str, at: int, data: bytes) -> None:
    """One edit of a file in memory."""
    if kind == "set":
        content[at : at + len(data)] = data
    elif kind == "cut":
        del content[at : at + len(data) * 40]
    elif kind == "insert":
        content[at:at] = data
    else:
        content += content[at:]
