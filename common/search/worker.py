"""A worker: takes what there is to do, one task after another, until nothing is left."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from common.exits import (
    CheckFailedError,
    EnvironmentLackError,
    InputFileError,
    RunFailedError,
    StoppedError,
    ToolError,
    UsageError,
)
from common.search.agenda import MAX_ATTEMPTS, Task, agenda, results_for
from common.search.assignment import Assignment
from common.search.heartbeat import Heartbeat
from common.search.ledger import Ledger, LedgerState
from common.search.outcome import Curve, Job, Outcome, Trainer
from common.search.stopping import LeaseLostError, SearchStop

POLL_S = 0.2
_RETRY_PAUSE_S = 0.3
# What other workers do in this time is not missed: a task that they have taken cannot be taken again.
_FRESH_S = 5.0
# So many trials that fail one after the other have a common cause.
MAX_FAILED_IN_A_ROW = 3


class Worker:
    """Works on a study in this process, in its main thread.

    Args:
        assignment: what on.
        ledger: the study's, opened by this process.
        owner: the name that its leases bear.
        stop: entered by the caller.
        report: called with the ledger's state after every task that has ended, and while waiting for others.
        warn: called with what people should know.
        trainer: trains.
        parent: the process without which it does not go on, None for its own.
    """

    def __init__(
        self,
        assignment: Assignment,
        ledger: Ledger,
        owner: str,
        stop: SearchStop,
        report: Callable[[LedgerState], None],
        warn: Callable[[str], None],
        trainer: Trainer,
        *,
        parent: int | None = None,
    ) -> None:
        self._folder = assignment.folder
        self._definition = assignment.definition
        self._ledger = ledger
        self._owner = owner
        self._stop = stop
        self._report = report
        self._warn = warn
        self._parent = parent
        self._failed_in_a_row = 0
        self._space = {entry.path: entry for entry in assignment.definition.space}
        self._proposer = assignment.definition.proposer()
        self._trainer = trainer
        self._known: LedgerState | None = None

    def work(self) -> None:
        """Do everything that is left to do, together with whoever else works on the study.

        Raises:
            StoppedError: asked to stop, or the time is up; everything is saved.
            ToolError: something that no other trial could do without either.
        """
        with self._stop.deferred():
            while True:
                self._stop.raise_if_requested()
                known, self._known = self._known, None
                state = known or self._look()
                todo = agenda(self._definition, state)
                taken = self._take(todo.ready, state)
                if taken is not None:
                    self._do(*taken, state)
                elif known is None and not todo.num_open:
                    return
                elif known is None:
                    time.sleep(POLL_S)

    def _look(self) -> LedgerState:
        """Read the ledger, and tell of it."""
        state = self._ledger.read()
        self._report(state)
        return state

    def _take(self, tasks: list[Task], state: LedgerState) -> tuple[Task, int] | None:
        """The first task that nobody works on, and which attempt at it this is."""
        for task in tasks:
            lease = state.leases.get(task.name)
            if lease is not None and lease.is_live:
                continue
            attempt = self._ledger.take(task.name, self._owner)
            if attempt is not None:
                return task, attempt
        return None

    def _do(self, task: Task, attempt: int, state: LedgerState) -> None:
        """Do a task; where it fails for want of something, leave it for another attempt."""
        seen = _Seen(self._look)
        try:
            outcome = self._outcome(task, attempt, state, seen)
        except LeaseLostError as error:
            self._warn(f"{_called(task)}: {error.message}")
            return
        except StoppedError:
            self._ledger.give_back(task.name, self._owner, counts=False)
            raise
        except (InputFileError, CheckFailedError):
            self._ledger.give_back(task.name, self._owner, counts=False)
            raise  # the data or the base config: no trial can do without
        if outcome is None:
            return
        entry = {**asdict(outcome), "attempts": attempt, "run_dir": task.run_dir, "seed": self._seed_of(task)}
        if not self._definition.prune:
            del entry["curve"]
        if task.seed is None:
            self._ledger.finish(task.number, entry)
        else:
            self._ledger.confirm(task.name, entry)
        self._known = seen.state_with(task, entry)

    def _outcome(self, task: Task, attempt: int, state: LedgerState, seen: _Seen) -> Outcome | None:
        """How the task ended; None where there was nothing to train, or another attempt is to be made."""
        self._stop.begin()
        if attempt > 1:
            state = self._ledger.read()  # somebody had it, and may have got further since the ledger was read
        params = self._params(task, state)
        if params is None:
            return None
        if attempt > MAX_ATTEMPTS:
            return Outcome("failed", None, message=f"its worker ended {MAX_ATTEMPTS} times without a word")
        rivals = self._rivals(task, state) if self._definition.prune else None
        job = Job(params, self._seed_of(task), self._folder / task.run_dir, rivals)
        heartbeat = Heartbeat(self._ledger.renewing(), task.name, self._owner, self._stop.lose, parent=self._parent)
        try:
            with heartbeat:
                outcome = self._trainer.run(job, self._stop, meanwhile=seen.look)
            self._failed_in_a_row = 0
            return outcome
        except (StoppedError, InputFileError, CheckFailedError):
            raise
        except OSError as error:
            return self._after_failure(task, attempt, EnvironmentLackError(str(error), path=error.filename))
        except Exception as error:
            return self._after_failure(task, attempt, error)

    def _params(self, task: Task, state: LedgerState) -> Mapping[str, Any] | None:
        """What the task trains; a trial that has not been begun is proposed now. None where nothing is left to try."""
        trial = state.trials.get(task.number)
        if trial is not None and trial.outcome is not None and task.seed is None:
            return None  # somebody ended it before the lease was ours
        if trial is not None and trial.params is not None:
            return trial.params
        params = self._proposer.propose(task.number, results_for(self._definition, state, task.number))
        if params is None:
            self._ledger.exhaust(task.number)
            return None
        if not self._ledger.propose(task.number, params, self._space):
            self._ledger.give_back(task.name, self._owner, counts=False)
            return None
        return params

    def _seed_of(self, task: Task) -> int:
        return self._definition.trial_seed if task.seed is None else task.seed

    def _rivals(self, task: Task, state: LedgerState) -> list[Curve] | None:
        """The curves that a trial is compared with: a confirmation is trained to its end."""
        if task.seed is not None:
            return None
        visible = (state.trials.get(number) for number in range(max(0, task.number - self._definition.lag)))
        return [trial.outcome["curve"] for trial in visible if trial is not None and trial.outcome]

    def _after_failure(self, task: Task, attempt: int, error: Exception) -> Outcome | None:
        """A failure of the machine, or of code that is not ours: tried again a few times, then told.

        Raises:
            ToolError: the machine lacks something that other trials would lack too, or many in a row have failed.
        """
        said = error.message if isinstance(error, ToolError) else f"{type(error).__name__}: {error}"
        counts = not isinstance(error, UsageError)  # another process is still in the folder; it will go
        if isinstance(error, EnvironmentLackError) and attempt >= MAX_ATTEMPTS:
            self._ledger.give_back(task.name, self._owner, counts=False)
            raise error
        if counts and not isinstance(error, ToolError) and attempt == 1:
            self._warn("".join(traceback.format_exception(error)).rstrip())
        if counts and attempt >= MAX_ATTEMPTS:
            self._warn(f"{_called(task)} failed {attempt} times, the last time: {said}")
            self._failed_in_a_row += 1
            if self._failed_in_a_row < MAX_FAILED_IN_A_ROW:
                return Outcome("failed", None, message=said)
            self._ledger.give_back(task.name, self._owner, counts=False)
            raise RunFailedError(f"{self._failed_in_a_row} trials in a row failed, the last one with: {said}",
                                 hint="find the cause; the same command then goes on") from error  # fmt: skip
        self._warn(f"{_called(task)} failed ({said}) and is tried again")
        self._ledger.give_back(task.name, self._owner, counts=counts)
        time.sleep(_RETRY_PAUSE_S * attempt)
        return None


class _Seen:
    """The ledger as it was when a training had begun.

    Looked at then, and not when the training is over, it keeps nobody waiting; what ended before is told then too.
    """

    def __init__(self, look: Callable[[], LedgerState]) -> None:
        self._look = look
        self._state: LedgerState | None = None
        self._looked_at_s = 0.0

    def look(self) -> None:
        self._state, self._looked_at_s = self._look(), time.monotonic()

    def state_with(self, task: Task, outcome: Mapping[str, Any]) -> LedgerState | None:
        """What was seen and the outcome of the task; None where it is too long ago to be told from."""
        if self._state is None or time.monotonic() - self._looked_at_s > _FRESH_S:
            return None
        return self._state.with_outcome(task.number if task.seed is None else task.name, outcome)


def _called(task: Task) -> str:
    return f"trial {task.number}" if task.seed is None else f"confirmation of trial {task.number} with seed {task.seed}"
