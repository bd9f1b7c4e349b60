"""The processes that draw a search's pictures: the same pictures, also where they die."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from common.search.artist import Artists
from common.search_results.pictures import ALL_NAMES, draw_pictures
from tests.search_studies import DROPOUT, scored_study
from tests.searches import run_search


@pytest.fixture
def study():
    return scored_study(12, lambda params: 90.0 + params[DROPOUT])


@pytest.fixture
def artists(study):
    artists = Artists(study)
    yield artists
    artists.close()
    assert not multiprocessing.active_children()


def drawn(folder: Path, draw, study):
    folder.mkdir()
    return draw(folder, study), {path.name: path.read_bytes() for path in folder.iterdir()}


def test_they_draw_what_would_be_drawn_here(tmp_path, study, artists):
    pictures, files = drawn(tmp_path / "there", artists.draw, study)
    assert set(files) == set(ALL_NAMES) == set(pictures.names)
    assert (pictures, files) == drawn(tmp_path / "here", draw_pictures, study)


def test_what_a_dead_one_does_not_draw_is_drawn_here(tmp_path, study, artists):
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    _, files = drawn(tmp_path / "there", artists.draw, study)
    assert set(files) == set(ALL_NAMES)


def test_why_nothing_can_be_drawn_is_told_here(tmp_path, study, artists):
    with pytest.raises(FileNotFoundError):
        artists.draw(tmp_path / "nowhere", study)


def test_a_search_that_is_long_enough_has_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr("common.search.artist.Artists.draw", lambda self, *of: made.append(1) or draw_pictures(*of))
    run_search("--n-trials", 10, "--confirm", 0, "--quiet")
    assert made == [1] and (tmp_path / "out" / "importance.png").exists() and not multiprocessing.active_children()
