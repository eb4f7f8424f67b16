"""A private PostgreSQL for tests, and the folder that its user may enter.

PostgreSQL refuses to run as root, so a test run by root starts it as the user `postgres`, in a folder below the system's
temporary directory (pytest's own are closed to others). Its backends are no members of its process group, so signals
go to every descendant: a freeze or a kill hits the whole server, as that of a machine would.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

import psycopg

from tests.support.server import Server, need

__all__ = ["PostgresServer", "descendants", "give_to", "open_folder"]


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter, removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="celeriac-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def give_to(user: str, folder: Path) -> None:
    """Make a folder that user's, if this is root."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)


def descendants(pid: int) -> list[int]:
    """Process ids of the children of a process, and of theirs."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


class PostgresServer(Server):
    """One PostgreSQL with the superuser `celeriac` and an empty database `celeriac`.

    Args:
        settings: Given to the server with `-c`, for example {"fsync": "on"}.
    """

    def __init__(self, folder: Path, port: int | None = None, **settings: str) -> None:
        super().__init__(folder, port)
        self.settings = {"fsync": "off", "max_connections": "60", **settings}

    @property
    def url(self) -> str:
        """Where it is, as `postgresql://…`."""
        return f"postgresql://celeriac:secret@127.0.0.1:{self.port}/celeriac"

    def connect(self, database: str = "celeriac") -> psycopg.Connection[tuple[object, ...]]:
        """A connection of the test's own, in autocommit mode."""
        url = self.url.rpartition("/")[0] + "/" + database
        return psycopg.connect(url, autocommit=True, connect_timeout=5)

    def prepare(self) -> None:
        give_to("postgres", self.folder)
        password = self.folder / "password"
        password.write_text("secret\n")
        password.chmod(0o644)
        command = [*self._user(), self._program("initdb"), "-D", str(self.folder / "data"), "-U", "celeriac", "--no-sync",
                   "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--locale=C"]  # fmt: skip
        subprocess.run(command, check=True, cwd=self.folder, capture_output=True)

    def command(self) -> Sequence[str]:
        given = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(self.folder), **self.settings}
        options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        return [
            *self._user(),
            self._program("postgres"),
            "-D",
            str(self.folder / "data"),
            "-p",
            str(self.port),
            *options,
        ]

    def answers(self) -> bool:
        with self.connect("postgres") as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'celeriac'").fetchone():
                connection.execute("CREATE DATABASE celeriac")
        return True

    def signal(self, number: int) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        # The postmaster first: a frozen or dead one starts no more children.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        for pid in descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        orphans = descendants(self.pid)
        self.signal(signal.SIGKILL)
        self._process.wait()
        for pid in orphans:  # started between the look and the kill
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        self.thaw()
        if self._process is not None and self._process.poll() is None:
            os.kill(self.pid, signal.SIGINT)  # SIGTERM would wait for all clients to leave
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(8)
                return
        self.kill()

    def _program(self, name: str) -> str:
        return need(name, "postgresql", *sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True))

    def _user(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        return [need("setpriv", "util-linux"), "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
