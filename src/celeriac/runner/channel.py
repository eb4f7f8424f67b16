"""The runner's end of its socket: blocking reads of frames, one write per frame."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

from celeriac.runner.protocol import FrameReader, Kind, decode_frame, encode_frame

__all__ = ["Channel"]


class Channel:
    """Frames from and to the supervisor. `send` may be called from any thread.

    Args:
        owns_process: Whether this process is there for it alone, and is to end if the channel breaks.
    """

    def __init__(self, sock: socket.socket, *, owns_process: bool = False) -> None:
        self.owns_process = owns_process
        self._sock = sock
        self._reader = FrameReader()
        self._lock = threading.Lock()
        #: The process that this channel belongs to; a child that a task has forked has a copy.
        self.pid = os.getpid()

    def read(self) -> list[Any] | None:
        """The next executions; None when the supervisor has closed its end."""
        while True:
            try:
                frames = self._reader.receive(self._sock)
            except ConnectionResetError:
                return None
            if frames is None:
                return None
            if frames:
                return [decode_frame(kind, body) for kind, body in frames]

    def send(self, kind: Kind, value: Any) -> None:
        """Send one frame."""
        frame = encode_frame(kind, value)
        with self._lock:
            self._sock.sendall(frame)
