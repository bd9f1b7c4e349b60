"""The pictures of a search by processes of their own, which are ready when the last trial ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from common.search.held_signals import signals_held
from common.search.loading import loading
from common.search_results.pictures import Pictures, draw_importances, draw_scores, gathered
from common.search_results.records import StudyRecord

# The trials go first where there are fewer processors than processes.
_NICENESS = 10
_Draw = Callable[[Path, StudyRecord], Pictures]


class Artists:
    """Load what pictures take, half a second of it, and draw once into nothing, while the last trials train.

    Args:
        study: as far as it has come.
    """

    def __init__(self, study: StudyRecord) -> None:
        self._scores, self._importances = (_Artist(study, draw) for draw in (draw_scores, draw_importances))

    def draw(self, folder: Path, study: StudyRecord) -> Pictures:
        """``draw_pictures``, once."""
        self._scores.ask(folder, study)
        self._importances.ask(folder, study)
        return gathered(folder, self._scores.drawn(folder, study), self._importances.drawn(folder, study))

    def close(self) -> None:
        self._scores.close()
        self._importances.close()


class _Artist:
    def __init__(self, study: StudyRecord, draw: _Draw) -> None:
        self._draw = draw
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, study, draw), name="search pictures")
        with signals_held():  # for as long as it lives: it ends when the search does
            self._process.start()
        theirs.close()

    def ask(self, folder: Path, study: StudyRecord) -> None:
        with contextlib.suppress(OSError):  # noticed when there is no answer
            self._connection.send((folder, study))

    def drawn(self, folder: Path, study: StudyRecord) -> Pictures:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            return self._draw(folder, study)  # it was killed, or could not: here it can be told why

    def close(self) -> None:
        self._process.kill()  # what it was to draw, it has drawn
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, study: StudyRecord, draw: _Draw) -> None:
    os.nice(_NICENESS)
    with loading(), tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), study)
    with contextlib.suppress(EOFError, OSError):
        connection.send(draw(*connection.recv()))
