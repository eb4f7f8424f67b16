"""Commits that a worker's event loop sends and reads itself, on a real Redis: what they do, and who takes over if they can't."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from celeriac.config import Settings
from celeriac.message import Action, Delivery, Message, Settlement
from celeriac.outcome import Part
from celeriac.results.base import Record
from celeriac.results.redis import RedisStore
from celeriac.transport.redis import RedisTransport
from celeriac.worker.committer import MANY, Committer, Entry
from celeriac.worker.consuming import Consuming
from celeriac.worker.intake import Intake
from celeriac.worker.leases import Leases
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.server("redis")

QUEUE, NEXT = "work", "next"
#: Seconds that a silent server is waited for.
SILENCE = 0.5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


class _Bench:
    """A committer with an intake whose thread does not run: what comes has come with commits. Made in an event loop."""

    def __init__(self, url: str) -> None:
        self.transport = RedisTransport(url, {"socket_timeout": SILENCE})
        self.store = RedisStore(url)
        self.ended: list[str] = []
        self.refused: list[Delivery] = []
        self.came: list[Delivery] = []
        self.stored_before: dict[str, str] = {}
        self.leases = Leases(self.transport, 60.0, lambda lost: None)
        consuming = Consuming(self.transport, Settings(), self.leases.__len__)
        self.intake = Intake(
            self.transport, self.store, self.leases, [QUEUE], 60.0, self._on_deliveries, consuming,
            lambda exc: None,
        )  # fmt: skip
        self.intake.revocations.unheard_until = 0.0
        self._loop = loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.committer = Committer(self.transport, self.store, self.leases, self._on_committed, self.intake, loop)
        self.transport.publish_recorded(
            [], [Record(id="0", state="STARTED", result=b"null")]
        )  # the server has the script

    def _on_committed(self, entries: list[Entry], refused: list[Delivery]) -> None:
        self.ended += [entry.settlement.delivery.message.id for entry in entries if entry.settlement is not None]
        self.refused += refused
        self._loop.call_soon_threadsafe(self._changed.set)

    def _on_deliveries(self, came: list[Delivery], stored: dict[str, Record]) -> None:
        self.came += came
        self.stored_before |= {task_id: record.state for task_id, record in stored.items()}
        self._loop.call_soon_threadsafe(self._changed.set)

    def deliver(self, *ids: str) -> list[Delivery]:
        self.transport.publish([_message(task_id, QUEUE) for task_id in ids])
        deliveries = self.transport.fetch([QUEUE], len(ids), 5.0, 60.0)
        self.leases.add(deliveries)
        return deliveries

    def add(self, *entries: Entry) -> None:
        """As the supervisor does with what a runner has sent."""
        self.committer.add(entries, wake=False)
        self.committer.wake()

    def stored(self, task_id: str) -> str | None:
        (record,) = self.store.get([task_id])
        return record.state if record else None

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_ended(self, count: int) -> None:
        await self.until(lambda: len(self.ended) >= count)


def _message(task_id: str, to: str, eta: float | None = None) -> Message:
    return Message(id=task_id, headers={"task": "t", "id": task_id}, body=b"[]", queue=to, eta=eta)


def _entry(delivery: Delivery, *messages: Message, parts: tuple[Part, ...] = ()) -> Entry:
    record = Record(id=delivery.message.id, state="SUCCESS", result=b"1", date_done="2030-01-01T00:00:00+00:00")
    return Entry(Settlement(delivery), record, messages, parts=parts)


def _run(server: RedisServer, scenario: Callable[[_Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        server.call("FLUSHALL")
        bench = _Bench(server.url())
        try:
            await scenario(bench)
            drained = asyncio.to_thread(bench.committer.drain, 10)
            assert await drained, "the committer does not end"
        finally:
            bench.transport.close()
            bench.store.close()

    asyncio.run(run())


def test_without_its_thread_one_step_stores_publishes_settles_and_fetches(server: RedisServer) -> None:
    async def scenario(bench: _Bench) -> None:
        (delivery,) = bench.deliver("a")
        bench.intake.want(5)
        before = server.scripts_run()
        bench.add(_entry(delivery, _message("b", QUEUE)))  # nobody has started the thread
        await bench.until_ended(1)
        assert server.scripts_run() - before == 1
        assert (bench.stored("a"), [each.message.id for each in bench.came]) == ("SUCCESS", ["b"])
        assert len(bench.leases) == 1
        assert bench.committer.backlog == 0

    _run(server, scenario)


def test_what_comes_meanwhile_goes_as_the_next_step(server: RedisServer) -> None:
    async def scenario(bench: _Bench) -> None:
        first, *others = bench.deliver("a", "b", "c")
        before = server.scripts_run()
        bench.add(_entry(first))
        for delivery in others:
            bench.add(_entry(delivery))
        await bench.until_ended(3)
        assert (bench.ended, server.scripts_run() - before) == (["a", "b", "c"], 2)

    _run(server, scenario)


@pytest.mark.parametrize("kind", ["many", "a part of a chord", "a message for later", "a state", "one that goes back"])
def test_what_takes_longer_is_left_to_the_thread(server: RedisServer, kind: str) -> None:
    async def scenario(bench: _Bench) -> None:
        deliveries = bench.deliver(*(f"m{number}" for number in range(MANY)))
        entries = [_entry(delivery) for delivery in deliveries]
        if kind != "many":
            del entries[1:]
        if kind == "a part of a chord":
            entries = [_entry(deliveries[0], parts=(Part("g", 0, 2, "m0"),))]
        elif kind == "a message for later":
            entries = [_entry(deliveries[0], _message("later", NEXT, eta=4e9))]
        elif kind == "a state":
            entries = [Entry(record=Record(id="s", state="STARTED", result=b"null")), *entries]
        elif kind == "one that goes back":
            entries = [_entry(deliveries[0])]
            bench.committer.put_back(Entry(Settlement(deliveries[1], Action.DEFER, until=4e9)))
        bench.add(*entries)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not bench.ended
        bench.committer.start()
        ending = sum(entry.settlement is not None for entry in entries) + (kind == "one that goes back")
        await bench.until_ended(ending)
        assert (len(bench.ended), bench.refused) == (ending, [])
        assert not bench.committer.is_behind
        assert bench.stored("m0") == "SUCCESS"

    _run(server, scenario)


def test_a_server_that_dies_with_it_gets_it_from_the_thread(server: RedisServer) -> None:
    async def scenario(bench: _Bench) -> None:
        (delivery,) = bench.deliver("a")
        bench.committer.start()
        server.freeze()
        bench.add(_entry(delivery, _message("b", NEXT)))
        assert bench.committer._is_under_way
        await asyncio.to_thread(server.restart)
        await bench.until_ended(1)
        assert bench.stored("a") == "SUCCESS"
        assert bench.transport.size(NEXT).ready == 1
        assert bench.transport.size(QUEUE).leased == 0

    _run(server, scenario)


def test_a_server_that_is_silent_holds_up_no_loop_and_gets_it_once(server: RedisServer) -> None:
    async def scenario(bench: _Bench) -> None:
        (delivery,) = bench.deliver("a")
        bench.committer.start()
        server.freeze()
        try:
            bench.add(_entry(delivery, _message("b", NEXT)))
            turns = 0
            async with asyncio.timeout(20):
                while bench.committer._is_under_way:
                    await asyncio.sleep(0)
                    turns += 1
            assert turns > 10, "the loop stood still"
        finally:
            server.thaw()
        await bench.until_ended(1)
        assert bench.stored("a") == "SUCCESS"
        assert bench.transport.size(NEXT).ready == 1
        assert bench.transport.size(QUEUE).leased == 0

    _run(server, scenario)


def test_a_lease_that_is_lost_is_told(server: RedisServer) -> None:
    async def scenario(bench: _Bench) -> None:
        (delivery,) = bench.deliver("a")
        bench.transport.settle([Settlement(delivery, Action.REQUEUE)])
        bench.add(_entry(delivery, _message("b", NEXT)))
        await bench.until_ended(1)
        assert [each.message.id for each in bench.refused] == ["a"]
        assert bench.transport.size(NEXT).ready == 0

    _run(server, scenario)


def test_a_failure_with_what_came_keeps_no_lease_of_what_has_ended(server: RedisServer) -> None:
    async def scenario(bench: _Bench) -> None:
        def fail(came: list[Delivery], stored: dict[str, Record]) -> None:
            raise RuntimeError("whatever goes wrong with these")

        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, about: failures.append(about["exception"]))
        bench.intake._on_deliveries = fail
        (delivery,) = bench.deliver("a")
        bench.intake.want(5)
        bench.add(_entry(delivery, _message("b", QUEUE)))
        await bench.until_ended(1)
        assert [str(each) for each in failures] == ["whatever goes wrong with these"]
        assert bench.leases.is_over(delivery)
        assert (len(bench.leases), bench.committer.backlog) == (1, 0)

    _run(server, scenario)


def test_what_was_delivered_before_is_looked_up_outside_of_the_loop(server: RedisServer) -> None:
    async def scenario(bench: _Bench) -> None:
        (again,) = bench.deliver("again")
        bench.transport.settle([Settlement(again, Action.REQUEUE, charged=True)])
        record = Record(id="again", state="FAILURE", result=b"1", fence=(0, 1))
        bench.store.store([record])
        other = RedisTransport(server.url())
        other.publish([_message("m", "elsewhere")])
        [delivery] = other.fetch(["elsewhere"], 1, 5.0, 60.0)
        bench.intake.want(5)
        bench.add(_entry(delivery))
        await bench.until_ended(1)
        await bench.until(lambda: bool(bench.came))
        assert bench.stored_before == {"again": "FAILURE"}
        assert [(each.message.id, each.deliveries) for each in bench.came] == [("again", 2)]
        other.close()

    _run(server, scenario)
