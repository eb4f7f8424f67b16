"""Where runners come from: the zygote's other end.

Starts the zygote, hears its HELLO, asks it for runners and is told of their ends. If the zygote dies the runners go on,
and a new zygote is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from celeriac.errors import ImproperlyConfigured
from celeriac.log import get_logger
from celeriac.runner.protocol import FrameReader, Hello, Kind, ZygoteOptions, decode_frame, encode_frame
from celeriac.timing import backoff
from celeriac.worker.process import RunnerProcess

__all__ = ["AppImportError", "Nursery", "ZygoteNursery"]

logger = get_logger("celeriac.worker.nursery")


class AppImportError(ImproperlyConfigured):
    """The app can't be imported.

    Attributes:
        traceback: Of an error inside the user's modules; "" if there is none to show.
        is_missing: Whether there is no such app.
    """

    def __init__(self, text: str, traceback: str = "", *, is_missing: bool = False) -> None:
        super().__init__(text)
        self.traceback = traceback
        self.is_missing = is_missing


class Nursery(Protocol):
    """Makes runners.

    Attributes:
        on_exit: Called with (pid, wait status) of runners that have ended.
        can_kill: Whether a runner can be killed in the middle of a task, as a hard time limit does.
        app: The app, if this process has imported it, for it listens to signals of the supervisor; else None.
    """

    on_exit: Callable[[int, int], None]
    can_kill: bool
    app: Any

    async def start(self) -> Hello:
        """Get ready; tells what the app is."""

    def spawn(self, process: RunnerProcess) -> None:
        """Start the runner of this process."""

    def stop(self) -> None:
        """Make no more runners."""


class ZygoteNursery:
    """Runners forked by a zygote process."""

    can_kill = True

    def __init__(self, options: ZygoteOptions) -> None:
        self.app: Any = None
        self.on_exit: Callable[[int, int], None] = lambda pid, status: None
        self._options = options
        self._waiting: dict[int, RunnerProcess] = {}
        self._zygote: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._reader = FrameReader()
        self._hello: asyncio.Future[Hello] | None = None
        self._is_serving = False  # has said HELLO, and lives
        self._is_stopping = False
        self._deaths = 0

    async def start(self) -> Hello:
        """Start the zygote and wait for its HELLO.

        Raises:
            AppImportError: The app can't be imported.
        """
        try:
            return await self._launch()
        except AppImportError:
            self.stop()
            raise

    async def _launch(self) -> Hello:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "celeriac.runner.zygote", str(theirs.fileno())]
        self._zygote = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL)
        theirs.close()
        ours.setblocking(False)
        self._sock, self._reader = ours, FrameReader()
        self._hello = loop.create_future()
        loop.add_reader(ours.fileno(), self._on_readable)
        await loop.sock_sendall(ours, encode_frame(Kind.START, self._options))
        hello = await self._hello
        if hello.error:
            self._end_zygote()
            raise AppImportError(hello.error, hello.traceback, is_missing=hello.is_missing)
        if hello.threads:
            logger.warning(
                "%d thread(s) are alive after importing the app: runners are started by exec instead of fork, "
                "which takes longer and shares no memory",
                hello.threads,
            )
        self._is_serving = True
        for process in list(self._waiting.values()):
            self.spawn(process)
        return hello

    def spawn(self, process: RunnerProcess) -> None:
        """Ask the zygote for a runner."""
        self._waiting[process.number] = process
        if self._sock is None or not self._is_serving:
            return  # asked for when the new zygote is there
        options = msgspec.structs.replace(process.options, number=process.number)
        fds = [process.runner_sock.fileno(), process.cells_fd, process.lifeline_read]
        try:
            socket.send_fds(self._sock, [encode_frame(Kind.SPAWN, (process.number, options))], fds)
        except OSError as exc:
            logger.debug("zygote does not take requests: %s", exc)

    def _on_readable(self) -> None:
        if self._sock is None:
            return
        frames: list[tuple[int, bytes]] | None = None
        try:
            frames = self._reader.receive(self._sock)
        except BlockingIOError:
            return
        except OSError:  # it has died
            pass
        if frames is None:
            self._on_zygote_end()
            return
        for kind, body in frames:
            self._on_frame(kind, decode_frame(kind, body))

    def _on_frame(self, kind: int, value: Any) -> None:
        if kind == Kind.HELLO and self._hello is not None and not self._hello.done():
            self._hello.set_result(value)
        elif kind == Kind.SPAWNED:
            number, pid = value
            process = self._waiting.pop(number, None)
            if process is not None:
                process.pid = pid
                process.passed_on()
        elif kind == Kind.EXITED:
            self.on_exit(*value)

    def _on_zygote_end(self) -> None:
        was_serving, self._is_serving = self._is_serving, False
        self._close_socket()
        if self._hello is not None and not self._hello.done():
            code = self._zygote.wait() if self._zygote else None
            self._hello.set_result(Hello(error=f"the process that imports the app has died (exit code {code})"))
            return
        if self._is_stopping:
            return
        logger.error("the zygote has died; runners go on, a new zygote is started")
        if was_serving:
            # It may have forked these without having told us. A second runner on the same socket must not be.
            unborn, self._waiting = self._waiting, {}
            for process in unborn.values():
                process.reason = "with the zygote"
                process.end()
        self._start_later()

    def _start_later(self) -> None:
        self._deaths += 1
        asyncio.get_running_loop().call_later(
            backoff(self._deaths, base=0.1), lambda: asyncio.ensure_future(self._start_again())
        )

    async def _start_again(self) -> None:
        if self._is_stopping:
            return
        self._end_zygote()
        try:
            await self._launch()
        except AppImportError as exc:
            logger.error("no new runners: %s", exc)
            self._start_later()

    def _close_socket(self) -> None:
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def stop(self) -> None:
        """End the zygote."""
        self._is_stopping = True
        self._end_zygote()

    def _end_zygote(self) -> None:
        self._close_socket()
        if self._zygote is not None:
            with contextlib.suppress(ProcessLookupError):
                self._zygote.kill()
            self._zygote.wait()
