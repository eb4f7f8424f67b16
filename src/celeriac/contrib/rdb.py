"""A debugger inside a running task, reached by telnet: the task stands still at `set_trace()` until somebody has looked.

    from celeriac.contrib import rdb

    @app.task
    def total(orders):
        rdb.set_trace()
        ...

The worker logs where the debugger waits: `telnet 127.0.0.1 6899`, or `nc`. There it is pdb. `continue`, `quit` or hanging up
let the task go on. With CELERY_RDBSIG set, SIGUSR2 opens it in any process of a worker, wherever that is at the moment.

Whoever reaches the port can run any code here, so it listens on the loopback interface unless CELERY_RDB_HOST says otherwise.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
from pdb import Pdb
from types import FrameType, TracebackType
from typing import Any, TextIO

from celeriac.errors import CeleriacError, ImproperlyConfigured
from celeriac.log import get_logger

__all__ = [
    "CELERY_RDB_HOST", "CELERY_RDB_PORT", "DEFAULT_PORT", "Rdb", "debugger", "handle_signals", "set_trace",
]  # fmt: skip

logger = get_logger("celeriac.contrib.rdb")

#: The first port that is tried, unless CELERY_RDB_PORT names another.
DEFAULT_PORT = 6899
#: How many ports are tried, from there upward.
PORTS = 100


def _port_of(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise ImproperlyConfigured(f"CELERY_RDB_PORT must be a number from 0 (any port) to 65535, not {text!r}")
    return int(text)


CELERY_RDB_HOST = os.environ.get("CELERY_RDB_HOST") or "127.0.0.1"
CELERY_RDB_PORT = _port_of(os.environ.get("CELERY_RDB_PORT") or str(DEFAULT_PORT))

#: The session of each thread.
_here = threading.local()


class Rdb(Pdb):
    """A pdb session over a socket. Making it waits until somebody connects.

    Args:
        host: Interface to listen on.
        port: The first port to try.
        port_search_limit: How many ports to try.
        port_skew: Added to the first port.
        out: Where it is said that the debugger waits; the log if None.

    Raises:
        CeleriacError: There is no free port, or nobody can listen there.
    """

    def __init__(
        self, host: str = CELERY_RDB_HOST, port: int = CELERY_RDB_PORT, port_search_limit: int = PORTS,
        port_skew: int = 0, out: TextIO | None = None,
    ) -> None:  # fmt: skip
        self.active = False
        with _listen(host, port + port_skew, port_search_limit) as listener:
            host, self.port = listener.getsockname()[:2]
            _say(f"a debugger waits in process {os.getpid()} until somebody connects: telnet {host} {self.port}", out)
            self._socket, address = listener.accept()
        _say(f"the debugger in process {os.getpid()} is used from {address[0]}", out)
        self._input = self._socket.makefile("r", encoding="utf-8", errors="replace")
        self._output = self._socket.makefile("w", encoding="utf-8", errors="replace")
        # Without SIGINT, which only a main thread may handle, and without the files of commands of whoever runs the worker.
        super().__init__(stdin=self._input, stdout=self._output, nosigint=True, readrc=False)
        self.active = True

    # where to stop

    def set_trace(self, frame: FrameType | None = None, **kwargs: Any) -> None:
        """Stop at the next line of this frame; None is the caller's."""
        super().set_trace(frame or sys._getframe().f_back, **kwargs)

    def stop_in(self, frame: FrameType) -> None:
        """Stop in this frame at once, though it may be in the middle of a call that never returns."""
        self.reset()
        self.interaction(frame, None)
        if self.active:  # the user wants to see more lines, or has set breakpoints and goes on
            goes_on = self.stoplineno == -1
            self.set_trace(frame)
            if goes_on:
                self.set_continue()

    def interaction(self, frame: FrameType | None, tb_or_exc: TracebackType | BaseException | None) -> None:
        """Let the user look around; the end of the connection is the end of the session, not of the task."""
        try:
            super().interaction(frame, tb_or_exc)  # type: ignore[arg-type]  # an exception since Python 3.13
        except OSError:
            self.close()

    # how it ends

    def do_continue(self, arg: str) -> bool:
        """c(ont(inue)): Go on to the next breakpoint; without one the session ends."""
        if self.breaks:
            self.set_continue()
        else:
            self.close()
        return True

    do_c = do_cont = do_continue

    def do_quit(self, arg: str) -> bool:
        """q(uit): End the session; the task goes on."""
        self.close()
        return True

    do_q = do_exit = do_EOF = do_quit  # noqa: N815 -- pdb's name

    def close(self) -> None:
        """End the session: the breakpoints and the connection go, the program goes on."""
        self.active = False
        for path in list(self.breaks):
            self.clear_all_file_breaks(path)
        self.set_continue()
        for stream in (self._input, self._output, self._socket):
            try:
                stream.close()
            except OSError:  # what was still to be written can't be: the other side has hung up
                continue


def debugger() -> Rdb:
    """The session of this thread; if there is none, one that waits for a connection."""
    session: Rdb | None = getattr(_here, "session", None)
    if session is None or not session.active:
        session = _here.session = Rdb()
    return session


def set_trace(frame: FrameType | None = None) -> None:
    """Stop here until somebody has connected and let the program go on.

    Args:
        frame: Stop in this one instead of the caller's.
    """
    frame = frame or sys._getframe().f_back
    debugger().set_trace(frame)


def handle_signals() -> None:
    """Open the debugger on SIGUSR2 in this process, from now on. The processes of a worker do this if CELERY_RDBSIG is set."""
    signal.signal(signal.SIGUSR2, _on_signal)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if frame is not None:
        debugger().stop_in(frame)


def _listen(host: str, first: int, count: int) -> socket.socket:
    for port in range(first, min(first + count, 65536)):
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            return socket.create_server(address, family=family, backlog=1)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise CeleriacError(f"a debugger can't listen at {host}:{port}: {exc.strerror}") from exc
    raise CeleriacError(
        f"a debugger finds no free port at {host} among the {count} from {first} on: set CELERY_RDB_PORT to another"
    )


def _say(text: str, out: TextIO | None) -> None:
    if out is None:
        # At a level that is never hidden, for the program stands still. Not on standard error: in a runner that goes to the log,
        # too, but not while something else is being logged, which a signal may interrupt.
        logger.critical("%s", text)
    else:
        out.write(f"{text}\n")
        out.flush()
