"""The ledger and its leases: one contract for SQLite and PostgreSQL, on real ones."""

from __future__ import annotations

import json
import multiprocessing
import os
import time

import pytest

from common.exits import EnvironmentLackError, InputFileError, UsageError
from common.search import leases as leases_module
from common.search import storage as storage_module
from common.search.definition import Definition, differences
from common.search.ledger import open_ledger
from common.search.owners import is_known_dead, new_owner
from common.search.storage import Storage, shown_url, storage_url
from common.search_results.records import SpaceEntry
from tests.search_definitions import ENTRIES, definition, take_many

SPACE = {entry.path: entry for entry in ENTRIES}
PARAMS = {"optimizer.learning_rate": 0.01, "training.batch_size": 32}
DONE = {"state": "complete", "value": 91.5, "message": None}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return storage_url(None, tmp_path)
    return storage_url(request.getfixturevalue("server").new_database(), tmp_path)


@pytest.fixture
def storage(url):
    storage = Storage(url)
    yield storage
    storage.close()


@pytest.fixture
def ledger(storage):
    return open_ledger(storage, "study", "maximize", create=True)


def proposed(ledger, number, params=PARAMS):
    ledger.read()
    assert ledger.propose(number, params, SPACE)


def test_machines_are_kept_once_each(ledger):
    here, there = {"torch": "2.13.0", "cuda": None}, {"torch": "2.11.0", "cuda": None}
    assert ledger.note_machine(here) == [] and ledger.note_machine(here) == []
    assert ledger.note_machine(there) == [here] and ledger.note_machine(here) == [there]
    assert sorted(ledger.read().machines, key=lambda machine: machine["torch"]) == [there, here]


def test_a_task_is_one_owners_until_it_is_given_back(ledger):
    assert ledger.take("trial/0", "me") == 1
    assert ledger.take("trial/0", "you") is None
    assert ledger.take("trial/1", "you") == 1
    ledger.give_back("trial/0", "you", counts=True)  # not yours to give
    assert ledger.take("trial/0", "you") is None
    ledger.give_back("trial/0", "me", counts=False)
    assert ledger.take("trial/0", "you") == 1, "an attempt that was stopped does not count"
    ledger.give_back("trial/0", "you", counts=True)
    assert ledger.take("trial/0", "me") == 2


def test_who_gives_no_sign_of_life_loses_the_task(ledger, monkeypatch):
    monkeypatch.setattr(leases_module, "LEASE_S", 0.2)
    assert ledger.take("trial/0", "me") == 1
    deadline = time.monotonic() + 60
    while (attempt := ledger.take("trial/0", "you")) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert attempt == 2
    assert ledger.renewing().renew("trial/0", "me") is False
    assert ledger.renewing().renew("trial/0", "you") is True


def test_the_dead_need_not_be_waited_for(ledger):
    place, pid, created, tag = json.loads(new_owner())
    dead, elsewhere = json.dumps([place, pid, created - 5, tag]), json.dumps(["elsewhere", pid, created - 5, tag])
    assert ledger.take("setup", dead) == ledger.take("trial/0", dead) == ledger.take("trial/1", elsewhere) == 1
    ledger.set_up(definition(), None, new_owner())
    assert not ledger.read().leases["trial/0"].is_live and ledger.read().leases["trial/1"].is_live
    assert ledger.take("trial/0", "you") == 2


def test_processes_that_begin_at_once_share_the_tasks(url):
    """The storage is empty: they create its tables and the study too."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=take_many, args=(url, f"owner {n}", 20, results)) for n in range(3)]
    for process in processes:
        process.start()
    taken = [results.get(timeout=240) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(task for tasks in taken for task in tasks) == list(range(20))


def test_a_trial_from_its_proposal_to_its_end(ledger, storage):
    proposed(ledger, 0)
    trial = ledger.read().trials[0]
    assert trial.params == PARAMS and trial.outcome is None
    ledger.finish(0, DONE)
    assert ledger.read().trials[0].outcome == DONE
    again = open_ledger(storage, "study", "maximize", create=False)
    assert again.read() == ledger.read()


def test_what_is_done_again_changes_nothing(ledger):
    for _ in range(2):
        proposed(ledger, 0)
    ledger.finish(0, DONE)
    ledger.finish(0, {**DONE, "value": 12.0})
    proposed(ledger, 0, {**PARAMS, "training.batch_size": 64})
    (trial,) = ledger.read().trials.values()
    assert (trial.outcome, trial.params) == (DONE, PARAMS)


def test_a_trial_that_two_create_at_once_leaves_one_for_later(storage, ledger):
    other = open_ledger(storage, "study", "maximize", create=False)
    ledger.read(), other.read()
    assert ledger.propose(0, PARAMS, SPACE) and other.propose(0, PARAMS, SPACE)
    state = ledger.read()
    assert state.trials[0].params == PARAMS and state.trials[1].params is None
    next_params = {**PARAMS, "training.batch_size": 64}
    proposed(ledger, 1, next_params)
    assert {number: trial.params for number, trial in ledger.read().trials.items()} == {0: PARAMS, 1: next_params}


@pytest.mark.parametrize(
    ("state", "value", "shown"),
    [("complete", 5.0, "COMPLETE"), ("pruned", 5.0, "PRUNED"), ("diverged", None, "FAIL"), ("failed", None, "FAIL")],
)
def test_optunas_own_tools_see_what_became_of_a_trial(ledger, storage, state, value, shown):
    import optuna

    proposed(ledger, 0)
    ledger.finish(0, {**DONE, "state": state, "value": value})
    (trial,) = optuna.load_study(study_name="study", storage=storage.optuna).trials
    assert (trial.state.name, trial.value, trial.params) == (shown, value, PARAMS)


def test_values_that_optuna_does_not_know_are_kept_as_they_are(ledger):
    entry = SpaceEntry("model.hidden_dims", choices=([64], [128, 64]))
    ledger.read()
    assert ledger.propose(0, {"model.hidden_dims": [128, 64]}, {entry.path: entry})
    assert ledger.read().trials[0].params == {"model.hidden_dims": [128, 64]}


def test_the_first_says_what_the_study_is_and_others_may_only_extend_it(ledger):
    first = definition(planned=4)
    assert ledger.set_up(first, None, "me") == first
    assert ledger.read().num_trials == 4
    assert ledger.set_up(definition(planned=9), 9, "you") == first
    assert ledger.read().num_trials == 9
    assert ledger.set_up(definition(planned=6), 6, "me") == first
    assert ledger.set_up(definition(planned=50, seed=7), 50, "you") == first
    assert ledger.read().num_trials == 9


def test_confirmations_starts_and_the_end_of_the_space_are_kept(ledger):
    ledger.set_up(definition(), 10, "me")
    ledger.confirm("confirm/3/77", DONE)
    ledger.note_start("a", 10.0, 20.0)
    ledger.note_start("a", 10.0, 25.0)
    ledger.exhaust(6)
    state = ledger.read()
    assert state.confirmed == {"confirm/3/77": DONE} and state.starts == {"a": (10.0, 25.0)}
    assert (state.num_trials, state.limit) == (10, 6)


def test_a_storage_that_comes_back_is_waited_for(server, tmp_path, monkeypatch):
    storage = Storage(storage_url(server.new_database(), tmp_path))
    ledger = open_ledger(storage, "study", "maximize", create=True)
    server.stop()
    monkeypatch.setattr(storage_module, "OUTAGE_S", 0.3)
    with pytest.raises(EnvironmentLackError, match="the storage cannot be reached"):
        ledger.read()
    monkeypatch.setattr(storage_module, "OUTAGE_S", 120.0)
    server.start()
    assert ledger.read().trials == {}
    storage.close()


def test_a_server_that_is_not_there_is_told_without_the_password(tmp_path):
    url = storage_url(f"postgresql://me:secret@/study?host={tmp_path}", tmp_path)
    with pytest.raises(EnvironmentLackError, match="the storage cannot be reached") as caught:
        Storage(url)
    assert "secret" not in str(caught.value) and "***" in str(caught.value)


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "study.db").write_bytes(b"not a database, but long enough to be one " * 100)
    with pytest.raises(InputFileError, match="is not a study"):
        Storage(storage_url(None, tmp_path))


def test_urls_as_users_type_them(tmp_path):
    assert storage_url("postgres://a@b/c", tmp_path) == "postgresql+psycopg://a@b/c"
    assert storage_url("postgresql+psycopg://a@b/c", tmp_path) == "postgresql+psycopg://a@b/c"
    assert storage_url("sqlite:///x.db", tmp_path) == "sqlite:///x.db"
    assert shown_url("postgresql://me:se:cret@host/db") == "postgresql://me:***@host/db"
    with pytest.raises(UsageError, match="no storage that can be used"):
        storage_url("mysql://a:b@c/d", tmp_path)


def test_a_folder_with_any_name_can_hold_a_study(tmp_path):
    folder = tmp_path / "a {b} 100% #1?"
    folder.mkdir()
    storage = Storage(storage_url(None, folder))
    assert open_ledger(storage, "study", "minimize", create=True) is not None
    storage.close()
    assert (folder / "study.db").is_file()


def test_a_missing_study_is_not_created_unasked(storage):
    assert open_ledger(storage, "other", "maximize", create=False) is None


def test_a_definition_survives_json():
    entries = (*ENTRIES, SpaceEntry("model.dropout", low=0.0, high=0.5, log=False,
                                    when={"training.batch_size": (16, 32)}))  # fmt: skip
    made = definition(space=entries, prune=True)
    assert Definition.from_plain(json.loads(json.dumps(made.as_plain()))) == made


def test_differences_are_told_in_words():
    assert differences(definition(), definition(planned=99)) == []
    changed = definition(seed=7, space=ENTRIES[:1], dataset="other", metric="val_loss")
    assert differences(definition(), changed) == [
        "the search space (without training.batch_size)", "--seed (42 then, 7 now)",
        "--metric (val_acc then, val_loss now)", "the data",
    ]  # fmt: skip
    assert definition().default_name() == definition(planned=99).default_name() != changed.default_name()


def test_an_owner_is_known_to_be_dead_only_if_it_can_be_known():
    owner = new_owner()
    assert not is_known_dead(owner)
    place, pid, created, tag = json.loads(owner)
    assert is_known_dead(json.dumps([place, pid, created - 5, tag])), "another process had the number before"
    assert not is_known_dead(json.dumps(["elsewhere", pid, created - 5, tag]))
    assert not is_known_dead("owner 1")
    child = multiprocessing.get_context("spawn").Process(target=os.getpid)
    child.start()
    child.join()
    assert is_known_dead(json.dumps([place, child.pid, created, tag]))


def test_a_state_with_an_outcome_is_what_the_ledger_says_afterwards(ledger):
    proposed(ledger, 0), proposed(ledger, 1)
    before = ledger.read()
    ledger.finish(1, DONE)
    ledger.confirm("confirm/1/7", DONE)
    expected = ledger.read()
    told = before.with_outcome(1, DONE).with_outcome("confirm/1/7", DONE)
    assert (told.trials, told.confirmed) == (expected.trials, expected.confirmed)
    assert before.trials[1].outcome is None and not before.confirmed
