"""Random streams: seeding them, keeping their state, and deriving independent seeds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from common.exits import InputFileError, UsageError

MAX_SEED = 2**32 - 1


def seed_everything(seed: int) -> list[str]:
    """Seed every random source that a training can draw from.

    Args:
        seed: from 0 to 2**32 - 1, the range that NumPy takes.
    Returns:
        One line for people per source.
    Raises:
        UsageError: the seed is out of range.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"a seed is a whole number from 0 to {MAX_SEED}, not {seed}", field="reproducibility.seed")
    random.seed(seed)
    np.random.seed(seed)
    # Seeds every CUDA device too; where CUDA has not started yet, at the moment it does.
    torch.manual_seed(seed)
    gpus = torch.cuda.device_count()
    cuda = (
        f"CUDA: seed {seed} on {gpus} device{'s' if gpus > 1 else ''}" if gpus else "CUDA: no device, nothing to seed"
    )
    return [f"Python random: seed {seed}", f"NumPy: seed {seed}", f"PyTorch: seed {seed}", cuda]


def capture_rng_state() -> dict[str, Any]:
    """The state of every global random stream, as numbers, lists and tensors that ``weights_only`` loading accepts.

    CUDA's is a list with one byte tensor per visible device, empty while CUDA has not started.
    """
    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    cuda_started = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "python": {"version": version, "words": torch.from_numpy(np.array(words, dtype=np.int64)), "gauss": gauss},
        "numpy": {
            "words": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "position": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda_started else [],
    }


def restore_rng_state(state: Mapping[str, Any]) -> None:
    """Put every global random stream back to where ``capture_rng_state`` found it.

    Devices that this machine lacks, or that were not captured, are left alone.

    Raises:
        InputFileError: ``state`` is not of that form.
    """
    try:
        _restore_python(state["python"])
        _restore_numpy(state["numpy"])
        torch.set_rng_state(state["torch"].cpu())
        for device, cuda_state in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(cuda_state.cpu(), device)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputFileError(f"the saved random state is malformed ({error})", field="rng_state") from error


@contextlib.contextmanager
def preserve_rng() -> Iterator[None]:
    """Whatever the body draws or seeds, the global random streams go on afterwards as if it had not."""
    state = capture_rng_state()
    try:
        yield
    finally:
        restore_rng_state(state)


def derive_seed(seed: int, *parts: int | str) -> int:
    """A seed in [0, 2**32) for one purpose of many, the same on every machine and version.

    ``parts`` name the purpose: ``derive_seed(42, "reinitialise", 1)``. Different parts give unrelated seeds: the first
    32 bits of the SHA-256 of all of them (as JSON, in which 1 and "1" differ, and "a", "b" is not "ab").
    """
    digest = hashlib.sha256(json.dumps([seed, *parts]).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _restore_python(state: Mapping[str, Any]) -> None:
    random.setstate((state["version"], tuple(state["words"].tolist()), state["gauss"]))


def _restore_numpy(state: Mapping[str, Any]) -> None:
    words = state["words"].cpu().numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, state["position"], state["has_gauss"], state["gauss"]))
