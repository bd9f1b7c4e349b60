"""Searches that die at a chosen moment: between two transactions, within one, or before a file of a run is written.

A process that has everything imported forks one search after another, so that each takes no longer than its trials.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
KILLED = 9  # the exit code of a search that dies as planned


@dataclass(frozen=True)
class End:
    """How a search ended: its exit code, how many moments it had to die at, and what it said."""

    code: int
    moments: int
    said: str


class PreparedSearch:
    """The process that forks; one search at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.search.killed_searches"],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def run(self, folder: Path, arguments: list[str], *, die_at: int | None = None) -> End:
        """``python hyperparam_search.py ARGUMENTS`` in ``folder``; it dies at that moment, counted from 1."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"folder": str(folder), "arguments": arguments, "die_at": die_at}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return End(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _serve() -> None:
    _import_everything()
    for line in sys.stdin:
        request = json.loads(line)
        said = os.memfd_create("said")
        read_end, write_end = os.pipe()
        if (pid := os.fork()) == 0:
            _search(request, write_end, said)
        os.close(write_end)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with os.fdopen(read_end) as counted, os.fdopen(said, encoding="utf-8", errors="replace") as text:
            text.seek(0)
            print(json.dumps({"code": code, "moments": int(counted.read() or 0), "said": text.read()}), flush=True)


def _import_everything() -> None:
    """All that a search imports; but no computation, whose threads do not survive a fork."""
    import optuna.samplers
    import optuna.storages._rdb.models  # noqa: F401
    import sklearn.datasets
    import torch._inductor

    import common.search.searching
    import common.search_results.pictures
    import common.search_results.writing  # noqa: F401
    import hyperparam_search  # noqa: F401

    torch.set_num_threads(1)
    sklearn.datasets.load_wine(), sklearn.datasets.load_digits()
    gc.collect()
    gc.freeze()  # so that a fork's garbage collection does not copy what all forks share


def _search(request: dict[str, Any], count_to: int, said: int) -> NoReturn:
    code, count = 99, 0

    def moment() -> None:
        nonlocal count
        count += 1
        if count == request["die_at"]:
            os._exit(KILLED)

    try:
        os.dup2(said, 1), os.dup2(said, 2)
        os.chdir(request["folder"])
        _watch(moment)
        import hyperparam_search

        code = hyperparam_search.main(request["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os.write(count_to, str(count).encode())
        os._exit(code)


def _watch(moment: Callable[[], None]) -> None:
    """Call ``moment`` before every commit, after every action on the storage, before every file that appears whole."""
    from sqlalchemy import Engine, event

    from common import atomic
    from common.search.storage import Storage

    run, write_bytes = Storage.run, atomic.write_bytes

    def watched_run(self: Storage, action: Callable) -> Any:
        result = run(self, action)
        moment()
        return result

    def watched_write(path: Path, content: bytes, **more: Any) -> None:
        moment()
        write_bytes(path, content, **more)

    event.listen(Engine, "commit", lambda connection: moment())
    Storage.run = watched_run  # type: ignore[method-assign]
    atomic.write_bytes = watched_write  # type: ignore[assignment]


if __name__ == "__main__":
    _serve()
