"""Batches of images that stay on disk, decoded by worker processes while the model computes.

Workers come from a fork server: a process that was started clean, so that neither this one's threads nor its CUDA
context are copied into them. They leave signals to this process, which decides when to stop, and end with it however
it ends: through ``close``, at interpreter exit, or on their own where it was killed.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.data.batches import Batch, BatchSource
from common.data.dataset import ImageFiles, Split
from common.data.image_files import UnreadableImageError, decode_image
from common.data.normalization import Normalizer
from common.exits import InputFileError, RunFailedError

_LEFT_TO_THE_TRAINING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_JOIN_TIMEOUT_S = 5.0
_DEATH_TIMEOUT_S = 1.0
_open_sources: weakref.WeakSet[StreamedBatches] = weakref.WeakSet()


@dataclass(frozen=True)
class ReadFailure:
    """An image that could be read when the data was loaded and cannot be now; sent instead of the batch."""

    path: str
    reason: str


class StreamedImages(Dataset):
    """Decodes whole batches: ``__getitems__`` of sample numbers gives uint8 (B, C, H, W), or a ``ReadFailure``."""

    def __init__(self, files: ImageFiles) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files.paths)

    def __getitems__(self, indices: Sequence[int]) -> Tensor | ReadFailure:
        files = self._files
        batch = np.empty((len(indices), *files.shape), dtype=np.uint8)
        for row, index in enumerate(indices):
            try:
                batch[row] = decode_image(files.paths[index], files.shape, resize=files.resize)
            except UnreadableImageError as error:
                return ReadFailure(files.paths[index], str(error))
        return torch.from_numpy(batch)


class StreamedBatches(BatchSource):
    """Batches of a split whose images stay on disk. One iteration at a time: a new one ends the one before."""

    def __init__(
        self,
        split: Split,
        device: torch.device,
        *,
        normalizer: Normalizer,
        num_workers: int,
        pin_memory: bool,
        persistent_workers: bool,
        prefetch_factor: int,
    ) -> None:
        assert split.image_files is not None
        self._images = StreamedImages(split.image_files)
        self._labels = split.labels
        self._device = device
        self._normalizer = normalizer
        self._persistent = persistent_workers
        self._plan = _IndexBatches()
        self._loader = self._new_loader(num_workers, pin_memory, prefetch_factor) if num_workers > 0 else None
        self._iterator: Iterator | None = None
        self._workers: list = []

    def batches(self, index_batches: Sequence[Tensor]) -> Iterator[Batch]:
        """As in ``BatchSource``.

        Raises:
            InputFileError: an image can no longer be read.
            RunFailedError: a worker was killed.
        """
        try:
            for indices, loaded in zip(index_batches, self._loaded(index_batches), strict=True):
                if isinstance(loaded, ReadFailure):
                    raise InputFileError(loaded.reason, path=loaded.path, hint="it was readable when training began")
                raw = loaded.to(self._device, non_blocking=True)
                yield Batch(indices, self._normalizer(raw), self._labels[indices].to(self._device))
        finally:
            if not self._persistent:
                self._end_workers()

    def close(self) -> None:
        """End the workers and wait for their end."""
        self._loader = None
        self._end_workers()

    def _loaded(self, index_batches: Sequence[Tensor]) -> Iterator[Tensor | ReadFailure]:
        if self._loader is None:
            for indices in index_batches:
                yield self._images.__getitems__(indices.tolist())
            return
        self._start(index_batches)
        for _ in index_batches:
            yield self._next()

    def _start(self, index_batches: Sequence[Tensor]) -> None:
        if not self._persistent:
            self._end_workers()
        self._plan.index_batches = list(index_batches)
        running = set(multiprocessing.active_children())
        _open_sources.add(self)
        with _signals_held_back():
            self._iterator = iter(self._loader)
        self._workers += [child for child in multiprocessing.active_children() if child not in running]

    def _next(self) -> Tensor | ReadFailure:
        assert self._iterator is not None
        try:
            return next(self._iterator)
        except (RuntimeError, OSError, EOFError) as error:
            # What a killed worker shows up as depends on what it was doing.
            if not wait([worker.sentinel for worker in self._workers], _DEATH_TIMEOUT_S):
                raise
            raise RunFailedError(
                "a process that loads data was killed",
                field="data.num_workers",
                hint="memory or /dev/shm may have run out: use fewer workers or smaller batches",
            ) from error

    def _end_workers(self) -> None:
        # Dropping the last reference is the loader's way of being told to stop; what does not obey is killed.
        self._iterator = None
        for worker in self._workers:
            worker.join(_JOIN_TIMEOUT_S)
            if worker.is_alive():
                worker.kill()
                worker.join()
        self._workers = []

    def _new_loader(self, num_workers: int, pin_memory: bool, prefetch_factor: int) -> DataLoader:
        return DataLoader(
            self._images,
            batch_sampler=self._plan,
            collate_fn=_as_it_is,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=self._persistent,
            prefetch_factor=prefetch_factor,
            multiprocessing_context=_context(),
            worker_init_fn=_init_worker,
            # Without one of its own, starting an iteration would draw from the global generator.
            generator=torch.Generator(),
        )


class _IndexBatches:
    """A sampler whose batches are put in from outside before every iteration."""

    def __init__(self) -> None:
        self.index_batches: list[Tensor] = []

    def __iter__(self) -> Iterator[list[int]]:
        return (indices.tolist() for indices in self.index_batches)

    def __len__(self) -> int:
        return len(self.index_batches)


def _as_it_is(batch: Tensor | ReadFailure) -> Tensor | ReadFailure:
    return batch


def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Imported once in the server, not in every worker.
    context.set_forkserver_preload([__name__])
    return context


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """What is started in here never sees the signals, from its first instant; to this process they come afterwards."""
    # Started before, because it lets signals through again when it is.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_TRAINING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _init_worker(worker_id: int) -> None:
    # Again, for a fork server that someone else had started before.
    signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_TRAINING)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # The loader's own watch looks at the process that forked this one: the fork server, which lives as long as we do.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _close_open_sources() -> None:
    for source in list(_open_sources):
        source.close()


# Runs before multiprocessing's own exit handler (the last registered goes first), which would wait for ever for workers
# that do not heed its SIGTERM.
atexit.register(_close_open_sources)
