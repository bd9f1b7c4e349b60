"""Workers and whole searches that are killed or stopped in the middle of a trial, as real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from common.search.ledger import open_ledger, study_names
from common.search.owners import pid_of
from common.search.storage import Storage, storage_url
from tests.searches import document_of, outcome_of, run_search, search_command, start_search
from tests.training_runs import ROOT, STOPPABLE, wait_until

SPACE = {"learning_rate": [0.003, 0.01, 0.03], "dropout": [0.0, 0.3]}
OPTIONS = ("--n-trials", 3, "--confirm", 1)
# Eight steps an epoch.
CHANGES = {"space": SPACE, "model__architecture": STOPPABLE, "model__hidden_dims": None, "training__batch_size": 16}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What the search finds that nobody disturbs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        return outcome_of(run_search(*OPTIONS, **CHANGES))


def standing_still(folder: Path, *arguments: object, **options) -> subprocess.Popen:
    """A search whose every process waits in the fifth step of its first training until ``go`` exists."""
    command = search_command(*OPTIONS, *arguments, **CHANGES, **options)
    return start_search(folder, command, TEST_STOP_AT=f"train:5:{folder / 'go'}")


def workers(url: str, number: int) -> list[int]:
    """The processes that have a trial, once there are so many."""
    found: list[int] = []

    def there() -> bool:
        if not Path("out/study.json").exists():  # the study may still be in the making
            return False
        storage = Storage(url)
        found[:] = _owners(storage)
        storage.close()
        return len(found) >= number

    wait_until(there, f"{number} workers to have a trial", deadline_s=240)
    return found


def _owners(storage: Storage) -> list[int]:
    ledger = open_ledger(storage, study_names(storage)[0], "maximize", create=False)
    leases = ledger.read().leases.items()
    return sorted({pid_of(lease.owner) for task, lease in leases if lease.is_live and task.startswith("trial/")})


def ended(process, expect: int) -> str:
    """What the search said, once it has ended with that exit code."""
    _, said = process.communicate(timeout=240)
    assert process.returncode == expect, said
    return said


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_worker_that_dies_is_replaced_and_its_trial_taken_again(tmp_path, expected):
    process = standing_still(tmp_path, "--jobs", 2)
    first, _ = workers(storage_url(None, tmp_path / "out"), 2)
    os.kill(first, signal.SIGKILL)
    Path("go").touch()
    said = ended(process, 0)
    assert "died (by SIGKILL); its trial is taken again" in said
    assert outcome_of(Path("out")) == expected
    assert sorted(trial["attempts"] for trial in document_of(Path("out"))["trials"]) == [1, 1, 2]


def test_workers_do_not_outlive_their_search(tmp_path, expected):
    process = standing_still(tmp_path, "--jobs", 2)
    found = workers(storage_url(None, tmp_path / "out"), 2)
    process.kill()
    Path("go").touch()  # what stands still holds the pipe that is read to its end
    ended(process, -signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, found)), "the workers to end")
    run_search(*OPTIONS, **CHANGES)
    assert outcome_of(Path("out")) == expected


@pytest.mark.parametrize(("name", "code", "jobs"), [("SIGINT", 130, 2), ("SIGTERM", 143, 1)])
def test_a_search_that_is_stopped_saves_and_says_how_to_go_on(tmp_path, expected, name, code, jobs):
    process = standing_still(tmp_path, "--jobs", jobs)
    workers(storage_url(None, tmp_path / "out"), jobs)
    os.killpg(process.pid, getattr(signal, name))
    Path("go").touch()
    said = ended(process, code)
    assert "0 of 3 trials are done; the same command goes on" in said and "Traceback" not in said
    assert {trial["state"] for trial in document_of(Path("out"))["trials"]} == {"waiting"}
    assert list(Path("out").glob("trials/0000/checkpoints/last_model.pt")), "saved in the middle of its first epoch"
    run_search(*OPTIONS, "--resume", **CHANGES)
    assert outcome_of(Path("out")) == expected
    assert {trial["attempts"] for trial in document_of(Path("out"))["trials"]} == {1}, "a stop is no failure"


def trainer_of(search: subprocess.Popen) -> psutil.Process:
    """The process that trains for a search with one job, once it stands still in a trial."""
    found: list[psutil.Process] = []

    def trains() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            found[:] = [one for one in psutil.Process(search.pid).children()
                        if "resource_tracker" not in " ".join(one.cmdline())]  # fmt: skip
        return len(found) == 1 and Path("out/trials/0000/checkpoints/last_model.pt").exists()

    wait_until(trains, "the trainer to train", deadline_s=240)
    return found[0]


def test_a_trainer_that_dies_is_replaced_and_its_trial_taken_again(tmp_path, expected):
    search = standing_still(tmp_path)
    trainer_of(search).kill()
    Path("go").touch()
    said = ended(search, 0)
    assert "trial 0 failed (the process that trains died (by SIGKILL)) and is tried again" in said
    assert outcome_of(Path("out")) == expected
    assert [trial["attempts"] for trial in document_of(Path("out"))["trials"]] == [2, 1, 1]


def test_a_trainer_does_not_outlive_its_search(tmp_path):
    search = standing_still(tmp_path)
    trainer = trainer_of(search)
    search.kill()
    Path("go").touch()  # what stands still holds the pipe that is read to its end
    ended(search, -signal.SIGKILL)
    wait_until(lambda: is_gone(trainer.pid), "the trainer to end")


def test_a_trainer_that_is_stopped_alone_has_saved_and_stops_the_search(tmp_path, expected):
    search = standing_still(tmp_path)
    trainer_of(search).terminate()
    Path("go").touch()
    assert "0 of 3 trials are done; the same command goes on" in ended(search, 143)
    run_search(*OPTIONS, "--resume", **CHANGES)
    assert outcome_of(Path("out")) == expected


def test_the_process_that_keeps_the_ledger_never_loads_torch(tmp_path, expected):
    command = search_command(*OPTIONS, "--quiet", **CHANGES)
    code = f"import sys, hyperparam_search as h; sys.exit(h.main({command!r}) or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0
    assert outcome_of(Path("out")) == expected


def test_what_is_wrong_with_the_data_is_told_as_if_it_had_been_read_here(tmp_path):
    command = search_command(*OPTIONS, model__num_classes=7, space=SPACE)
    said = ended(start_search(tmp_path, command), 3)
    assert "model.num_classes: is 7, but the data has 3 classes; leave it out" in said and "Traceback" not in said


def test_several_machines_share_a_study(tmp_path, server, expected):
    """Two commands with a folder each and one database: each takes trials, none is done twice, both tell the result."""
    given = server.new_database()
    first = standing_still(tmp_path, "--storage", given)
    workers(storage_url(given, tmp_path), 1)
    second = start_search(
        tmp_path, search_command(*OPTIONS, "--storage", given, output="other", **CHANGES),
        TEST_STOP_AT=f"train:5:{tmp_path / 'go'}",
    )  # fmt: skip
    workers(storage_url(given, tmp_path), 2)
    Path("go").touch()
    ended(first, 0), ended(second, 0)
    assert outcome_of(Path("out")) == outcome_of(Path("other")) == expected
    runs = [{path.parent.name for path in Path(name).glob("*/*/metrics.json")} for name in ("out", "other")]
    assert all(runs) and not runs[0] & runs[1], "each has done some, and none the same"
    assert len(runs[0] | runs[1]) == 3 + 2


def test_a_machine_that_dies_is_noticed_by_the_other(tmp_path, server, expected):
    given = server.new_database()
    first = standing_still(tmp_path, "--storage", given)
    workers(storage_url(given, tmp_path), 1)
    first.kill()
    ended(first, -signal.SIGKILL)
    run_search(*OPTIONS, "--storage", given, output="other", **CHANGES)
    assert outcome_of(Path("other")) == expected
    assert document_of(Path("other"))["trials"][0]["attempts"] == 2


def test_the_dashboard_opens_the_study(tmp_path):
    """Optuna's own, on a study with every kind of entry."""
    run_search("--n-trials", 2, "--confirm", 0, space={**SPACE, "hidden_dims": [[8], [8, 8]], "weight_decay": {
        "low": 1e-5, "high": 1e-3, "log": True}})  # fmt: skip
    dashboard = Path(sys.executable).with_name("optuna-dashboard")
    if not dashboard.exists():
        pytest.skip("optuna-dashboard is not installed: requirements-dev.txt has it")
    with open("said.txt", "w") as said:
        process = subprocess.Popen([dashboard, "--port", "0", storage_url(None, tmp_path / "out")], stdout=said,
                                   stderr=said)  # fmt: skip
    try:
        address = _address(process.pid)
        with urllib.request.urlopen(f"{address}/api/studies", timeout=60) as answer:
            (study,) = json.load(answer)["study_summaries"]
        assert study["study_name"].startswith("random_search-")
        with urllib.request.urlopen(f"{address}/api/studies/{study['study_id']}", timeout=60) as answer:
            assert len(json.load(answer)["trials"]) == 2
    finally:
        process.kill()
        process.wait()


def _address(pid: int) -> str:
    """Where the process listens, once it does."""
    ports: list[int] = []

    def listens() -> bool:
        ports[:] = [c.laddr.port for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        return bool(ports)

    wait_until(listens, "the dashboard to listen")
    return f"http://127.0.0.1:{ports[0]}"
