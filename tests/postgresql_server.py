"""A PostgreSQL server of the tests' own: started in a temporary folder, reached over a Unix socket."""

from __future__ import annotations

import functools
import glob
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

DEADLINE_S = 120


@functools.cache
def missing() -> str | None:
    """Why no server can be started here, None where one can."""
    if program("initdb") is None or program("pg_ctl") is None:
        return "PostgreSQL is not installed: there is no initdb in PATH or under /usr/lib/postgresql"
    if os.geteuid() == 0 and _other_user() is None:
        return "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as"
    return None


def program(name: str) -> str | None:
    """The path of one of PostgreSQL's programs; Debian keeps them out of PATH, one folder for each version."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: int(path.split("/")[4]))
    return shutil.which(name) or (found[-1] if found else None)


class PostgresqlServer:
    """A server with an empty cluster. ``url`` leads to a database of its own for every call of ``new_database``."""

    def __init__(self) -> None:
        # Paths of sockets may have 107 characters, which temporary folders of test runs pass easily.
        self._folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._user = _other_user() if os.geteuid() == 0 else None
        self._databases = 0
        if self._user is not None:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self._folder.chmod(0o755)
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "search", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()

    def start(self) -> None:
        # No TCP port, so that none can be taken; nothing here outlives the tests, so nothing need be flushed.
        options = f"-k {self._folder} -c listen_addresses='' -c fsync=off -c full_page_writes=off"
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-l", str(self._folder / "log"), "-o", options,
                  "-w", "-t", str(DEADLINE_S), "start")  # fmt: skip

    def stop(self) -> None:
        """End the server at once, with every connection."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "-t", str(DEADLINE_S), "stop")

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """Create an empty database; its URL, as a user would type it."""
        import psycopg

        self._databases += 1
        name = f"study{self._databases}"
        with psycopg.connect(host=str(self._folder), user="search", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://search@/{name}?host={self._folder}"

    def _run(self, name: str, *arguments: str) -> None:
        user = None if self._user is None else self._user.pw_uid
        group = None if self._user is None else self._user.pw_gid
        command = [program(name) or name, *arguments]
        # Its output goes to a file: a pipe would be held open by the server that pg_ctl leaves running.
        with open(self._folder / f"{name}.out", "w+", encoding="utf-8") as said:
            done = subprocess.run(
                command, user=user, group=group, extra_groups=[] if user else None, cwd="/",
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=2 * DEADLINE_S,
            )  # fmt: skip
            said.seek(0)
            assert done.returncode == 0, said.read()


def _other_user() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None
