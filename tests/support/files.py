"""Facts that cross processes: a ledger that tasks write and tests read, and waiting for such facts.

`eventually` is the only polling helper of the test suite. Inside one process, await an event or a condition instead.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["Ledger", "eventually"]

T = TypeVar("T")


class Ledger:
    """A file to which any number of processes append lines that survive being killed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def append(self, line: object) -> None:
        """Write one line and wait until the disk has it."""
        text = str(line)
        if "\n" in text:
            raise ValueError(f"a ledger keeps lines; {text!r} has a line break")
        # One write to a file opened for appending is never mixed with another process's.
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, f"{text}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)

    def lines(self) -> list[str]:
        """All complete lines so far, in order; none when nothing was written."""
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return []
        return text.split("\n")[:-1]

    def counts(self) -> Counter[str]:
        """How often each line was written."""
        return Counter(self.lines())

    def wait_for(self, count: int, timeout: float = 30.0) -> list[str]:
        """Wait until there are at least `count` lines; returns them."""

        def enough() -> list[str] | None:
            lines = self.lines()
            return lines if len(lines) >= count else None

        try:
            return eventually(enough, timeout) if count else self.lines()
        except AssertionError as exc:
            raise AssertionError(f"{len(self.lines())} of {count} lines in the ledger after {timeout} s") from exc

    def __len__(self) -> int:
        return len(self.lines())


def eventually(predicate: Callable[[], T | None], timeout: float = 10.0, interval: float = 0.01) -> T:
    """Ask again and again until the answer is true, and return it.

    An AssertionError that the predicate raises counts as "not yet".

    Raises:
        AssertionError: It was not true within `timeout` seconds; names the last answer.
    """
    end = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            answer = predicate()
            if answer:
                return answer
            last = answer
        except AssertionError as exc:
            last = exc
        if time.monotonic() >= end:
            raise AssertionError(f"not true within {timeout} s; last answer: {last!r}")
        time.sleep(interval)
