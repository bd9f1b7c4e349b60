"""The inert reader agrees with the real unpickler on plain values, and survives everything else."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.checkpoint_container.inert_pickle import PickleStructureError, read_structure
from tests.checkpoint_samples import checkpoint, save

SETTINGS = settings(deadline=None, derandomize=True, max_examples=150)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner) | st.tuples(inner)
    ),
    max_leaves=20,
)


@SETTINGS
@given(VALUES, st.sampled_from([3, 4, 5]))
def test_plain_values_come_out_as_they_went_in(value, protocol):
    assert read_structure(pickle.dumps(value, protocol)).value == value


@SETTINGS
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(), st.lists, max_leaves=20))
def test_text_protocol_numbers(value):
    expected = pickle.loads(pickle.dumps(value, 0))
    assert repr(read_structure(pickle.dumps(value, 0)).value) == repr(expected)


@SETTINGS
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    try:
        read_structure(data)
    except PickleStructureError as error:
        assert str(error)


@pytest.fixture(scope="module")
def structure_bytes(tmp_path_factory):
    import zipfile

    path = save(checkpoint(), tmp_path_factory.mktemp("structure") / "file.pt")
    with zipfile.ZipFile(path) as archive:
        return archive.read("archive/data.pkl")


@SETTINGS
@given(data=st.data())
def test_any_change_to_a_real_structure_is_read_or_refused(structure_bytes, data):
    changed = bytearray(structure_bytes)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_structure(bytes(changed))
    except PickleStructureError as error:
        assert str(error)


def test_not_a_number_survives():
    assert math.isnan(read_structure(pickle.dumps(math.nan)).value)
