"""A search that dies anywhere, and the same command again: the same trials with the same results."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.search.killed_searches import KILLED, PreparedSearch
from tests.searches import document_of, outcome_of, search_command

SPACE = {"learning_rate": [0.003, 0.01, 0.03], "dropout": [0.0, 0.3]}
OPTIONS = ("--n-trials", 3, "--confirm", 1, "--quiet")
# Of some two hundred moments; the benchmark dies at every one of them.
NUM_KILLS = 4


@pytest.fixture(scope="module")
def prepared():
    prepared = PreparedSearch()
    yield prepared
    prepared.close()


def test_killed_between_and_within_transactions(prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = search_command(*OPTIONS, space=SPACE)
    whole = prepared.run(tmp_path, command)
    assert whole.code == 0, whole.said
    expected = outcome_of(tmp_path / "out")
    assert whole.moments > 10 * NUM_KILLS
    for kill in range(NUM_KILLS):
        shutil.rmtree(tmp_path / "out")
        die_at = 1 + (whole.moments - 1) * kill // (NUM_KILLS - 1)
        assert prepared.run(tmp_path, command, die_at=die_at).code == KILLED
        again = prepared.run(tmp_path, command)
        assert again.code == 0, again.said
        assert outcome_of(tmp_path / "out") == expected, f"killed at moment {die_at}"


def test_killed_again_and_again(prepared, tmp_path, monkeypatch):
    """Each start dies a little later than the one before; what was reached is never lost."""
    monkeypatch.chdir(tmp_path)
    command = search_command(*OPTIONS, space=SPACE)
    assert prepared.run(tmp_path, command).code == 0
    expected = outcome_of(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    die_at, deaths = 30, 0
    while (end := prepared.run(tmp_path, command, die_at=die_at)).code == KILLED:
        deaths, die_at = deaths + 1, die_at + 15
    assert end.code == 0 and deaths >= 3, end.said
    assert outcome_of(tmp_path / "out") == expected
    assert document_of(tmp_path / "out")["study"]["end"] == "finished"
