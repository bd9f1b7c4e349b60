"""Where a study is kept: a SQLite file, or PostgreSQL for several machines; opened by Optuna, which its tools read."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from common.exits import EnvironmentLackError, InputFileError, UsageError
from common.loading import loading

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy import Engine

Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 10
# How long one process waits for another's write to a SQLite file to end.
_BUSY_TIMEOUT_S = 60
# How long a storage that was reachable may be away before the search gives up: a server that is started anew.
OUTAGE_S = 60.0
_FIRST_PAUSE_S = 0.1
_POSTGRESQL = re.compile(r"postgres(ql)?(\+psycopg)?://")


class Storage:
    """An opened storage. ``optuna`` is Optuna's view of it, ``engine`` that of SQLAlchemy.

    For one process; a worker opens its own from ``url``.
    """

    def __init__(self, url: str) -> None:
        """Raises EnvironmentLackError where it cannot be reached, InputFileError where it is no study's file."""
        import optuna
        from sqlalchemy import exc

        self.url = url
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            self._require_reachable()
            with loading():
                # Two processes that create the tables of an empty storage at the same time get in each other's way.
                self.optuna, self.engine = _with_patience(lambda: _opened(url), outage_s=5.0)
        except exc.DatabaseError as error:
            if isinstance(error, exc.OperationalError):
                raise self._unreachable(error) from error
            raise InputFileError(f"is not a study ({_first_line(error)})", path=self.shown, field="--storage",
                                 hint="move the file aside, or choose another --output") from error  # fmt: skip
        except RuntimeError as error:  # tables of another version of Optuna
            raise InputFileError(_first_line(error), path=self.shown, field="--storage",
                                 hint="use the version of Optuna in requirements.txt") from error  # fmt: skip

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return shown_url(self.url)

    def run(self, action: Callable[[], Result]) -> Result:
        """``action``, which may be done twice, again and again while the storage is away.

        Raises:
            EnvironmentLackError: it stayed away.
        """
        from optuna.exceptions import StorageInternalError
        from sqlalchemy import exc

        try:
            return _with_patience(action, outage_s=OUTAGE_S)
        except (exc.DBAPIError, StorageInternalError) as error:
            raise self._unreachable(error) from error

    def close(self) -> None:
        self.engine.dispose()

    def _require_reachable(self) -> None:
        from sqlalchemy import create_engine

        engine = create_engine(self.url, connect_args=_connect_args(self.url))
        try:
            engine.connect().close()
        finally:
            engine.dispose()

    def _unreachable(self, error: Exception) -> EnvironmentLackError:
        cause = error.__cause__ if error.__cause__ is not None else error
        hint = "start the server, or check the address, the name and the password; the same command then goes on"
        if self.url.startswith("sqlite"):
            hint = "check the disk and the permissions; the same command then goes on"
        return EnvironmentLackError(f"the storage cannot be reached ({_first_line(cause)})", path=self.shown,
                                    field="--storage", hint=hint)  # fmt: skip


def load_storage() -> None:
    """Load what it takes to open a storage, by opening one that is nowhere."""
    with loading():
        _opened("sqlite://")[1].dispose()


def storage_url(given: str | None, folder: Path) -> str:
    """SQLAlchemy's URL of the storage that the user names, of ``study.db`` in the folder where none is named.

    Raises:
        UsageError: it is neither PostgreSQL's nor SQLite's.
    """
    if given is None:
        from sqlalchemy import URL

        return URL.create("sqlite", database=str((folder / "study.db").absolute())).render_as_string()
    if given.startswith("sqlite:///"):
        return given
    match = _POSTGRESQL.match(given)
    if match:
        return "postgresql+psycopg://" + given[match.end() :]
    raise UsageError("is no storage that can be used", path=shown_url(given), field="--storage",
                     hint="write postgresql://user@host/database or sqlite:///path/to/study.db")  # fmt: skip


def shown_url(url: str) -> str:
    """The URL with its password hidden."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", url)


def _opened(url: str) -> tuple[BaseStorage, Engine]:
    from optuna.storages import RDBStorage, get_storage
    from sqlalchemy import event

    options = {"connect_args": _connect_args(url), "pool_pre_ping": True}
    # Braces would be taken for the fields of a template.
    backend = RDBStorage(url.replace("{", "{{").replace("}", "}}"), engine_kwargs=options)
    if backend.engine.dialect.name == "sqlite":
        event.listen(backend.engine, "connect", _write_ahead)
        backend.engine.dispose()  # the connections of before do not know
    return get_storage(backend), backend.engine


def _write_ahead(connection: Any, record: object) -> None:
    """Let commits go into a log first, and wait for the disk only when that is moved into the file itself.

    A process may die at any moment and nothing that it committed is lost. After a power cut the file is sound, and the
    newest trials may be missing from it, which are then trained again. Every commit would otherwise wait for the disk
    twice, behind all that the trainings are just writing: some 50 ms a trial. A file system on which a log cannot be
    kept leaves SQLite with the journal that it has.
    """
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _connect_args(url: str) -> dict[str, object]:
    return {"timeout": _BUSY_TIMEOUT_S} if url.startswith("sqlite") else {"connect_timeout": CONNECT_TIMEOUT_S}


def _with_patience(action: Callable[[], Result], *, outage_s: float) -> Result:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy import exc

    end, pause_s = time.monotonic() + outage_s, _FIRST_PAUSE_S
    while True:
        try:
            return action()
        except (exc.DBAPIError, StorageInternalError) as error:
            cause = error.__cause__ if isinstance(error, StorageInternalError) else error
            lasting = not isinstance(cause, (exc.OperationalError, exc.InterfaceError, exc.IntegrityError,
                                             exc.ProgrammingError))  # fmt: skip
            if lasting or time.monotonic() + pause_s > end:
                raise
            time.sleep(pause_s * (0.5 + random.random()))
            pause_s = min(2 * pause_s, 5.0)


def _first_line(error: BaseException) -> str:
    original = getattr(error, "orig", None) or error
    return (str(original).strip() or type(original).__name__).split("\n")[0]
