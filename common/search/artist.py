"""The pictures of a search by processes of their own, which are ready when the last trial ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

from common.search.held_signals import signals_held
from common.search.loading import loading
from common.search_results.pictures import Pictures, draw_pictures
from common.search_results.records import StudyRecord

# Each draws about as long as the other.
_SHARES = (slice(0, None, 2), slice(1, None, 2))


class Artists:
    """Load what pictures take, half a second of it, and draw once into nothing, while the last trials train.

    Args:
        study: as far as it has come.
    """

    def __init__(self, study: StudyRecord) -> None:
        self._artists = [_Artist(study, share) for share in _SHARES]

    def draw(self, folder: Path, study: StudyRecord) -> Pictures:
        """``draw_pictures``, once."""
        for artist in self._artists:
            artist.ask(folder, study)
        answers = [artist.pictures(folder, study) for artist in self._artists]
        return answers[0]

    def close(self) -> None:
        for artist in self._artists:
            artist.close()


class _Artist:
    def __init__(self, study: StudyRecord, share: slice) -> None:
        self._share = share
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, study, share), name="search pictures")
        with signals_held():  # for as long as it lives: it ends when the search does
            self._process.start()
        theirs.close()

    def ask(self, folder: Path, study: StudyRecord) -> None:
        with contextlib.suppress(OSError):  # noticed when there is no answer
            self._connection.send((folder, study))

    def pictures(self, folder: Path, study: StudyRecord) -> Pictures:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            return draw_pictures(folder, study, self._share)  # it was killed, or could not: here it can be told why

    def close(self) -> None:
        self._connection.close()
        self._process.join()


def _serve(connection: Connection, study: StudyRecord, share: slice) -> None:
    with loading(), tempfile.TemporaryDirectory() as folder:
        draw_pictures(Path(folder), study, share)
    with contextlib.suppress(EOFError, OSError):
        connection.send(draw_pictures(*connection.recv(), share))
