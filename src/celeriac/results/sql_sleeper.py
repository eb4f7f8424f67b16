"""Sleeping until something happens in a SQL database: what a waiting thread holds, and waiting by polling.

Transports (fetch, subscriptions) and result stores (wait) call it. A `Sleeper` says what it wants ("queue:q"); whoever
learns of it wakes it. `PollingRouser` serves databases that can't tell: it wakes sleepers of its own process at once and
lets all others look again after 5 ms, then ever later, up to 250 ms. PostgreSQL's `sql_listener.Listener` is its subclass
that is told.

Invariant: a sleeper is registered before its thread looks, so what happens after the look wakes it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence

__all__ = ["PollingRouser", "Sleeper"]

#: First and longest pause between two looks, in seconds.
SHORTEST, LONGEST = 0.005, 0.25
#: Letters that are kept for one who doesn't look.
LETTERS = 50_000


class Sleeper:
    """One thread's wait. Used as a context: it is forgotten at its end.

    Attributes:
        letters: (want, payload) of what came since the last `clear`.
        is_told: Whether it will be told; if not, it looks again after short pauses.
    """

    def __init__(self, rouser: PollingRouser, wants: Sequence[str]) -> None:
        self._rouser = rouser
        self._event = threading.Event()
        self._pause = SHORTEST
        self.wants = tuple(wants)
        self.letters: list[tuple[str, str]] = []
        self.is_told = False

    def clear(self) -> list[tuple[str, str]]:
        """Before each look: what happens from now on wakes. Returns the letters that came since the last one."""
        self._event.clear()
        letters, self.letters = self.letters, []
        return letters

    def wait(self, seconds: float) -> bool:
        """Sleep until woken, or for `seconds`, or until it is time to look again. True if it was woken."""
        if not self.is_told:
            seconds = min(seconds, self._pause)
            self._pause = min(self._pause * 1.5, LONGEST)
        return self._event.wait(seconds)

    def was_busy(self, is_busy: bool) -> None:
        """After something came: one who polls looks again soon."""
        if is_busy:
            self._pause = SHORTEST

    def wake(self) -> None:
        """End the sleep, or the next one."""
        self._event.set()

    def close(self) -> None:
        """Be forgotten."""
        self._rouser.forget(self)

    def __enter__(self) -> Sleeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PollingRouser:
    """The sleepers of one transport or store in this process."""

    def __init__(self) -> None:
        self.interrupts = 0  #: rises with each interrupt; a fetch that sees it rise gives up
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._sleepers: dict[str, set[Sleeper]] = {}

    def sleeper(self, wants: Sequence[str]) -> Sleeper:
        """A registered sleeper; its thread looks after this and before it waits."""
        if self._pid != os.getpid():
            self._reset()
        sleeper = Sleeper(self, wants)
        with self._lock:
            for want in sleeper.wants:
                self._sleepers.setdefault(want, set()).add(sleeper)
        return sleeper

    def forget(self, sleeper: Sleeper) -> None:
        """Remove a sleeper."""
        with self._lock:
            for want in sleeper.wants:
                known = self._sleepers.get(want)
                if known is not None:
                    known.discard(sleeper)
                    if not known:
                        del self._sleepers[want]

    def rouse(self, wants: Iterable[str], payload: str = "") -> None:
        """Wake those of this process who want any of this."""
        if not self._sleepers:
            return
        with self._lock:
            for want in wants:
                for sleeper in self._sleepers.get(want, ()):
                    if len(sleeper.letters) >= LETTERS:  # one who never looks must not fill the memory
                        del sleeper.letters[: LETTERS // 2]
                    sleeper.letters.append((want, payload))
                    sleeper.wake()

    def wake_all(self) -> None:
        """Wake every sleeper."""
        with self._lock:
            for sleeper in {each for known in self._sleepers.values() for each in known}:
                sleeper.wake()

    def interrupt(self) -> None:
        """Make every fetch that sleeps give up."""
        self.interrupts += 1
        self.wake_all()

    def close(self) -> None:
        """Nothing is held."""
