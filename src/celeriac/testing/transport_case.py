"""What the conformance tests of transports share: fixtures, helpers, and what a broker may lack.

The parts of the suite (`transport_deliveries`, `transport_queues`, `transport_commits`) build on `TransportCase`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import pytest

from celeriac.message import Action, Delivery, Message, Settlement
from celeriac.results.base import ResultStore
from celeriac.routing import Queue
from celeriac.transport.base import Transport

__all__ = ["LARGE", "LONG", "PATIENCE", "SHORT", "SOON", "TransportCase", "make_message", "names", "needs"]

#: Longest wait for what must come, in seconds. Reached only by a failing test.
PATIENCE = 20.0
#: A wait for what must not come, in seconds.
SOON = 0.3
#: A lease that is to run out, and one that is not.
SHORT, LONG = 0.2, 60.0
#: A large message, in bytes. A limit above it is not tried.
LARGE = 4_000_000

Test = TypeVar("Test", bound=Callable[..., Any])


def make_message(name: str, queue: str = "", **fields: Any) -> Message:
    """A message as a client would send it; `name` is its id and its body."""
    fields.setdefault("headers", {"task": "suite.task", "id": name, "retries": 0})
    fields.setdefault("body", name.encode())
    return Message(id=name, queue=queue, **fields)


def names(deliveries: Sequence[Delivery]) -> list[str]:
    """Ids of the delivered messages, in order."""
    return [delivery.message.id for delivery in deliveries]


def needs(*features: str) -> Callable[[Test], Test]:
    """Leave a test out of the suites of drivers that lack one of these features."""

    def mark(test: Test) -> Test:
        vars(test)["needs"] = frozenset(features)
        return test

    return mark


class TransportCase:
    """Fixtures that a driver overrides, and helpers."""

    #: Features that the driver has not. Their tests are left out; that this is so is a test as well.
    lacks: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in dir(cls):
            if cls.lacks & getattr(getattr(cls, name), "needs", frozenset()):
                setattr(cls, name, None)  # pytest takes it for no test

    @pytest.fixture
    def transport(self) -> Transport:
        """The transport under test: to be overridden."""
        pytest.fail("override the fixture 'transport'")

    @pytest.fixture
    def other(self) -> Transport:
        """A second connection to the same broker: to be overridden."""
        pytest.fail("override the fixture 'other'")

    @pytest.fixture
    def store(self) -> ResultStore | None:
        """The result store that `transport` commits with, if there is one."""
        return None

    @pytest.fixture
    def make_queue(self, transport: Transport) -> Iterator[Callable[[], str]]:
        """A function that gives the name of an empty queue, which is removed in the end."""
        made: list[str] = []

        def make() -> str:
            name = f"suite-{uuid.uuid4().hex[:12]}"
            transport.declare([Queue(name)])
            made.append(name)
            return name

        yield make
        for name in made:
            for letter in transport.dead_letters(1000, name) if transport.capabilities.dead_letters else ():
                transport.discard([letter.key])
            transport.delete(name)

    @pytest.fixture
    def queue(self, make_queue: Callable[[], str]) -> str:
        """The name of an empty queue."""
        return make_queue()

    def take(self, transport: Transport, queue: str, count: int) -> list[str]:
        """Ids of `count` messages in the order in which they come; each is acknowledged."""
        taken: list[str] = []
        while len(taken) < count:
            deliveries = transport.fetch([queue], count - len(taken), PATIENCE, LONG)
            assert deliveries, f"only {taken} came"
            transport.settle([Settlement(delivery) for delivery in deliveries])
            taken += names(deliveries)
        return taken

    def hear(self, subscription: Any, count: int) -> list[tuple[str, bytes]]:
        """The next `count` broadcasts."""
        heard: list[tuple[str, bytes]] = []
        while len(heard) < count:
            letters = subscription.poll(PATIENCE)
            assert letters, f"only {heard} came"
            heard += letters
        return heard

    def leased(self, transport: Transport, queue: str, name: str) -> Delivery:
        """A message, sent and leased."""
        transport.publish([make_message(name, queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
        return delivery

    def stored_state(self, store: ResultStore, task_id: str) -> str | None:
        """State of a stored record."""
        [record] = store.get([task_id])
        return record.state if record is not None else None

    def bury(self, transport: Transport, queue: str, *ids: str) -> None:
        """Send messages and put them aside, in this order."""
        for name in ids:
            transport.publish([make_message(name, queue)])
            [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
            transport.settle([Settlement(delivery, Action.DEAD_LETTER, reason=f"because of {name}")])
