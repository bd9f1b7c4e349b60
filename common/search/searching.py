"""A whole search as one command runs it: the study found or begun, its trials trained, its results written."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from common.config import LoadedConfig, config_sha256
from common.console import Console
from common.environment import fingerprint_differences
from common.exits import InputFileError, RunFailedError, StoppedError
from common.loading import loading
from common.search.agenda import Agenda, agenda
from common.search.assignment import Assignment
from common.search.definition import Definition
from common.search.display import Display, num_tasks
from common.search.ledger import Ledger, LedgerState, open_ledger, study_names
from common.search.outcome import Surroundings, Trainer
from common.search.output import (
    holds_study,
    open_output,
    read_marker,
    remove_checkpoints,
    require_same,
    write_marker,
)
from common.search.owners import new_owner
from common.search.record import End, study_record
from common.search.request import SearchRequest
from common.search.stopping import SearchStop, TimeUpError
from common.search.storage import Storage, load_storage, storage_url
from common.search.worker import Worker
from common.search_results.records import StudyRecord

if TYPE_CHECKING:
    from common.search.artist import Artists
    from common.search.trainer_process import TrainerProcess
    from common.search.training import Survey

_NOTE_TIME_EVERY_S = 5.0
# The pictures are prepared while the last trainings run, where the search is long enough to be worth two processes.
_TASKS_BEFORE_THE_END, _SECONDS_BEFORE_THE_END = 3, 6.0
_FEWEST_TASKS_TO_PREPARE = 10


def search(
    request: SearchRequest, console: Console, stop: SearchStop, trainer: TrainerProcess | None = None
) -> tuple[StudyRecord, list[Path]]:
    """Bring the study to its end, from wherever it stands, and write its results.

    Args:
        trainer: what trains where there is one job; None trains in this process.
    Returns:
        The study, and the files that were written. Where the time was up, the study has that as its end.
    Raises:
        StoppedError: asked to stop; everything is saved.
        ToolError: with the exit code that fits; the same command goes on where the search ended.
    """
    if request.must_resume and not holds_study(request.output) and request.storage is None:
        raise InputFileError("holds no study to go on with", path=request.output, field="--resume",
                             hint="leave --resume out to begin one")  # fmt: skip
    known = _survey(request.base) if trainer is None else None
    surroundings = _survey_elsewhere(trainer, request.base, stop) if known is None else known.surroundings
    definition = _definition(request, surroundings, console)
    open_output(request.output)
    with closing(Storage(storage_url(request.storage, request.output))) as storage:
        ledger, found = _ledger(request, definition, storage)
        begun = _Search(request, found, ledger, storage.url, surroundings, console, stop, trainer,
                        known if request.jobs == 1 else None)  # fmt: skip
        del known  # with the data: who trains holds it, or other data
        return begun.run()


def _survey(base: LoadedConfig) -> Survey:
    with loading():
        from common.search.training import survey

    return survey(base)


def _survey_elsewhere(trainer: TrainerProcess, base: LoadedConfig, stop: SearchStop) -> Surroundings:
    trainer.ask_survey(base)
    load_storage()  # while torch is being loaded there
    return trainer.survey(stop)


def _definition(request: SearchRequest, surroundings: Surroundings, console: Console) -> Definition:
    """What the command asks for, with what only the data and the machine can tell."""
    config, plan = request.base.config, request.plan
    threads, cpus = surroundings.num_threads, surroundings.num_cpus
    if config.training.device == "cpu" and threads * request.jobs > cpus:
        console.warning(
            f"{request.jobs} jobs of {threads} threads on {cpus} processors get in each other's way: "
            "set training.num_threads to 1, or take fewer --jobs"
        )
    return Definition(
        method=plan.method,
        space=plan.space.entries,
        planned=plan.num_trials,
        seed=plan.seed,
        lag=plan.lag,
        metric=plan.metric,
        epochs=config.training.epochs,
        base_sha256=config_sha256(config),
        dataset=surroundings.dataset,
        trial_seed=config.reproducibility.seed,
        num_threads=threads,
        confirm=plan.confirm,
        prune=plan.prune,
    )


def _ledger(request: SearchRequest, definition: Definition, storage: Storage) -> tuple[Ledger, Definition]:
    """The study's ledger, that of the folder, of the name that was given, or a new one; and what it was begun as.

    Raises:
        UsageError: the study that is there is another one.
    """
    marked = read_marker(request.output)
    if marked is not None:
        require_same(marked[1], definition, request.output)
    names = study_names(storage) if request.storage is None else []
    name = request.study or (marked[0] if marked else None) or (names[0] if names else definition.default_name())
    ledger = open_ledger(storage, name, definition.direction, create=not request.must_resume)
    if ledger is None:
        raise InputFileError(f"has no study {name} to go on with", path=storage.shown, field="--resume",
                             hint="leave --resume out to begin one")  # fmt: skip
    found = ledger.set_up(definition, request.plan.wanted_trials, new_owner())
    require_same(found, definition, request.output if request.storage is None else storage.shown)
    write_marker(request.output, name, storage.shown, found)
    return ledger, found


class _Search:
    """One start of a search on an opened study."""

    def __init__(
        self, request: SearchRequest, definition: Definition, ledger: Ledger, url: str, surroundings: Surroundings,
        console: Console, stop: SearchStop, trainer: TrainerProcess | None, known: Survey | None,
    ) -> None:  # fmt: skip
        self._request = request
        self._definition = definition
        self._ledger = ledger
        self._machine = surroundings.machine
        self._console = console
        self._stop = stop
        self._trainer = trainer
        self._known = known
        self._assignment = Assignment(
            request.base, definition, url, ledger.name, request.output, list(request.command_line)
        )
        self._start = uuid.uuid4().hex[:12]
        self._began_s = self._noted_s = time.time()
        self._display: Display | None = None
        self._artists: Artists | None = None
        self._has_prepared = False

    def run(self) -> tuple[StudyRecord, list[Path]]:
        try:
            return self._run()
        finally:
            if self._artists is not None:
                self._artists.close()

    def _run(self) -> tuple[StudyRecord, list[Path]]:
        self._ledger.free_dead()
        state = self._ledger.read()
        self._announce(state)
        end: End
        try:
            with self._console.progress(num_tasks(self._definition, state), "Search", rate=False) as bar:
                self._display = Display(self._console, bar, self._definition, state)
                if agenda(self._definition, state).num_open:
                    self._note_machine()
                    self._work()
            end = self._end()
        except TimeUpError:
            end = self._end()  # the time may have been up just after the last trial
        except StoppedError:
            self._write("interrupted")
            self._console.info(f"{self._how_far()}; the same command goes on")
            raise
        record, files = self._write(end)
        if end == "timeout":
            self._console.info(f"The time is up: {self._how_far()}; the same command goes on")
        elif record.winner is None:
            message = next((trial.message for trial in record.trials if trial.message), "none has a score")
            raise RunFailedError(f"no trial could be trained to its end: {message}", path=self._request.output,
                                 hint="see the trials in search_results.md; narrow the search space")  # fmt: skip
        return record, files

    def _end(self) -> End:
        state = self._ledger.read()
        if agenda(self._definition, state).num_open:
            return "timeout"
        return "exhausted" if state.limit < state.num_trials else "finished"

    def _work(self) -> None:
        if self._request.jobs == 1:
            Worker(
                self._assignment, self._ledger, new_owner(), self._stop, self._note, self._console.warning,
                self._begun_trainer(),
            ).work()  # fmt: skip
            return
        from common.search.worker_pool import WorkerPool, visible_gpus

        gpus = [] if self._request.base.config.training.device == "cpu" else visible_gpus()
        pool = WorkerPool(
            self._assignment, self._request.jobs, gpus, self._console,
            news=lambda: self._note(self._ledger.read()), death=self._ledger.free_dead,
        )  # fmt: skip
        pool.run(self._stop)

    def _begun_trainer(self) -> Trainer:
        if self._trainer is not None:
            self._trainer.begin(self._assignment)
            return self._trainer
        from common.search.training import TrialTrainer

        known, self._known = self._known, None
        return TrialTrainer(self._request.base, self._definition, list(self._request.command_line), known)

    def _note_machine(self) -> None:
        """Tell where the study has trials from a machine, or with software, that may score them otherwise."""
        for other in self._ledger.note_machine(self._machine):
            differences = "; ".join(fingerprint_differences(other, self._machine))
            self._console.warning(f"the study was worked on under other conditions too ({differences}): "
                                  "the same trial may have another score there than here")  # fmt: skip

    def _note(self, state: LedgerState) -> None:
        """Tell and write what is new."""
        assert self._display is not None
        if not self._display.show(state):
            return
        now = time.time()
        if now - self._noted_s > _NOTE_TIME_EVERY_S:
            self._ledger.note_start(self._start, self._began_s, now)
            self._noted_s = now
        if not self._request.keep_checkpoints:
            remove_checkpoints(self._request.output, self._definition, state)
        record = self._record(state, "running")
        _write_trials()(self._request.output, record)
        if not self._has_prepared and self._is_nearly_done(state):
            self._prepare_pictures(record)

    def _prepare_pictures(self, record: StudyRecord) -> None:
        from common.search.artist import Artists

        self._has_prepared = True
        with contextlib.suppress(OSError):  # then they are drawn here, at the end
            self._artists = Artists(record)

    def _is_nearly_done(self, state: LedgerState) -> bool:
        assert self._display is not None
        left, left_s = self._display.num_left(state), self._display.seconds_left(state)
        if left == 0 or num_tasks(self._definition, state) < _FEWEST_TASKS_TO_PREPARE:
            return False
        return left <= _TASKS_BEFORE_THE_END or (left_s is not None and left_s <= _SECONDS_BEFORE_THE_END)

    def _write(self, end: End) -> tuple[StudyRecord, list[Path]]:
        """Write what there is to show at the end; after an interruption only what does not keep anybody waiting."""
        self._ledger.note_start(self._start, self._began_s, time.time())
        state = self._ledger.read()
        record = self._record(state, end)
        if not self._request.keep_checkpoints:
            remove_checkpoints(self._request.output, self._definition, state)
        if end == "interrupted" or record.winner is None:
            _write_trials()(self._request.output, record)
            return record, [self._request.output / name for name in ("trials.csv", "trials.json")]
        from common.search_results.writing import write_results

        drawing = {} if self._artists is None else {"draw": self._artists.draw}
        return record, write_results(self._request.output, record, self._request.base, **drawing)

    def _record(self, state: LedgerState, end: End) -> StudyRecord:
        return study_record(
            self._ledger.name, self._definition, state, end, base_config=str(self._request.base.source),
            search_space=str(self._request.plan.space.source), command_line=self._request.command_line,
        )  # fmt: skip

    def _announce(self, state: LedgerState) -> None:
        todo: Agenda = agenda(self._definition, state)
        done = sum(trial.outcome is not None for trial in state.trials.values())
        for line in self._request.plan.lines(self._definition.epochs, state.limit):
            self._console.info(line)
        if done:
            rest = "" if todo.num_open else ", and nothing is left to do"
            self._console.info(
                f"Going on with study {self._ledger.name}: {done} of {state.limit} trials are done{rest}"
            )

    def _how_far(self) -> str:
        state = self._ledger.read()
        done = sum(trial.outcome is not None for trial in state.trials.values())
        text = f"{done} of {state.limit} trials are done"
        missing = done == state.limit and agenda(self._definition, state).num_open
        return f"{text}, but not all confirmations" if missing else text


def _write_trials() -> Callable[[Path, StudyRecord], None]:
    from common.search_results.writing import write_trials

    return write_trials
