"""Talks over a socket as a person at a terminal does: waits for a prompt, types a line."""

from __future__ import annotations

import socket
from typing import Self

__all__ = ["Talk"]


class Talk:
    """One connection to a debugger.

    Args:
        port: On the loopback interface.
    """

    PROMPT = "(Pdb) "

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.greeting = self._until_prompt()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def say(self, line: str) -> str:
        """Type a line; returns what is shown before the next prompt."""
        self._socket.sendall(f"{line}\r\n".encode())
        return self._until_prompt()

    def leave(self, line: str) -> str:
        """Type the last line; returns what is shown until the other side hangs up."""
        self._socket.sendall(f"{line}\r\n".encode())
        shown = b""
        while data := self._socket.recv(4096):
            shown += data
        return shown.decode()

    def _until_prompt(self) -> str:
        shown = b""
        while not shown.endswith(self.PROMPT.encode()):
            data = self._socket.recv(4096)
            assert data, f"hung up after {shown!r}"
            shown += data
        return shown.decode().removesuffix(self.PROMPT)
