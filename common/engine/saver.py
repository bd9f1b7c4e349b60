"""When and what a training saves."""

from __future__ import annotations

import time
from collections.abc import Callable

from common import checkpoints
from common.engine.parts import Parts
from common.engine.progress import RESTART_POINT_NAME, Progress
from common.step_trace import StepTrace


def is_restart_point(progress: Progress, save_every_n_steps: int | None) -> bool:
    """Whether a failed step may send the training back to here.

    Only to where every run of this config saves: were it to where a signal or the clock had this one save, an
    interruption would decide which steps are done again with a lower learning rate or a smaller micro-batch.
    """
    return progress.batch == 0 or (bool(save_every_n_steps) and progress.batch % save_every_n_steps == 0)


class Saver:
    """Writes the state in ``parts`` to checkpoints. In every process: capturing a state is a collective call.

    Args:
        store, trace: where checkpoints and steps are written; None in processes that write nothing.
        save_failed: told when a checkpoint that the run can do without could not be written.
    """

    def __init__(
        self,
        parts: Parts,
        store: checkpoints.CheckpointStore | None,
        trace: StepTrace | None,
        save_failed: Callable[[Progress, str, OSError], None],
    ) -> None:
        self._parts = parts
        self._store = store
        self._trace = trace
        self._save_failed = save_failed
        self._saved_at = self._clocked_at = time.monotonic()
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
        """Save where the training stands, within an epoch too."""
        last_name = self._parts.plan.last_name
        if self._store is not None and self._last_is_restart_point and not self._is_restart_point():
            self._store.copy(last_name, RESTART_POINT_NAME)
        self._write([last_name], self._capture())
        self._last_is_restart_point = self._is_restart_point()

    def save_epoch(self) -> list[str]:
        """Write what the last completed epoch's end calls for; returns the names. Doing it twice changes nothing.

        The last checkpoint comes first, and what the run cannot do without before what it can: everything else that an
        epoch leaves behind can be made again from it.

        Raises:
            NonFiniteError: the state holds a NaN or infinite number; nothing was written.
            OSError: a checkpoint that the run needs could not be written; the one before is still there.
        """
        plan, progress = self._parts.plan, self._progress
        wanted = plan.files(progress)
        names = [name for name, epoch in wanted.items() if epoch == progress.completed_epochs]
        content = self._capture()
        needed = [name for name in (plan.last_name, plan.best_name) if name in names]
        self._write(needed, content)
        saved = needed + [name for name in names if name not in needed and self._try_to_write(name, content)]
        if self._store is not None:
            self._store.prune(wanted)
        self._last_is_restart_point = plan.last_name in names
        return saved

    def _is_restart_point(self) -> bool:
        return is_restart_point(self._progress, self._parts.settings.save_every_n_steps)

    def _capture(self) -> bytes:
        """A checkpoint of this instant, with the time that this process has spent on the run counted in."""
        self._parts.state.require_finite()
        now = time.monotonic()
        self._progress.elapsed_s += now - self._clocked_at
        self._clocked_at = self._saved_at = now
        state = self._parts.state.capture(self._parts.world)
        return checkpoints.to_bytes(state) if self._store is not None else b""

    def _write(self, names: list[str], content: bytes) -> None:
        if self._store is None or self._trace is None:
            return
        self._trace.flush()
        self._store.save(names, content, epoch=self._progress.completed_epochs, step=self._progress.step)

    def _try_to_write(self, name: str, content: bytes) -> bool:
        try:
            self._write([name], content)
        except OSError as error:
            self._save_failed(self._progress, name, error)
            return False
        return True
