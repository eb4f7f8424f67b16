"""The real worker as a subprocess, in a session of its own, with its output at hand.

`WorkerProcess` starts `python -m celeriac -A <app> worker …` (or any other command), waits for lines instead of
sleeping, signals it or its whole tree, and measures it. Tests get it from the fixture `worker_process`, which kills
what is left and shows the output when the test fails.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from tests.support import processes
from tests.support.files import eventually

__all__ = ["WorkerProcess"]

_ROOT = Path(__file__).resolve().parents[2]
#: The line by which a worker says that it takes tasks.
_READY = re.compile(r"(\S+) ready\.")


class WorkerProcess:
    """A running worker.

    Args:
        app: Module of the app, as for `-A`; importable from `cwd`.
        arguments: Further arguments of the worker, such as "-c", "2".
        cwd: Where it runs.
        env: Added to this process's environment; PYTHONPATH is added to what the worker needs.
        command: The whole command instead, for tests of other commands.
    """

    def __init__(
        self,
        app: str = "",
        *arguments: str,
        cwd: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self.command = list(command or [sys.executable, "-m", "celeriac", "-A", app, "worker", *arguments])
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        self._process = subprocess.Popen(
            self.command,
            cwd=cwd,
            env=_environment(cwd, env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What it says.

    @property
    def output(self) -> str:
        """Everything that it and its children wrote so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_output(self, pattern: str, timeout: float = 30.0) -> re.Match[str]:
        """Wait until a line matches; AssertionError if it does not come in time, or can't because the worker ended."""
        compiled = re.compile(pattern)
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._find(compiled) is not None, timeout)
            match = self._find(compiled)
            ended = self._ended
        if match is None:
            why = f"the worker ended with {self.wait(5)}" if ended else f"it did not come within {timeout} s"
            raise AssertionError(f"no line matches {pattern!r}: {why}. Output:\n{self.output}")
        return match

    def wait_ready(self, timeout: float = 30.0) -> str:
        """Wait until it takes tasks; returns its node name."""
        return self.wait_output(_READY.pattern, timeout)[1]

    # Who it is.

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def tree(self) -> list[int]:
        """Pids of the supervisor and all its descendants that live, orphans included."""
        return sorted(fact.pid for fact in processes.members(self.pid))

    def runner_pids(self) -> list[int]:
        """Pids of the runners: children of the zygote, or orphans of one that has died."""
        members = processes.members(self.pid)
        zygotes = {fact.pid for fact in members if fact.parent == self.pid}
        adopted = {fact.parent for fact in members} - {fact.pid for fact in members}
        return sorted(fact.pid for fact in members if fact.parent in zygotes | adopted and fact.pid != self.pid)

    def wait_runners(self, count: int, timeout: float = 30.0) -> list[int]:
        """Wait until there are exactly so many runners; returns their pids."""

        def as_many() -> tuple[list[int]]:
            pids = self.runner_pids()
            assert len(pids) == count, f"runners are {pids}, not {count}"
            return (pids,)

        return eventually(as_many, timeout)[0]

    def cpu_seconds(self) -> float:
        """CPU time of the tree so far."""
        return processes.cpu_seconds(self.pid)

    def pss_bytes(self) -> int:
        """Memory of the tree, shared pages counted once."""
        return processes.pss_bytes(self.pid)

    # How it ends.

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send the supervisor, and nobody else, a signal."""
        self._process.send_signal(signum)

    def kill_tree(self, signum: int = signal.SIGKILL) -> None:
        """Send every process of the tree a signal, as when the machine goes."""
        for pid in self.tree():
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                continue  # it went first

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the supervisor's end; returns its exit status."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as exc:
            raise AssertionError(f"still running after {timeout} s. Output:\n{self.output}") from exc

    def stop(self, timeout: float = 30.0) -> int:
        """Warm shutdown: TERM, wait, and KILL the tree after `timeout` seconds; returns the exit status."""
        if self.returncode is None:
            self.kill(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except AssertionError:
            self.kill_tree()
            return self.wait()

    def close(self) -> None:
        """Kill what still runs and wait for the last of the output."""
        self.kill_tree()
        self.wait()
        self._reader.join(timeout=10)

    def _find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        return next((match for line in self._lines if (match := pattern.search(line))), None)

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.decode("utf-8", "replace"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _environment(cwd: str | os.PathLike[str], added: Mapping[str, str]) -> dict[str, str]:
    path = [
        os.fspath(cwd),
        str(_ROOT / "src"),
        str(_ROOT),
        added.get("PYTHONPATH", ""),
        os.environ.get("PYTHONPATH", ""),
    ]
    return {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        **added,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
    }
