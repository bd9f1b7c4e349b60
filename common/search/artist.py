"""The pictures of a search by a process of its own, which is ready when the last trial ends."""

from __future__ import annotations

import multiprocessing
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

from common.search.held_signals import signals_held
from common.search.loading import loading
from common.search_results.pictures import Pictures, draw_pictures
from common.search_results.records import StudyRecord


class Artist:
    """Loads what pictures take, half a second of it, and draws once into nothing, while the last trials train.

    Args:
        study: as far as it has come.
    """

    def __init__(self, study: StudyRecord) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, study), name="search pictures")
        with signals_held():  # for as long as it lives: it ends when the search does
            self._process.start()
        theirs.close()

    def draw(self, folder: Path, study: StudyRecord) -> Pictures:
        """``draw_pictures``, once."""
        try:
            self._connection.send((folder, study))
            return self._connection.recv()
        except (EOFError, OSError):
            return draw_pictures(folder, study)  # it was killed, or could not: here it can be told why

    def close(self) -> None:
        self._connection.close()
        self._process.join()


def _serve(connection: Connection, study: StudyRecord) -> None:
    with loading(), tempfile.TemporaryDirectory() as folder:
        draw_pictures(Path(folder), study)
    try:
        connection.send(draw_pictures(*connection.recv()))
    except (EOFError, OSError):
        return
