"""Who works on what: one worker at a time has a task, for as long as it says that it is alive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Column, Engine, Float, Integer, MetaData, String, Table, text

# A worker renews its lease this often, and loses it after so long without a word. Times are those of the storage's
# clock, so that the clocks of the machines need not agree.
RENEW_EVERY_S = 10.0
LEASE_S = 60.0

_TABLE = Table(
    "ml_trainer_leases",
    MetaData(),
    Column("study_id", Integer, primary_key=True),
    Column("task", String(100), primary_key=True),
    Column("owner", String(300), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("expires_s", Float(53), nullable=False),
)
_NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "extract(epoch from clock_timestamp())",
}


@dataclass(frozen=True)
class Lease:
    """A line of the table: ``attempt`` counts from 1 how often the task was begun."""

    owner: str
    attempt: int
    is_live: bool


class Leases:
    """The leases of one study. Every call is one statement, which the database carries out whole or not at all."""

    def __init__(self, engine: Engine, study_id: int) -> None:
        _TABLE.create(engine, checkfirst=True)
        self._engine = engine
        self._study_id = study_id
        self._now = _NOW[engine.dialect.name]

    def take(self, task: str, owner: str) -> int | None:
        """Begin a task that nobody works on; returns which attempt at it this is, None where somebody was quicker."""
        statement = (
            f"INSERT INTO {_TABLE.name} AS lease (study_id, task, owner, attempt, expires_s) "
            f"VALUES (:study, :task, :owner, 1, {self._now} + :lease) "
            "ON CONFLICT (study_id, task) DO UPDATE SET owner = :owner, attempt = lease.attempt + 1, "
            f"expires_s = {self._now} + :lease WHERE lease.expires_s < {self._now}"
        )
        values = {"study": self._study_id, "task": task, "owner": owner, "lease": LEASE_S}
        with self._engine.begin() as connection:
            if not connection.execute(text(statement), values).rowcount:
                return None
            chosen = f"SELECT attempt FROM {_TABLE.name} WHERE study_id = :study AND task = :task"
            return connection.execute(text(chosen), values).scalar_one()

    def renew(self, task: str, owner: str) -> bool:
        """Say that the owner is alive; returns whether the task is still its own."""
        return bool(self._update(
            f"UPDATE {_TABLE.name} SET expires_s = {self._now} + :lease "
            "WHERE study_id = :study AND task = :task AND owner = :owner",
            task=task, owner=owner, lease=LEASE_S,
        ))  # fmt: skip

    def give_back(self, task: str, owner: str, *, counts: bool) -> None:
        """Leave a task to whoever comes next. ``counts`` is False where it was no failure that ended the attempt."""
        self._update(
            f"UPDATE {_TABLE.name} SET expires_s = 0, attempt = attempt - :undone "
            "WHERE study_id = :study AND task = :task AND owner = :owner",
            task=task, owner=owner, undone=0 if counts else 1,
        )  # fmt: skip

    def free(self, owner: str) -> None:
        """Free the tasks of a worker that is known to be dead."""
        self._update(
            f"UPDATE {_TABLE.name} SET expires_s = 0 WHERE study_id = :study AND owner = :owner",
            owner=owner,
        )  # fmt: skip

    def read(self) -> Mapping[str, Lease]:
        """All leases by task."""
        statement = f"SELECT task, owner, attempt, expires_s >= {self._now} FROM {_TABLE.name} WHERE study_id = :study"
        with self._engine.connect() as connection:
            rows = connection.execute(text(statement), {"study": self._study_id}).all()
        return {task: Lease(owner, attempt, bool(live)) for task, owner, attempt, live in rows}

    def _update(self, statement: str, **values: object) -> int:
        """Carry a statement out; returns how many lines it changed."""
        with self._engine.begin() as connection:
            return connection.execute(text(statement), {"study": self._study_id, **values}).rowcount
