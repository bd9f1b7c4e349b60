"""When and what a training saves."""

from __future__ import annotations

import time
from collections.abc import Callable

from common import checkpoints
from common.engine.parts import Parts
from common.engine.progress import RESTART_POINT_NAME, Progress
from common.late import settled
from common.step_trace import StepTrace

# Each waits with what its signals are to be worked out from.
MOST_WAITING_EPOCHS = 64


def is_restart_point(progress: Progress, save_every_n_steps: int | None) -> bool:
    """Whether a failed step may send the training back to here.

    Only to where every run of this config saves: were it to where a signal or the clock had this one save, an
    interruption would decide which steps are done again with a lower learning rate or a smaller micro-batch.
    """
    return progress.batch == 0 or (bool(save_every_n_steps) and progress.batch % save_every_n_steps == 0)


class _Instant:
    """The state of a training at one instant, which its going on does not change."""

    def __init__(self, epoch: int, step: int, checkpoint: dict) -> None:
        self.epoch = epoch
        self.step = step
        self._checkpoint = checkpoint
        self._content = b""

    def content(self) -> bytes:
        """The checkpoint as a file; it is held in one form at a time, since it may be large."""
        if not self._content:
            self._content = checkpoints.to_bytes(settled(self._checkpoint))
            self._checkpoint = {}
        return self._content


class Saver:
    """Writes the state in ``parts`` to checkpoints. In every process: capturing a state is a collective call.

    Where epochs follow each other quickly, what an epoch's end would write waits in memory until a save is due. That
    changes no bit of how a training goes on: an interrupted one repeats some epochs, and before anything reads
    checkpoints, or the training ends, ``write_held`` brings the disk to where it would be.

    Args:
        store, trace: where checkpoints and steps are written; None in processes that write nothing.
        save_failed: told when a checkpoint that the run can do without could not be written.
        before_write: called before checkpoints are written, for what must not fall behind them; may have nothing to do.
    """

    def __init__(
        self,
        parts: Parts,
        store: checkpoints.CheckpointStore | None,
        trace: StepTrace | None,
        save_failed: Callable[[Progress, str, OSError], None],
        before_write: Callable[[Progress], None],
    ) -> None:
        self._parts = parts
        self._store = store
        self._trace = trace
        self._save_failed = save_failed
        self._before_write = before_write
        self._held: dict[str, _Instant] = {}
        self._wanted: dict[str, int] = {}
        self._saved_at = self._clocked_at = time.monotonic()
        self._saved_epochs = self._progress.completed_epochs
        self._last_is_restart_point = self._is_restart_point()

    @property
    def _progress(self) -> Progress:
        return self._parts.state.progress

    def note_step(self, loss_sum: float, grad_norm: float) -> None:
        """Trace the optimizer step that ``progress.step`` counts next."""
        if self._trace is not None:
            self._trace.add(self._progress.step, loss_sum, grad_norm)

    def is_due_by_time(self) -> bool:
        """Whether the configured seconds have gone by since the last save."""
        every_s = self._parts.settings.save_every_n_s
        return every_s is not None and time.monotonic() - self._saved_at >= every_s

    def is_due_by_steps(self) -> bool:
        every_steps = self._parts.settings.save_every_n_steps
        return bool(every_steps) and self._progress.batch % every_steps == 0

    def save_position(self) -> None:
        """Save where the training stands, within an epoch too.

        Raises:
            NonFiniteError: the state holds a NaN or infinite number; nothing was written of it.
            OSError: as ``save_epoch``.
        """
        self.write_held()
        last_name = self._parts.plan.last_name
        if self._store is not None and self._last_is_restart_point and not self._is_restart_point():
            self._store.copy(last_name, RESTART_POINT_NAME)
        self._parts.state.require_finite()
        self._count_time()
        self._write([last_name], self._capture())
        self._last_is_restart_point = self._is_restart_point()

    def save_epoch(self, *, may_wait: bool = True) -> list[str]:
        """Write what the last completed epoch's end calls for; returns the names of what was written of it, which is
        nothing where it waits. Doing it twice changes nothing. That the state is finite is for the caller to see to.

        What the run cannot do without comes before what it can: everything else that an epoch leaves behind can be made
        again from it.

        Raises:
            OSError: a checkpoint that the run needs could not be written; the one before is still there.
        """
        plan, progress = self._parts.plan, self._progress
        self._count_time()
        self._wanted = plan.files(progress)
        names = [name for name, epoch in self._wanted.items() if epoch == progress.completed_epochs]
        needed = [name for name in (plan.last_name, plan.best_name) if name in names]
        others = [name for name in names if name not in needed]
        if names:
            instant = self._capture()
            self._held |= dict.fromkeys(needed, instant)
        if may_wait and not others and self._may_wait():
            return []
        self._before_write(progress)
        self._write_needed()
        saved = needed + [name for name in others if self._try_to_write(name, instant)]
        self._prune()
        return saved

    def write_held(self) -> None:
        """Bring the disk to where the end of the last completed epoch was to bring it.

        Raises:
            OSError: as ``save_epoch``.
        """
        self._before_write(self._progress)
        if self._held:
            self._write_needed()
            self._prune()

    def _write_needed(self) -> None:
        """Write what waits, the older first: whatever instant this is interrupted at, the newest is a way to go on."""
        for instant in sorted(set(self._held.values()), key=lambda instant: instant.epoch):
            names = [name for name, held in self._held.items() if held is instant]
            self._write(names, instant)
            self._held = {name: held for name, held in self._held.items() if held is not instant}
            if self._parts.plan.last_name in names:
                self._last_is_restart_point = True

    def _prune(self) -> None:
        if self._store is not None:
            self._store.prune(self._wanted)

    def _may_wait(self) -> bool:
        """Not long, and not for many epochs. Several processes, whose clocks differ, do not wait, nor does the end."""
        since_last_s = time.monotonic() - self._saved_at
        is_soon = since_last_s < self._parts.settings.min_s_between_saves
        is_little = self._progress.completed_epochs - self._saved_epochs < MOST_WAITING_EPOCHS
        return is_soon and is_little and self._parts.world.is_alone and self._progress.finished is None

    def _is_restart_point(self) -> bool:
        return is_restart_point(self._progress, self._parts.settings.save_every_n_steps)

    def _count_time(self) -> None:
        """Count in the time that this process has spent on the run."""
        now = time.monotonic()
        self._progress.elapsed_s += now - self._clocked_at
        self._clocked_at = now

    def _capture(self) -> _Instant:
        state, progress = self._parts.state, self._progress
        return _Instant(progress.completed_epochs, progress.step, state.capture_late(self._parts.world))

    def _write(self, names: list[str], instant: _Instant) -> None:
        self._saved_at, self._saved_epochs = time.monotonic(), self._progress.completed_epochs
        if self._store is None or self._trace is None:
            return
        self._trace.flush()
        self._store.save(names, instant.content(), epoch=instant.epoch, step=instant.step)

    def _try_to_write(self, name: str, instant: _Instant) -> bool:
        try:
            self._write([name], instant)
        except OSError as error:
            self._save_failed(self._progress, name, error)
            return False
        return True
