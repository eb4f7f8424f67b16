"""Real drivers that fail when a test says so: `FlakyTransport` and `FlakyStore` around any transport or result store.

Every verb of the port passes through one `Faults` object, which records the call and may block it, let it fail before
anything is done, or let it be done and lose the reply, which is the case that finds double executions. For a worker in
another process see `flaky_control`, whose switch is a file.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from celeriac.errors import OperationalError
from celeriac.message import ControlMessage, DeadLetter, Delivery, Message, Settlement
from celeriac.results.base import Record, ResultStore, StoreCapabilities
from celeriac.routing import Queue
from celeriac.transport.base import Box, Capabilities, Commit, Mailbox, QueueSize, Subscription, Transport

__all__ = ["Fault", "Faults", "FlakyStore", "FlakyTransport", "Gate"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a call: "fail" before it is made, or "lose reply" after it was."""

    kind: str
    error: str = "the test lets this call fail"


class Gate(Protocol):
    """Decides what happens to each call. `Faults` in this process, `flaky_control.FileGate` from outside."""

    def enter(self, verb: str) -> Fault | None:
        """Called before each call; may block."""


class Faults:
    """The switch of a flaky driver in this process. Safe to use from several threads.

    Verbs are the names of the port's methods; without any, all of them are meant.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._planned: list[_Plan] = []
        self._blocked: set[str] | None = set()  # None: every verb
        self._waiting: Counter[str] = Counter()
        self.calls: list[str] = []

    def fail(self, *verbs: str, times: int | None = None, error: str = "the test lets this call fail") -> None:
        """Raise OperationalError instead of the next `times` calls, or of all calls until healed."""
        with self._changed:
            self._planned.append(_Plan(Fault("fail", error), frozenset(verbs), times))

    def lose_replies(self, *verbs: str, times: int | None = None, error: str = "the test loses this reply") -> None:
        """Make the calls, then raise OperationalError as if the answer had not arrived."""
        with self._changed:
            self._planned.append(_Plan(Fault("lose reply", error), frozenset(verbs), times))

    def block(self, *verbs: str) -> None:
        """Let calls sleep until `release` or `heal`."""
        with self._changed:
            self._blocked = (self._blocked or set()) | set(verbs) if verbs else None

    def release(self) -> None:
        """Let calls that sleep go on, and block no more."""
        with self._changed:
            self._blocked = set()
            self._changed.notify_all()

    def heal(self) -> None:
        """Forget all faults and release what sleeps."""
        with self._changed:
            self._planned.clear()
        self.release()

    def count(self, verb: str) -> int:
        """How often this verb was called, failures included."""
        with self._changed:
            return self.calls.count(verb)

    def wait_for_call(self, verb: str, count: int = 1, timeout: float = 30.0) -> None:
        """Block until the verb was called `count` times in all."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.calls.count(verb) >= count, timeout):
                raise AssertionError(f"{verb} was called {self.calls.count(verb)} of {count} times after {timeout} s")

    def wait_until_blocked(self, verb: str, timeout: float = 30.0) -> None:
        """Block until a call of this verb sleeps."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting[verb] > 0, timeout):
                raise AssertionError(f"no call of {verb} is blocked after {timeout} s")

    def enter(self, verb: str) -> Fault | None:
        """Record a call, sleep while it is blocked, and tell what is to go wrong with it."""
        with self._changed:
            self.calls.append(verb)
            self._waiting[verb] += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._blocked is not None and verb not in self._blocked)
            self._waiting[verb] -= 1
            for plan in self._planned:
                if plan.takes(verb):
                    return plan.fault
            return None


@dataclass(slots=True)
class _Plan:
    fault: Fault
    verbs: frozenset[str]  # empty: every verb
    times: int | None

    def takes(self, verb: str) -> bool:
        if self.times == 0 or (self.verbs and verb not in self.verbs):
            return False
        if self.times is not None:
            self.times -= 1
        return True


class _Flaky:
    """What both wrappers share: passing a call through the gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def _call(self, verb: str, call: Callable[..., T], *args: Any) -> T:
        fault = self._gate.enter(verb)
        if fault is not None and fault.kind == "fail":
            raise OperationalError(f"{verb}: {fault.error}")
        result = call(*args)
        if fault is not None:
            raise OperationalError(f"{verb}: {fault.error}")
        return result


class FlakyTransport(_Flaky):
    """A real transport whose calls can be made to fail. `interrupt`, `close` and what is only asked never do."""

    def __init__(self, inner: Transport, gate: Gate | None = None) -> None:
        self.faults = Faults()
        self.inner = inner
        super().__init__(gate or self.faults)

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    @property
    def url(self) -> str:
        return self.inner.url

    def publish(self, messages: Sequence[Message]) -> None:
        return self._call("publish", self.inner.publish, messages)

    def fetch(self, queues: Sequence[str], limit: int, wait: float, lease: float) -> list[Delivery]:
        return self._call("fetch", self.inner.fetch, queues, limit, wait, lease)

    def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        return self._call("settle", self.inner.settle, settlements)

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        return self._call("extend", self.inner.extend, deliveries, lease)

    def mark_started(self, deliveries: Sequence[Delivery]) -> None:
        return self._call("mark_started", self.inner.mark_started, deliveries)

    def interrupt(self) -> None:
        self.inner.interrupt()

    def commits_with(self, store: ResultStore) -> bool:
        """As the real one: a FlakyStore is not its own kind, so faults of the store stay faults of the store."""
        return self.inner.commits_with(store)

    def commit(self, commits: Sequence[Commit]) -> list[Delivery]:
        return self._call("commit", self.inner.commit, commits)

    def declare(self, queues: Sequence[Queue]) -> None:
        return self._call("declare", self.inner.declare, queues)

    def delete(self, queue: str) -> int:
        return self._call("delete", self.inner.delete, queue)

    def purge(self, queue: str) -> int:
        return self._call("purge", self.inner.purge, queue)

    def size(self, queue: str) -> QueueSize:
        return self._call("size", self.inner.size, queue)

    def dead_letters(self, limit: int = 100, queue: str | None = None) -> list[DeadLetter]:
        return self._call("dead_letters", self.inner.dead_letters, limit, queue)

    def dead_letter(self, key: str) -> DeadLetter | None:
        return self._call("dead_letter", self.inner.dead_letter, key)

    def replay(self, keys: Sequence[str]) -> int:
        return self._call("replay", self.inner.replay, keys)

    def discard(self, keys: Sequence[str]) -> int:
        return self._call("discard", self.inner.discard, keys)

    def broadcast(self, topic: str, payload: bytes) -> None:
        return self._call("broadcast", self.inner.broadcast, topic, payload)

    def subscribe(self, topics: Sequence[str]) -> Subscription:
        return self._call("subscribe", self.inner.subscribe, topics)

    def post(self, message: ControlMessage, exchange: str, key: str = "") -> None:
        return self._call("post", self.inner.post, message, exchange, key)

    def open_mailbox(self, box: Box) -> Mailbox:
        return self._call("open_mailbox", self.inner.open_mailbox, box)

    def close(self) -> None:
        self.inner.close()


class FlakyStore(_Flaky):
    """A real result store whose calls can be made to fail. `close` never does. Optional verbs are those of the real one."""

    def __init__(self, inner: ResultStore, gate: Gate | None = None) -> None:
        self.faults = Faults()
        self.inner = inner
        super().__init__(gate or self.faults)

    def __getattr__(self, verb: str) -> Any:
        if verb not in ("quiet_chords", "ended_parts"):
            raise AttributeError(verb)
        return partial(self._call, verb, getattr(self.inner, verb))

    @property
    def capabilities(self) -> StoreCapabilities:
        return self.inner.capabilities

    @property
    def url(self) -> str:
        return self.inner.url

    def store(self, records: Sequence[Record]) -> list[str]:
        return self._call("store", self.inner.store, records)

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        return self._call("get", self.inner.get, ids)

    def wait(self, ids: Sequence[str], timeout: float | None) -> list[Record]:
        return self._call("wait", self.inner.wait, ids, timeout)

    def forget(self, ids: Sequence[str]) -> None:
        return self._call("forget", self.inner.forget, ids)

    def start_chord(self, group_id: str, size: int, value: bytes, expires_at: float | None) -> None:
        return self._call("start_chord", self.inner.start_chord, group_id, size, value, expires_at)

    def join_part(self, group_id: str, index: int, size: int, record: Record) -> bool:
        return self._call("join_part", self.inner.join_part, group_id, index, size, record)

    def save_group(self, group_id: str, value: bytes, expires_at: float | None) -> None:
        return self._call("save_group", self.inner.save_group, group_id, value, expires_at)

    def get_group(self, group_id: str) -> bytes | None:
        return self._call("get_group", self.inner.get_group, group_id)

    def forget_group(self, group_id: str) -> None:
        return self._call("forget_group", self.inner.forget_group, group_id)

    def cleanup(self, now: float) -> int:
        return self._call("cleanup", self.inner.cleanup, now)

    def close(self) -> None:
        self.inner.close()


#: The type checker's proof that they are what they wrap.
_WRAPPERS: tuple[type[Transport], type[ResultStore]] = (FlakyTransport, FlakyStore)
