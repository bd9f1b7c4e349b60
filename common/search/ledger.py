"""The ledger of a study: which trials there are, what each tries, and what came of it, in Optuna's own tables.

Everything a worker writes may be written twice: a trial whose worker died is done again, with the same outcome.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from common.search.definition import Definition, differences
from common.search.leases import Lease, Leases
from common.search.levels import is_ordered
from common.search.owners import is_known_dead
from common.search.storage import Storage
from common.search_results.records import SpaceEntry

PARAMS, OUTCOME = "params", "outcome"
_DEFINITION, _NUM_TRIALS, _EXHAUSTED = "definition", "n_trials", "exhausted_at"
_CONFIRMED, _STARTED, _MACHINE = "confirmed/", "start/", "machine/"
_SETUP_TASK, _SETUP_PAUSE_S = "setup", 0.05


@dataclass(frozen=True)
class LedgerTrial:
    """A trial as far as it has come: ``params`` once it was proposed, ``outcome`` once it has ended."""

    number: int
    params: Mapping[str, Any] | None
    outcome: Mapping[str, Any] | None


@dataclass(frozen=True)
class LedgerState:
    """The ledger at one moment.

    ``num_trials`` is how many the study is to have; ``exhausted_at`` is the number of the first trial for which there
    was no configuration left, None while there was. ``confirmed`` has the outcomes of confirmations by task, ``starts``
    the times (seconds since 1970) at which each start of the search began and was last seen. ``machines`` are the
    conditions under which it was worked on, as ``Surroundings.machine``.
    """

    trials: Mapping[int, LedgerTrial]
    leases: Mapping[str, Lease]
    num_trials: int
    exhausted_at: int | None = None
    confirmed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    starts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    machines: Sequence[Mapping[str, Any]] = ()

    @property
    def limit(self) -> int:
        """How many trials there can be."""
        return self.num_trials if self.exhausted_at is None else min(self.num_trials, self.exhausted_at)

    def with_outcome(self, of: int | str, outcome: Mapping[str, Any]) -> LedgerState:
        """The same with the outcome of a trial, by its number, or of a confirmation, by its task."""
        if isinstance(of, str):
            return replace(self, confirmed={**self.confirmed, of: outcome})
        return replace(self, trials={**self.trials, of: replace(self.trials[of], outcome=outcome)})


class Ledger:
    """One study in a storage, for one process. Not for several threads at once."""

    def __init__(self, storage: Storage, name: str, study_id: int) -> None:
        self.name = name
        self._storage = storage
        self._study_id = study_id
        self._leases = storage.run(lambda: Leases(storage.engine, study_id))
        self._ids: dict[int, int] = {}

    def set_up(self, definition: Definition, num_trials: int | None, owner: str) -> Definition:
        """Write down what the study is, unless that was done, and see that it has so many trials at least.

        Returns:
            The definition that holds.
        """
        while self.take(_SETUP_TASK, owner) is None:  # another process is at it, or died at it
            self.free_dead()
            time.sleep(_SETUP_PAUSE_S)
        try:
            attributes = self._attributes()
            if _DEFINITION not in attributes:
                self._set(_DEFINITION, definition.as_plain())
            found = Definition.from_plain(attributes.get(_DEFINITION, definition.as_plain()))
            if attributes.get(_NUM_TRIALS, 0) < (num_trials or found.planned) and not differences(found, definition):
                self._set(_NUM_TRIALS, num_trials or found.planned)
            return found
        finally:
            self.give_back(_SETUP_TASK, owner, counts=False)

    def read(self) -> LedgerState:
        """The ledger as it stands."""
        found = self._run(lambda: self._storage.optuna.get_all_trials(self._study_id, deepcopy=False))
        self._ids = {trial.number: trial._trial_id for trial in found}
        attributes = self._attributes()
        return LedgerState(
            trials={trial.number: self._trial(trial) for trial in found},
            leases=self._run(self._leases.read),
            num_trials=attributes.get(_NUM_TRIALS, 0),
            exhausted_at=attributes.get(_EXHAUSTED),
            confirmed=_with_prefix(attributes, _CONFIRMED),
            starts={key: tuple(times) for key, times in _with_prefix(attributes, _STARTED).items()},
            machines=[machine for _, machine in sorted(_with_prefix(attributes, _MACHINE).items())],
        )

    def take(self, task: str, owner: str) -> int | None:
        """See ``Leases.take``."""
        return self._run(lambda: self._leases.take(task, owner))

    def give_back(self, task: str, owner: str, *, counts: bool) -> None:
        """See ``Leases.give_back``."""
        self._run(lambda: self._leases.give_back(task, owner, counts=counts))

    def free_dead(self) -> None:
        """Free the tasks of workers that died on this machine; they need not wait for their leases to run out."""
        for owner in {lease.owner for lease in self._run(self._leases.read).values() if lease.is_live}:
            if is_known_dead(owner):
                self._run(lambda owner=owner: self._leases.free(owner))

    def propose(self, number: int, params: Mapping[str, Any], space: Mapping[str, SpaceEntry]) -> bool:
        """Write down what the trial tries, under the lease of its task; returns whether it now stands there.

        Optuna numbers trials by counting them. Should a worker that was taken for dead wake up and write the same one
        too, that is the next number, which its own worker then puts right: what is written says which trial it is for.
        """
        shown = {path: _as_optuna(space[path], value) for path, value in params.items()}
        written = {"number": number, "values": dict(params)}
        if number not in self._ids:
            template = _new_trial(shown, {PARAMS: written})
            made = self._run(lambda: self._storage.optuna.create_new_trial(self._study_id, template))
            if self._run(lambda: self._storage.optuna.get_trial_number_from_id(made)) == number:
                self._ids[number] = made
                return True
        state = self.read()
        if number not in state.trials:
            return False
        if state.trials[number].params is None:
            for path, (distribution, value) in shown.items():
                self._set_param(number, path, distribution, value)
            self._set_of_trial(number, PARAMS, written)
        return True

    def finish(self, number: int, outcome: Mapping[str, Any]) -> None:
        """Write down how the trial ended; what was written first holds."""
        self._set_of_trial(number, OUTCOME, dict(outcome))
        state = {"complete": "COMPLETE", "pruned": "PRUNED"}.get(outcome["state"], "FAIL")
        self._set_state(number, state, outcome["value"])

    def exhaust(self, number: int) -> None:
        """There is no configuration left for the trial with this number."""
        self._set(_EXHAUSTED, number)

    def confirm(self, task: str, outcome: Mapping[str, Any]) -> None:
        """Write down how a confirmation ended."""
        self._set(_CONFIRMED + task, dict(outcome))

    def note_start(self, start: str, began_s: float, seen_s: float) -> None:
        """Write down that a start of the search was at work from one time to the other."""
        self._set(_STARTED + start, [began_s, seen_s])

    def note_machine(self, machine: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Write down under which conditions the study is worked on; returns the others under which it was too."""
        digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:12]
        # Written before it is read, so that of two machines that begin at once one at least hears of the other.
        self._set(_MACHINE + digest, dict(machine))
        known = _with_prefix(self._attributes(), _MACHINE)
        return [other for key, other in sorted(known.items()) if key != digest]

    def renewing(self) -> Leases:
        """The leases for the thread that renews them, which may not use anything else here."""
        return self._leases

    @staticmethod
    def _trial(trial: Any) -> LedgerTrial:
        attributes = trial.user_attrs
        written = attributes.get(PARAMS, {})
        params = written["values"] if written.get("number") == trial.number else None
        return LedgerTrial(trial.number, params, attributes.get(OUTCOME) if trial.state.is_finished() else None)

    def _attributes(self) -> dict[str, Any]:
        return self._run(lambda: self._storage.optuna.get_study_user_attrs(self._study_id))

    def _set(self, key: str, value: Any) -> None:
        self._run(lambda: self._storage.optuna.set_study_user_attr(self._study_id, key, value))

    def _set_of_trial(self, number: int, key: str, value: Any) -> None:
        self._unless_finished(lambda: self._storage.optuna.set_trial_user_attr(self._ids[number], key, value))

    def _set_param(self, number: int, path: str, distribution: Any, value: Any) -> None:
        internal = distribution.to_internal_repr(value)
        self._unless_finished(
            lambda: self._storage.optuna.set_trial_param(self._ids[number], path, internal, distribution)
        )

    def _set_state(self, number: int, state: str, value: float | None) -> None:
        from optuna.trial import TrialState

        values = None if value is None else [value]
        self._unless_finished(
            lambda: self._storage.optuna.set_trial_state_values(self._ids[number], TrialState[state], values)
        )

    def _unless_finished(self, action: Any) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._run(action)
        except UpdateFinishedTrialError:
            return  # by the worker that was taken for dead, which has come to the same outcome

    def _run(self, action: Any) -> Any:
        return self._storage.run(action)


def open_ledger(storage: Storage, name: str, direction: str, *, create: bool) -> Ledger | None:
    """The study of that name; where there is none it is created, or None returned.

    One process of several that do so at the same time creates it, and all get the same.
    """
    from optuna.exceptions import DuplicatedStudyError
    from optuna.study import StudyDirection

    def find() -> int | None:
        try:
            return storage.optuna.get_study_id_from_name(name)
        except KeyError:
            return None

    study_id = storage.run(find)
    if study_id is None and create:
        with contextlib.suppress(DuplicatedStudyError):
            storage.run(lambda: storage.optuna.create_new_study([StudyDirection[direction.upper()]], name))
        study_id = storage.run(find)
    return None if study_id is None else Ledger(storage, name, study_id)


def study_names(storage: Storage) -> list[str]:
    """The names of all studies in a storage."""
    return [study.study_name for study in storage.run(storage.optuna.get_all_studies)]


def _with_prefix(attributes: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in attributes.items() if key.startswith(prefix)}


def _new_trial(shown: Mapping[str, tuple[Any, Any]], attributes: Mapping[str, Any]) -> Any:
    """What Optuna makes a trial from, in one step: running, with these distributions and values."""
    import optuna

    return optuna.trial.FrozenTrial(
        number=-1,
        state=optuna.trial.TrialState.RUNNING,
        value=None,
        datetime_start=datetime.datetime.now(),
        datetime_complete=None,
        params={path: value for path, (_, value) in shown.items()},
        distributions={path: distribution for path, (distribution, _) in shown.items()},
        user_attrs=dict(attributes),
        system_attrs={},
        intermediate_values={},
        trial_id=-1,
    )


def _as_optuna(entry: SpaceEntry, value: Any) -> tuple[Any, Any]:
    """An entry's distribution and the value in it, as Optuna's own tools show them."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if entry.choices is not None:
        plain = (str, int, float, bool, type(None))
        shown = value if isinstance(value, plain) else json.dumps(value)
        choices = [choice if isinstance(choice, plain) else json.dumps(choice) for choice in entry.choices]
        return CategoricalDistribution(sorted(choices) if is_ordered(entry) else choices), shown
    if isinstance(entry.low, int):
        return IntDistribution(entry.low, entry.high, log=entry.log, step=entry.step or 1), value
    return FloatDistribution(entry.low, entry.high, log=entry.log, step=entry.step), value
