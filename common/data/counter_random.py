"""Random numbers that are a function of their position alone: no state, no order of drawing, no global generator.

Every number is a hash (the output function of SplitMix64) of a key and an index, computed in int64 arithmetic that
wraps around: exact, and the same on every device and in every version of every library. That is what makes a sample's
augmentation independent of who loads it, when, and after what.

Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", doi:10.1145/2660193.2660195.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)


def derive_key(*parts: int | str) -> int:
    """One 64-bit key from numbers (any size and sign) and words, in this order."""
    key = 0
    for part in parts:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else part
        key = _mix_int((key + (number & _MASK) * _GOLDEN + _GOLDEN) & _MASK)
    return key


def hash_indices(indices: Tensor, key: int) -> Tensor:
    """64 random bits for each index: int64, in the shape of ``indices``."""
    return _mix((indices + 1) * _signed(_GOLDEN) + _signed(key))


def uniforms(indices_B: Tensor, key: int, streams_D: Tensor) -> Tensor:
    """Independent uniform numbers in [0, 1), one for each index and stream: float64 (B, D).

    ``streams_D`` are distinct int64 numbers that say what each draw is for; a draw does not depend on the others.
    """
    bits_BD = _mix(hash_indices(indices_B, key)[:, None] + (streams_D + 1) * _signed(_GOLDEN))
    # The upper 53 bits, as many as a float64 holds exactly.
    return _shift_right(bits_BD, 11).to(torch.float64) * 2.0**-53


def permutation(size: int, key: int) -> Tensor:
    """A random order of 0..size-1: int64 on the CPU."""
    return torch.argsort(hash_indices(torch.arange(size), key), stable=True)


def _mix(bits: Tensor) -> Tensor:
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        bits = (bits ^ _shift_right(bits, shift)) * _signed(multiplier)
    return bits ^ _shift_right(bits, _SHIFTS[-1])


def _mix_int(bits: int) -> int:
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        bits = ((bits ^ (bits >> shift)) * multiplier) & _MASK
    return bits ^ (bits >> _SHIFTS[-1])


def _shift_right(bits: Tensor, count: int) -> Tensor:
    # int64 shifts copy the sign bit downwards; the mask makes it the logical shift that the hash is defined with.
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number
