"""The processes that draw a search's pictures: the same pictures, also where they die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from common.search.artist import Artists
from common.search_results.pictures import ALL_NAMES, draw_pictures
from tests.search_studies import DROPOUT, scored_study
from tests.searches import run_search
from tests.training_runs import ROOT


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
    for artist in artists._artists:
        artist._process.kill()
        artist._process.join()
    _, files = drawn(tmp_path / "there", artists.draw, study)
    assert set(files) == set(ALL_NAMES)


def test_one_that_dies_at_it_is_replaced_here(tmp_path, study, artists):
    for artist in artists._artists:
        os.kill(artist._process.pid, signal.SIGSTOP)  # asked, it does not answer before it dies
    threading.Timer(0.5, lambda: [artist._process.kill() for artist in artists._artists]).start()
    pictures, files = drawn(tmp_path / "there", artists.draw, study)
    assert set(files) == set(ALL_NAMES) == set(pictures.names)


def test_closed_while_they_get_ready_they_leave_nothing(tmp_path, study, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    artists = Artists(study)
    assert len(list(tmp_path.iterdir())) == 1
    artists.close()
    assert not list(tmp_path.iterdir()) and not multiprocessing.active_children()


def test_they_load_what_importances_take_though_there_are_none_yet(tmp_path):
    """In a process of its own, since tests load everything."""
    code = (
        "import sys; from pathlib import Path\n"
        "from common.search.artist import _get_ready\n"
        "from common.search_results.pictures import draw_importances\n"
        "from tests.search_studies import DROPOUT, scored_study\n"
        "assert 'sklearn.tree' not in sys.modules\n"
        "_get_ready(scored_study(2, lambda params: 90.0 + params[DROPOUT]), draw_importances, Path(sys.argv[1]))\n"
        "assert {'sklearn.tree', 'scipy.stats'} <= set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, timeout=120)


def test_why_nothing_can_be_drawn_is_told_here(tmp_path, study, artists):
    with pytest.raises(FileNotFoundError):
        artists.draw(tmp_path / "nowhere", study)


def test_a_search_that_is_long_enough_has_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, draw = [], Artists.draw
    monkeypatch.setattr(Artists, "draw", lambda self, *of: made.append(1) or draw(self, *of))
    run_search("--n-trials", 10, "--confirm", 0, "--quiet")
    assert made == [1] and (tmp_path / "out" / "importance.png").exists() and not multiprocessing.active_children()
