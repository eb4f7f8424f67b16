"""A private MariaDB for tests: TCP on loopback, the database and the user `celeriac`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pymysql  # type: ignore[import-untyped]

from tests.support.postgres_server import give_to
from tests.support.server import Server, need

__all__ = ["MariadbServer"]

_INIT = """\
CREATE DATABASE IF NOT EXISTS celeriac;
CREATE USER IF NOT EXISTS 'celeriac'@'127.0.0.1' IDENTIFIED BY 'secret';
GRANT ALL ON *.* TO 'celeriac'@'127.0.0.1' WITH GRANT OPTION;
"""


class MariadbServer(Server):
    """One MariaDB. Its folder must be open to the user `mysql`: see `postgres_server.open_folder`.

    Args:
        settings: Given to the server as options, with `_` for `-`.
    """

    def __init__(self, folder: Path, port: int | None = None, **settings: str) -> None:
        super().__init__(folder, port)
        self.settings = {"innodb_flush_log_at_trx_commit": "2", "innodb_buffer_pool_size": "64M", **settings}

    @property
    def url(self) -> str:
        """Where it is, as `mysql://…`."""
        return f"mysql://celeriac:secret@127.0.0.1:{self.port}/celeriac"

    def connect(self) -> Any:
        """A connection of the test's own, in autocommit mode."""
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="celeriac", password="secret", database="celeriac",
            autocommit=True, connect_timeout=5, read_timeout=20,
        )  # fmt: skip

    def prepare(self) -> None:
        give_to("mysql", self.folder)
        (self.folder / "init.sql").write_text(_INIT)
        command = [need("mariadb-install-db", "mariadb-server"), "--no-defaults", f"--datadir={self.folder / 'data'}",
                   "--skip-test-db", "--auth-root-authentication-method=normal", *self._user()]  # fmt: skip
        subprocess.run(command, check=True, cwd=self.folder, capture_output=True)

    def command(self) -> Sequence[str]:
        given = {"bind-address": "127.0.0.1", "port": str(self.port), "datadir": str(self.folder / "data"),
                 "socket": str(self.folder / "sock"), "init-file": str(self.folder / "init.sql"),
                 **{name.replace("_", "-"): value for name, value in self.settings.items()}}  # fmt: skip
        options = [f"--{name}={value}" for name, value in given.items()]
        return [need("mariadbd", "mariadb-server"), "--no-defaults", "--skip-name-resolve", *self._user(), *options]

    def answers(self) -> bool:
        self.connect().close()
        return True

    def _user(self) -> list[str]:
        return ["--user=mysql"] if os.geteuid() == 0 else []
