"""Whether a worker consumes: when it gives up, what readiness says, and when it connects anew."""

from __future__ import annotations

import pytest

from celeriac.errors import OperationalError
from celeriac.testing.transport_case import make_message
from celeriac.transport.memory import MemoryTransport
from celeriac.worker.consuming import LOOK_EVERY, STUCK, Consuming
from tests.support.apps import memory_app


class World:
    """A broker, a clock, and what the worker holds."""

    def __init__(self, *, retries: bool = True, max_retries: int | None = None) -> None:
        self.transport = MemoryTransport("memory://consuming")
        self.transport.purge("q")
        self.time = 100.0
        self.held = 1
        settings = {"broker_connection_retry": retries, "broker_connection_max_retries": max_retries}
        conf = memory_app(**settings).conf
        self.consuming = Consuming(self.transport, conf, lambda: self.held, lambda: self.time)

    def fetch(self, count: int, after: float = 0.0) -> None:
        """A fetch that brings so many."""
        self.time += after
        self.consuming.begins()
        self.consuming.ends(count, ["q"])


@pytest.mark.parametrize(
    ("retries", "max_retries", "failures", "expected"),
    [
        (True, None, 10_000, False),
        (True, 0, 10_000, False),
        (True, 3, 3, False),
        (True, 3, 4, True),
        (False, None, 1, True),
    ],
)
def test_when_it_gives_up(retries: bool, max_retries: int | None, failures: int, expected: bool) -> None:
    world = World(retries=retries, max_retries=max_retries)
    assert world.consuming.fails(OperationalError("away"), failures) is expected


def test_what_is_no_outage_never_ends_a_worker() -> None:
    assert not World(retries=False).consuming.fails(RuntimeError("a driver's bug"), 1)


def test_readiness_follows_the_connection() -> None:
    world = World()
    assert world.consuming.problem() == "not connected yet"
    world.fetch(0)
    assert world.consuming.problem() == ""
    world.consuming.fails(OperationalError("redis://h is away"), 1)
    assert world.consuming.problem() == "redis://h is away"
    world.fetch(0)
    assert world.consuming.problem() == ""


def test_a_fetch_that_never_ends_is_a_problem() -> None:
    world = World()
    world.fetch(0)
    world.consuming.begins()
    world.time += STUCK + 1
    assert world.consuming.problem() == "a fetch has been stuck for 31 s"


def test_connected_but_not_consuming() -> None:
    world = World()
    world.transport.publish([make_message("a", "q")])
    world.fetch(0, after=LOOK_EVERY)
    assert world.consuming.problem() == ""  # it may have come this moment
    world.fetch(0, after=LOOK_EVERY)
    assert world.consuming.problem() == "messages are ready in q, but memory://consuming delivers none"
    world.fetch(1)
    assert world.consuming.problem() == ""


def test_an_empty_queue_is_none() -> None:
    world = World()
    for _ in range(5):
        world.fetch(0, after=LOOK_EVERY)
    assert world.consuming.problem() == ""


def test_connections_are_closed_only_when_nothing_depends_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    closed: list[float] = []
    monkeypatch.setattr(world.transport, "close", lambda: closed.append(world.time))
    world.transport.publish([make_message("a", "q")])
    for _ in range(3):
        world.fetch(0, after=LOOK_EVERY)
    assert closed == []
    world.held = 0
    world.fetch(0, after=LOOK_EVERY)
    assert closed == [world.time]
