"""Numbers that depend on their position alone."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.counter_random import derive_key, hash_indices, permutation, uniforms

SETTINGS = settings(deadline=None, derandomize=True, max_examples=60)
keys = st.integers(0, 2**64 - 1)
MASK = 2**64 - 1


def splitmix64(state):
    """The published algorithm: the output after the state was advanced to ``state``."""
    bits = state & MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


@SETTINGS
@given(keys, st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_bits_are_those_of_splitmix64(key, indices):
    expected = [splitmix64(key + (index + 1) * 0x9E3779B97F4A7C15) for index in indices]
    assert [bits & MASK for bits in hash_indices(torch.tensor(indices), key).tolist()] == expected


def test_bits_are_those_of_the_reference_implementation():
    # First outputs for seed 1234567, as published with the C code (https://prng.di.unimi.it/splitmix64.c).
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [bits & MASK for bits in hash_indices(torch.arange(4), 1234567).tolist()] == expected


@SETTINGS
@given(keys, st.integers(1, 30), st.integers(0, 29))
def test_a_draw_does_not_depend_on_the_others(key, size, position):
    indices, streams = torch.arange(size), torch.tensor([3, 8, 2**31])
    together = uniforms(indices, key, streams)
    position %= size
    assert torch.equal(uniforms(indices[position : position + 1], key, streams[1:2])[0, 0], together[position, 1])
    assert ((together >= 0) & (together < 1)).all()


@SETTINGS
@given(st.integers(0, 200), keys)
def test_permutations(size, key):
    assert sorted(permutation(size, key).tolist()) == list(range(size))


@SETTINGS
@given(st.integers(), st.integers())
def test_keys_tell_all_numbers_and_their_order_apart(a, b):
    assert 0 <= derive_key("x", a, b) <= MASK
    if (a - b) & MASK:
        assert derive_key("x", a, b) != derive_key("x", b, a)
    assert derive_key("x", a) != derive_key("y", a)


def test_draws_are_uniform_and_uncorrelated():
    draws = uniforms(torch.arange(20_000), derive_key("test", 0), torch.arange(4)).numpy()
    counts = np.stack([np.histogram(column, bins=50, range=(0, 1))[0] for column in draws.T])
    # Chi-square with 49 degrees of freedom stays below 94 in 9,999 of 10,000 cases.
    assert (((counts - 400) ** 2 / 400).sum(axis=1) < 94).all()
    correlation = np.corrcoef(np.concatenate([draws.T, np.roll(draws.T, 1, axis=1)]))
    assert np.abs(correlation - np.eye(8)).max() < 0.03
