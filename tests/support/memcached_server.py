"""A private memcached: TCP on loopback, in memory only."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.support.server import Server, need

__all__ = ["MemcachedServer"]


class MemcachedServer(Server):
    """`memcached` with 64 MB.

    Args:
        options: Further options, as on its command line.
    """

    def __init__(self, folder: Path, port: int | None = None, *, options: Sequence[str] = ()) -> None:
        super().__init__(folder, port)
        self.options = list(options)

    def command(self) -> Sequence[str]:
        user = ["-u", "root"] if os.geteuid() == 0 else []
        return [
            need("memcached", "memcached"),
            "-l",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "0",
            *user,
            *self.options,
        ]

    def answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.sendall(b"version\r\n")
            return connection.recv(100).startswith(b"VERSION")

    @property
    def url(self) -> str:
        """Where it is."""
        return f"cache+memcached://127.0.0.1:{self.port}/"
