"""Bytes of the messages that anyone puts into the lists of a Redis server, as its MONITOR shows them.

Commands of scripts are among them, so celeriac's workers are seen as Celery's are. A message that is given back goes to
the other end of its list and is not counted again.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["watched"]

#: Where Celery and celeriac put tasks of the default queue.
_PUT = re.compile(rb'^\+\S+ \[[^\]]*\] "LPUSH" "celery" (.*)$', re.IGNORECASE)
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(rb"\\x[0-9a-f]{2}|\\.")
_END = b'"ECHO" "no more"'


@contextmanager
def watched(port: int) -> Iterator[list[int]]:
    """The sizes of messages, in the order in which they are sent; complete when the block has ended."""
    sizes: list[int] = []
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"MONITOR\r\n")
        lines = sock.makefile("rb")
        lines.readline()
        reader = threading.Thread(target=_read, args=(lines, sizes), daemon=True)
        reader.start()
        yield sizes
        with socket.create_connection(("127.0.0.1", port)) as other:
            other.sendall(b'ECHO "no more"\r\n')
            reader.join()


def _read(lines: Iterator[bytes], sizes: list[int]) -> None:
    for line in lines:
        if _END in line:
            return
        found = _PUT.match(line.rstrip())
        if found:
            sizes += [len(_ESCAPE.sub(b".", word)) for word in _WORD.findall(found[1])]
