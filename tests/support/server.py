"""A private server for tests: started on a free loopback port in a folder of its own, killed, frozen and restarted at will.

Each kind is a subclass in a file of its own that says how to start it and how to see that it answers. A missing program
is a skipped test, unless CI is set: there nothing may skip. `scripts/install_servers.py` installs them where it may.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

from tests.support import processes

__all__ = ["Server", "free_port", "need"]


def _state(path: Path) -> str:
    """State of a thread, by its file in /proc; "T" if it has gone."""
    try:
        return path.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "T"


def free_port() -> int:
    """A TCP port on loopback that nobody uses now.

    It is below those that systems give to outgoing connections, one of which might take it before the server does or while
    the server is down. The port 10,000 above it is free as well: nodes of a Redis cluster take that one too.
    """
    while True:
        port = random.randrange(10_100, 22_000)
        with socket.socket() as first, socket.socket() as second, contextlib.suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 10_000))
            return port


def need(program: str, package: str, *folders: str) -> str:
    """Path of a program; skips the test when it is not installed (fails it in CI)."""
    path = shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), *folders, "/usr/sbin", "/sbin"]))
    if path is None:
        text = f"{program} is not installed (Debian package {package})"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return path


class Server:
    """One server process.

    Args:
        folder: Where it keeps its data and its log.
        port: Where it listens; a free one by default. Kept over restarts.
    """

    #: Seconds until it must answer.
    patience = 30.0

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    # what a subclass says

    def command(self) -> Sequence[str]:
        """The command that runs it in the foreground."""
        raise AssertionError("a kind of server says how it is started")

    def environment(self) -> dict[str, str]:
        """Its environment."""
        return dict(os.environ)

    def prepare(self) -> None:
        """Once, before its first start."""

    def answers(self) -> bool:
        """Whether it does real work now; any exception means no."""
        raise AssertionError("a kind of server says how to see that it answers")

    # its life

    def start(self) -> Self:
        """Start it and wait until it answers."""
        if not (self.folder / ".prepared").exists():
            self.prepare()
            (self.folder / ".prepared").touch()
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), env=self.environment(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.wait_answering()
        return self

    def wait_answering(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + self.patience
        while True:
            if self._process is not None and self._process.poll() is not None:
                raise AssertionError(f"{self.command()[0]} ended with {self._process.returncode}: {self.log()[-2000:]}")
            with contextlib.suppress(Exception):
                if self.answers():
                    return
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.command()[0]} does not answer: {self.log()[-2000:]}")
            time.sleep(0.02)

    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        """Signal its whole process group."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def freeze(self) -> None:
        """It accepts connections, but answers nothing. Returns when no thread of it runs any more."""
        self.signal(signal.SIGSTOP)
        deadline = time.monotonic() + self.patience
        while any(_state(path) != "T" for pid in self._members() for path in Path(f"/proc/{pid}/task").glob("*/stat")):
            assert time.monotonic() < deadline, f"{self.command()[0]} does not stop"
            time.sleep(0.001)

    def _members(self) -> list[int]:
        """Its processes that signals reach."""
        return [fact.pid for fact in processes.members(self.pid) if fact.session == self.pid]

    def thaw(self) -> None:
        """The end of `freeze`."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without warning."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def stop(self) -> None:
        """End it in good order, or else without."""
        self.thaw()
        self.signal(signal.SIGTERM)
        if self._process is not None:
            try:
                self._process.wait(8)
            except subprocess.TimeoutExpired:
                self.kill()

    def restart(self) -> None:
        """Kill it and start it again with its data."""
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
