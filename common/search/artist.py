"""The pictures of a search by processes of their own, which are ready when the last trial ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from common.loading import loading
from common.search.held_signals import signals_held
from common.search_results.importance import load_importance_libraries
from common.search_results.pictures import Pictures, draw_importances, draw_scores, gathered
from common.search_results.records import StudyRecord

_Draw = Callable[[Path, StudyRecord], Pictures]
# While they get ready, trials go first where there are fewer processors than processes.
_NICENESS = 10


class Artists:
    """Load what pictures take, a second or two of it, and draw once into nothing, while the last trials train.

    Args:
        study: as far as it has come.
    Raises:
        OSError: the machine has no room for two more processes.
    """

    def __init__(self, study: StudyRecord) -> None:
        self._artists: list[_Artist] = []
        self._scratch = tempfile.TemporaryDirectory()
        try:
            for draw in (draw_scores, draw_importances):
                self._artists.append(_Artist(study, draw, Path(self._scratch.name)))
        except OSError:
            self.close()
            raise

    def draw(self, folder: Path, study: StudyRecord) -> Pictures:
        """``draw_pictures``, once."""
        for artist in self._artists:
            artist.ask(folder, study)
        answers = [(artist.answer(), artist) for artist in self._artists]  # all of them before anything is raised here
        # One that was killed, or could not: here it can be told why.
        return gathered(folder, *(answer or artist.draw(folder, study) for answer, artist in answers))

    def close(self) -> None:
        """End the processes, whatever they are at."""
        for artist in self._artists:
            artist.close()
        self._scratch.cleanup()


class _Artist:
    def __init__(self, study: StudyRecord, draw: _Draw, scratch: Path) -> None:
        self.draw = draw
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, study, draw, scratch), name="search pictures")
        with signals_held():  # for as long as it lives: it ends when the search does
            self._process.start()
        theirs.close()

    def ask(self, folder: Path, study: StudyRecord) -> None:
        with contextlib.suppress(OSError):  # noticed when there is no answer
            self._connection.send((folder, study))

    def answer(self) -> Pictures | None:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            return None

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, study: StudyRecord, draw: _Draw, scratch: Path) -> None:
    # In a thread, whose low priority ends with it.
    readying = threading.Thread(target=_get_ready, args=(study, draw, scratch))
    readying.start()
    readying.join()
    with contextlib.suppress(EOFError, OSError):
        connection.send(draw(*connection.recv()))


def _get_ready(study: StudyRecord, draw: _Draw, scratch: Path) -> None:
    if sys.platform == "linux":  # elsewhere it would be the whole process's, and for good
        os.nice(_NICENESS)
    with loading():
        if draw is draw_importances:
            load_importance_libraries()  # of few trials there are no importances yet
        draw(scratch, study)
