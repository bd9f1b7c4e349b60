"""Random streams: seeding repeats, state survives a checkpoint file, and nothing leaks."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.exits import InputFileError, UsageError
from common.seeding import capture_rng_state, derive_seed, preserve_rng, restore_rng_state, seed_everything


@pytest.fixture(autouse=True)
def leave_no_trace():
    with preserve_rng():
        yield


def draw() -> list[float]:
    # Normal numbers come in pairs, of which the second waits in the state.
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        *torch.rand(2).tolist(),
        torch.randn(1).item(),
    ]


def through_a_file(state: dict) -> dict:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_a_seed_repeats_every_stream():
    lines = seed_everything(42)
    first = draw()
    seed_everything(42)
    assert draw() == first
    seed_everything(43)
    assert not set(draw()) & set(first)
    assert [line.split(":")[0] for line in lines] == ["Python random", "NumPy", "PyTorch", "CUDA"]
    assert lines[:3] == ["Python random: seed 42", "NumPy: seed 42", "PyTorch: seed 42"]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(UsageError, match="from 0 to 4294967295"):
        seed_everything(seed)


@pytest.mark.parametrize("drawn_before", [0, 1, 2])
def test_a_saved_state_goes_on_exactly(drawn_before):
    seed_everything(7)
    for _ in range(drawn_before):
        draw()
    saved = through_a_file(capture_rng_state())
    expected = [draw() for _ in range(3)]
    seed_everything(1)
    restore_rng_state(saved)
    assert [draw() for _ in range(3)] == expected


def test_a_captured_state_does_not_move_with_the_stream():
    seed_everything(7)
    saved = capture_rng_state()
    expected = draw()
    draw()
    restore_rng_state(saved)
    assert draw() == expected


def test_preserving_hides_draws_seeds_and_errors():
    seed_everything(3)
    expected = draw()
    seed_everything(3)

    def disturb() -> None:
        with preserve_rng():
            draw()
            seed_everything(99)
            raise KeyError

    with pytest.raises(KeyError):
        disturb()
    assert draw() == expected


WRONG_WORDS = {"words": torch.zeros(3, dtype=torch.int64)}
MALFORMED = [
    *(("cuda", value) for value in (None, 3)),
    *((part, value) for part in ("python", "numpy", "torch") for value in (None, 3, "state", WRONG_WORDS)),
]


@pytest.mark.parametrize(("part", "value"), MALFORMED, ids=lambda value: type(value).__name__)
def test_a_malformed_state_is_an_error_of_the_file(part, value):
    state = capture_rng_state()
    with pytest.raises(InputFileError, match="saved random state is malformed"):
        restore_rng_state({**state, part: value})


@pytest.mark.parametrize("part", ["python", "numpy", "torch", "cuda"])
def test_a_state_that_lacks_a_stream_is_an_error_of_the_file(part):
    state = capture_rng_state()
    del state[part]
    with pytest.raises(InputFileError, match="saved random state is malformed"):
        restore_rng_state(state)


def test_derived_seeds_are_the_same_everywhere():
    # As `printf '[42]' | sha256sum` begins, and `printf '[42, "reinitialise", 1]' | sha256sum`.
    assert derive_seed(42) == 0xB86B1EA1
    assert derive_seed(42, "reinitialise", 1) == 0x1A22BF42


def test_derived_seeds_differ_by_every_part():
    seeds = [
        derive_seed(*parts)
        for parts in [(42,), (43,), (42, 0), (42, 1), (42, "1"), (42, "a", "b"), (42, "ab"), (42, "b", "a"), (4, 2)]
    ]
    assert len(set(seeds)) == len(seeds)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), parts=st.lists(st.integers() | st.text(), max_size=3))
def test_derived_seeds_can_seed_everything(seed, parts):
    derived = derive_seed(seed, *parts)
    assert 0 <= derived < 2**32
    assert derived == derive_seed(seed, *parts)
