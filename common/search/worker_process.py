"""A worker in a process of its own: what runs there, and what it says to the search that started it."""

from __future__ import annotations

import os
import traceback
from multiprocessing.connection import Connection
from typing import Any

from common.exits import Exit, StoppedError, ToolError
from common.loading import loading
from common.search.assignment import Assignment
from common.search.held_signals import signals_released
from common.search.ledger import open_ledger
from common.search.owners import new_owner
from common.search.stopping import SearchStop, TimeUpError
from common.search.storage import Storage


def work(assignment: Assignment, deadline_s: float | None, connection: Connection) -> None:
    """The whole life of the process. Messages: ``(kind, content)``, see ``worker_pool.py``."""
    with SearchStop(deadline_s) as stop:
        signals_released()
        message = _worked(assignment, stop, connection)
    _send(connection, *message)


def _worked(assignment: Assignment, stop: SearchStop, connection: Connection) -> tuple[str, Any]:
    """Work until nothing is left; the last message."""
    try:
        with loading():
            from common.search.training import TrialTrainer
            from common.search.worker import Worker
        storage = Storage(assignment.storage_url)
        ledger = open_ledger(storage, assignment.study, assignment.definition.direction, create=False)
        assert ledger is not None, "the search has created the study"
        worker = Worker(
            assignment,
            ledger,
            new_owner(),
            stop,
            report=lambda state: _send(connection, "news", None),
            warn=lambda text: _send(connection, "warning", text),
            trainer=TrialTrainer(assignment.base, assignment.definition, assignment.command_line),
            parent=os.getppid(),
        )
        worker.work()
    except TimeUpError:
        return "time_up", None
    except StoppedError:
        return "stopped", None
    except ToolError as error:
        return "error", error.as_json()
    except Exception:
        return "bug", traceback.format_exc()
    return "done", None


def error_from(content: dict[str, Any]) -> ToolError:
    """The error that a message of kind ``error`` tells of."""
    error = ToolError(content["message"], path=content["path"], field=content["field"], hint=content["hint"])
    error.exit = Exit(content["exit_code"])
    return error


def _send(connection: Connection, kind: str, content: Any) -> None:
    try:
        connection.send((kind, content))
    except OSError:
        return  # the search has ended; so will this process, as soon as it looks
