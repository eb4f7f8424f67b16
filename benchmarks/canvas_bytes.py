"""Bytes of the messages that anyone sends over a Redis server, as its MONITOR shows them: once for each delivery tag.

Commands of scripts are among them, so celeriac's workers are seen as Celery's are. A message goes into a list, or, when the
worker that sends it takes it at once, straight into the table of what is on lease.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["watched"]

#: Where Celery and celeriac put tasks of the default queue: into its list, or on lease, with something around it.
_PUT = re.compile(rb'^\+\S+ \[[^\]]*\] "(LPUSH" "celery|HSET" "unacked)" (.*)$', re.IGNORECASE)
_AROUND = len('[, "", "celery"]')
_TAG = re.compile(rb'delivery_tag\\*": \\*"([^"\\]+)')
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
    seen: set[bytes] = set()
    for line in lines:
        if _END in line:
            return
        found = _PUT.match(line.rstrip())
        if not found:
            continue
        around = _AROUND if b"unacked" in found[1] else 0
        for word in _WORD.findall(found[2]):
            tag = _TAG.search(word)
            if tag and tag[1] not in seen:
                seen.add(tag[1])
                sizes.append(len(_ESCAPE.sub(b".", word)) - around)
