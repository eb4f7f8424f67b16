"""The memory drivers keep the contracts, and run in virtual time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from celeriac.errors import ImproperlyConfigured
from celeriac.message import Action, Settlement
from celeriac.results.memory import MemoryStore
from celeriac.testing.results import ResultStoreSuite, make_record
from celeriac.testing.transports import TransportSuite, make_message
from celeriac.transport.memory import MemoryTransport


class VirtualClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.steady = 50.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def move(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def url() -> Iterator[str]:
    name = f"memory://{uuid.uuid4().hex}"
    yield name
    MemoryTransport(name).clear()
    MemoryStore(name).clear()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


class TestMemoryTransport(TransportSuite):
    @pytest.fixture
    def transport(self, url: str) -> MemoryTransport:
        return MemoryTransport(url)

    @pytest.fixture
    def other(self, url: str) -> MemoryTransport:
        return MemoryTransport(url)

    @pytest.fixture
    def store(self, url: str) -> MemoryStore:
        return MemoryStore(f"cache+{url}")


class TestMemoryStore(ResultStoreSuite):
    @pytest.fixture
    def store(self, url: str) -> MemoryStore:
        return MemoryStore(url)

    @pytest.fixture
    def other(self, url: str) -> MemoryStore:
        return MemoryStore(f"cache+{url}")


def test_names_are_separate(url: str) -> None:
    MemoryTransport(url).publish([make_message("m", "q")])
    another = MemoryTransport(f"{url}-2")
    assert another.fetch(["q"], 1, 0, 1) == []
    assert not another.commits_with(MemoryStore(url))
    another.clear()


def test_leases_and_delays_follow_the_clock(url: str, clock: VirtualClock) -> None:
    transport = MemoryTransport(url, clock=clock)
    transport.publish([make_message("later", "q", eta=clock.now() + 3600), make_message("now", "q")])
    [first] = transport.fetch(["q"], 10, 0, 30)
    clock.move(29)
    assert transport.fetch(["q"], 10, 0, 30) == []
    clock.move(2)
    [again] = transport.fetch(["q"], 10, 0, 30)
    assert (again.message.id, again.deliveries) == ("now", 2)
    assert transport.settle([Settlement(first), Settlement(again)]) == [first]
    clock.move(3600)
    assert [each.message.id for each in transport.fetch(["q"], 10, 0, 30)] == ["later"]


def test_a_jump_of_the_wall_clock_ends_no_lease(url: str, clock: VirtualClock) -> None:
    transport = MemoryTransport(url, clock=clock)
    transport.publish([make_message("m", "q")])
    [delivery] = transport.fetch(["q"], 1, 0, 30)
    clock.wall += 86_400
    assert transport.fetch(["q"], 1, 0, 30) == []
    assert transport.settle([Settlement(delivery)]) == []


def test_a_lease_that_is_over_may_still_be_settled_while_nobody_took_it(url: str, clock: VirtualClock) -> None:
    transport = MemoryTransport(url, clock=clock)
    transport.publish([make_message("m", "q")])
    [delivery] = transport.fetch(["q"], 1, 0, 30)
    clock.move(60)
    assert transport.fetch(["another"], 1, 0, 30) == []
    assert transport.settle([Settlement(delivery)]) == []
    assert transport.fetch(["q"], 1, 0, 30) == []


def test_many_extensions_leave_no_garbage(url: str, clock: VirtualClock) -> None:
    transport = MemoryTransport(url, clock=clock)
    for number in range(3000):
        transport.publish([make_message(str(number), "q")])
        [delivery] = transport.fetch(["q"], 1, 0, 30)
        transport.settle([Settlement(delivery, Action.ACK)])
    assert len(transport._broker.leased) <= 1001


def test_results_expire_by_the_clock(url: str, clock: VirtualClock) -> None:
    store = MemoryStore(url, clock=clock)
    store.store([make_record("t", expires_at=clock.now() + 10)])
    clock.move(11)
    assert store.get(["t"]) == [None]
    assert store.cleanup(clock.now()) == 1


def test_options_are_checked(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="'visiblity_timeout'.*Did you mean 'visibility_timeout'"):
        MemoryTransport(url, {"visiblity_timeout": 1})
