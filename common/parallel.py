"""Several processes that train one model: which share of the samples is whose, and what they tell each other.

A training started by ``torchrun`` is one of ``WORLD_SIZE`` processes; any other is alone, and nothing here costs it
anything. Every process takes the same decisions, since each is made from numbers that all of them have.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import inspect
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.exits import EnvironmentLackError, Exit, RunFailedError
from common.process_rendezvous import meet
from common.synchronized_batch_norm import synchronize_batch_norm

# Processes on other machines may be started by hand, or wait for their turn.
_MEET_WITHIN = timedelta(minutes=10)
_LETTING_GO_S = 0.02


class World:
    """The processes of one training. Collective methods must be called by all of them, in the same order.

    Attributes:
        rank: this process's number, from 0. Rank 0 alone writes files.
        size: how many processes there are.
        local_rank: this process's number on its machine, which picks its GPU.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank = rank
        self.size = size
        self.local_rank = local_rank

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    def share_of(self, indices: Tensor) -> tuple[Tensor, bool]:
        """This process's part of a batch's sample numbers, and whether its loss counts.

        Where there are fewer samples than processes, those left without one take a copy, which keeps the collective
        operations and batch norm in step; its loss does not count.
        """
        share = indices[self.rank :: self.size]
        return (share, True) if len(share) else (indices[self.rank % len(indices)][None], False)

    def slice_of(self, indices: Tensor) -> Tensor:
        """This process's contiguous part of a batch to evaluate; may be empty."""
        return indices if self.is_alone else indices.tensor_split(self.size)[self.rank]

    def sum(self, values: Tensor) -> Tensor:
        """The elementwise sum over all processes."""
        if not self.is_alone:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes by rank, in every process. For what is small: it is pickled on the way."""
        if self.is_alone:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_main(self, value: Any) -> Any:
        """The value that rank 0 has, in every process."""
        if self.is_alone:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model as it is to be called in training: gradients are averaged over the processes in its backward."""
        if self.is_alone:
            return model
        ddp = nn.parallel.DistributedDataParallel
        # PyTorch 2.13 renamed it. Buffers are the same everywhere: batch norm is synchronised.
        new, old = "forward_sync_buffers", "broadcast_buffers"
        sync_buffers = {new if new in inspect.signature(ddp.__init__).parameters else old: False}
        return ddp(model, device_ids=[device.index] if device.type == "cuda" else None, **sync_buffers)

    def synchronize_batch_norm(self, model: nn.Module) -> nn.Module:
        """Batch norm over the samples of all processes, so that the model trains as it would in one."""
        return model if self.is_alone else synchronize_batch_norm(model)

    def without_gradient_exchange(self, wrapped: nn.Module, active: bool) -> AbstractContextManager:
        """For all but the last micro-batch of a step: their gradients are exchanged with the last one's."""
        if self.is_alone or not active:
            return nullcontext()
        return wrapped.no_sync()  # type: ignore[operator]


@contextlib.contextmanager
def joined_world() -> Iterator[World]:
    """The processes that ``torchrun`` started, connected while the block runs; a world of one elsewhere.

    Raises:
        EnvironmentLackError: the others cannot be reached.
        RunFailedError: one of them ended while this one was at work.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    world = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    # NCCL for tensors on GPUs, gloo for everything else.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store, rank, size = meet(_MEET_WITHIN)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        raise EnvironmentLackError(
            f"the {size} processes of this training cannot reach each other ({error})",
            hint="start it with torchrun, and check MASTER_ADDR and MASTER_PORT",
        ) from error
    is_cut_off = False
    try:
        yield world
    except RuntimeError as error:
        is_cut_off = _is_lost_connection(error)
        if not is_cut_off:
            raise
        _leave_connections_alone(error)
        raise RunFailedError(
            f"another process of this training ended, so this one (number {world.rank}) does too",
            hint="what the other one said tells why; the same command goes on",
        ) from error
    finally:
        if not is_cut_off:
            _keep_gloo_alive()
            dist.destroy_process_group()


def _keep_gloo_alive() -> None:
    """Have gloo's threads end with this process and not before.

    Its destructor waits for them while it holds the interpreter's lock, for which they wait in turn where they still
    have a tensor to let go of: neither ever goes on. So nothing may free it; and they get the lock once more.
    """
    gloo = dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(gloo))
    time.sleep(_LETTING_GO_S)


def _is_lost_connection(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors, which name its source file.
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _leave_connections_alone(error: RuntimeError) -> None:
    """Have this process end without taking down what it shared with the others.

    Freeing an unfinished exchange waits for the other end, which is gone, for up to half an hour.
    """
    _cut_off_by.append(error)
    atexit.register(_end_now)


# The traceback of the error holds on to all that must not be freed.
_cut_off_by: list[RuntimeError] = []


def _end_now() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(Exit.RUN_FAILED))
