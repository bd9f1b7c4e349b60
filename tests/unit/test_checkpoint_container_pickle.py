"""A hostile pickle is read to its end, reported, and has no effect; a bomb is refused before it costs anything."""

from __future__ import annotations

import pickle
import struct

import pytest
import torch

from common.checkpoint_container import InertCall, describe, verify
from common.checkpoint_container.inert_pickle import (
    MAX_OPCODES,
    MAX_PICKLE_BYTES,
    PickleStructureError,
    read_structure,
)
from common.checkpoint_container.weights_only import WEIGHTS_ONLY_GLOBALS
from tests.checkpoint_samples import RunsCode, checkpoint, save


def test_code_in_a_checkpoint_never_runs_and_is_named(tmp_path):
    marker = tmp_path / "ran"
    path = save(checkpoint(extra=RunsCode(f"touch {marker}")), tmp_path / "file.pt")
    described = describe(path)
    assert [name.rpartition(".")[2] for name in described.unsafe_globals] == ["system"]
    assert isinstance(described.metadata["extra"], InertCall)
    assert described.epoch == 5 and verify(path).status == "ok"
    assert not marker.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b"cos\nsystem\n(S'echo'\ntR.", ["os.system"]),
        (b"(S'echo'\nios\nsystem\n.", ["os.system"]),
        (b"(cos\nsystem\nS'echo'\no.", ["os.system"]),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04echo\x85R.", ["os.system"]),
        (b"\x80\x02cbuiltins\ngetattr\ncos\nX\x06\x00\x00\x00system\x86R.", None),
        (b"\x80\x02cbuiltins\neval\n)\x81}b.", ["builtins.eval"]),
        (b"\x80\x04cbuiltins\neval\n)}\x92.", ["builtins.eval"]),
        (b"\x80\x02cbuiltins\neval\ncposix\nsystem\n\x86.", ["builtins.eval", "posix.system"]),
        (b"\x80\x02cbuiltins\ngetattr\n)R)R.", ["builtins.getattr"]),
    ],
)
def test_every_way_to_ask_for_a_global_is_seen(raw, names):
    if names is None:
        with pytest.raises(PickleStructureError) as caught:
            read_structure(raw)
        assert caught.value.globals[0] == "builtins.getattr"
        return
    assert list(read_structure(raw).globals) == names


def test_globals_asked_for_before_a_malformed_end_are_reported(tmp_path):
    with pytest.raises(PickleStructureError) as caught:
        read_structure(b"\x80\x02cos\nsystem\n\xff")
    assert caught.value.globals == ("os.system",)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x80\x02",
        b"N",
        b".",
        b"\x80\x02}(K\x01u.",
        b"K\x01K\x02a.",
        b"NN0b.",
        b"\x82\x01.",
        b"Pname\n.",
        b"NQ.",
        b"h\x05.",
        b"t.",
        b"X\xff\xff\xff\xff.",
        b"\x8d" + b"\xff" * 8 + b".",
        b"\x8b" + struct.pack("<I", 2**20) + bytes(2**20) + b".",
        b"I" + b"9" * 5000 + b"\n.",
        b"cno line end",
    ],
)
def test_malformed_pickles_are_refused(raw):
    with pytest.raises(PickleStructureError):
        read_structure(raw)


def test_a_huge_memo_index_costs_nothing():
    assert read_structure(b"\x80\x02]r\xff\xff\xff\xffj\xff\xff\xff\xff.").value == []


def test_bombs_are_bounded():
    with pytest.raises(PickleStructureError, match="instructions"):
        read_structure(b"\x8f0" * (MAX_OPCODES // 2) + b"N.")
    with pytest.raises(PickleStructureError, match="limit"):
        read_structure(bytes(MAX_PICKLE_BYTES + 1))


def test_deep_nesting_as_a_key_does_not_overflow_the_stack():
    depth = 200_000
    value = read_structure(b"\x80\x02})" + b"\x85" * depth + b"Ns.").value
    assert list(value) == ["<tuple>"]


def test_shared_references_do_not_multiply(tmp_path):
    bomb: list = []
    for _ in range(60):
        bomb = [bomb, bomb]
    bomb.append(torch.zeros(2))
    cycle: list = []
    cycle.append(cycle)
    described = describe(save({"bomb": bomb, "cycle": cycle}, tmp_path / "file.pt"))
    assert [tensor.name for tensor in described.tensors] == ["bomb/2"]


def test_names_cannot_drive_the_terminal(tmp_path):
    described = describe(save({"state_dict": {"\x1b[2Jw\n": torch.zeros(2)}}, tmp_path / "file.pt"))
    assert described.tensors[0].name == "state_dict/\\x1b[2Jw\\n"


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_view_beyond_its_storage_is_damage(tmp_path):
    class Outside:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (torch.zeros(2).storage(), 0, (2**40,), (1,), False, None)

    path = save({"epoch": 1, "model_state_dict": {"w": Outside()}}, tmp_path / "file.pt")
    (damage,) = verify(path).damages
    assert damage.tensors == ("model_state_dict/w",) and "outside" in damage.what


def test_the_list_of_safe_globals_is_the_installed_torch_s():
    from torch._weights_only_unpickler import _get_allowed_globals

    allowed = set(_get_allowed_globals())
    assert {name for name in WEIGHTS_ONLY_GLOBALS - allowed if not name.startswith("torch.")} == set()
    newer_dtypes = {name for name in WEIGHTS_ONLY_GLOBALS - allowed if hasattr(torch, name.rpartition(".")[2])}
    assert newer_dtypes == set()
    assert {"torch._utils._rebuild_tensor_v2", "torch.FloatStorage", "collections.OrderedDict"} <= WEIGHTS_ONLY_GLOBALS
