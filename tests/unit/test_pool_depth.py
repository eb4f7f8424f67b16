"""How many frames a slot holds, where they go, and what can't be handed over. The test is the runners."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.errors import ImproperlyConfigured
from celeriac.message import Delivery, Message
from celeriac.outcome import Outcome
from celeriac.results.base import Record
from celeriac.runner.protocol import Cells, FrameReader, Hello, Kind, RunnerOptions, decode_frame, encode_frame
from celeriac.worker.assignment import Assignment
from celeriac.worker.options import node_name, pool_shape
from celeriac.worker.pool import LONG, MAX_DEPTH, SHORT, WORTH_WAITING, Pool, ahead, depth
from celeriac.worker.process import RunnerProcess


class _Nursery:
    """Keeps the runners' ends for the test."""

    can_kill = True
    on_exit: Callable[[int, int], None]

    def __init__(self) -> None:
        self.ends: list[tuple[socket.socket, Cells]] = []
        self.readers: list[FrameReader] = []

    async def start(self) -> Hello:
        return Hello()

    def spawn(self, process: RunnerProcess) -> None:
        process.runner_sock.setblocking(False)
        self.ends.append((process.runner_sock, Cells(process.cells_fd, process.options.slots)))
        self.readers.append(FrameReader())

    def stop(self) -> None:
        pass

    def received(self, number: int) -> list[Any]:
        """Executions that runner `number` has been sent since the last look."""
        try:
            data = self.ends[number][0].recv(1 << 20)
        except BlockingIOError:
            return []
        return [decode_frame(kind, body) for kind, body in self.readers[number].feed(data)]


class _Owner:
    def __init__(self) -> None:
        self.ended: list[str] = []
        self.batches: list[int] = []
        self.refused: list[tuple[str, str]] = []
        self.crashed: list[str] = []

    def on_outcomes(self, ended: list[tuple[Assignment, Outcome]]) -> None:
        self.ended += [assignment.id for assignment, _ in ended]
        self.batches.append(len(ended))

    def on_crash(self, assignment: Assignment, reason: str) -> None:
        self.crashed.append(assignment.id)

    def on_refused(self, assignment: Assignment, reason: str) -> None:
        self.refused.append((assignment.id, reason))

    def on_state(self, record: Record) -> None:
        raise AssertionError(record)

    def on_capacity(self) -> None:
        pass


@asynccontextmanager
async def _pool(processes: int = 2, slots: int = 1) -> AsyncIterator[tuple[Pool, _Nursery, _Owner]]:
    nursery, owner = _Nursery(), _Owner()
    pool = Pool(nursery, owner, processes, RunnerOptions("prefork", slots, "test"))
    pool.start()
    for process, (sock, _) in reversed(list(zip(pool.processes, nursery.ends, strict=True))):
        sock.send(encode_frame(Kind.READY, 0))
        await _until(lambda process=process: process.is_ready)  # the last one gets the first task: number 0
    try:
        yield pool, nursery, owner
    finally:
        for _, cells in nursery.ends:
            cells.close()
        pool.close()


def _assignment(name: str, task: str = "short", **headers: Any) -> Assignment:
    message = Message(id=name, headers={"task": task, **headers}, body=b"")
    return Assignment(Delivery(message=message, queue="celery", token=name))


async def _until(predicate: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if predicate():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come")


async def _eventually(predicate: Callable[[], bool]) -> None:
    while not predicate():  # noqa: ASYNC110 -- the loop's timers are what is waited for
        await asyncio.sleep(0.001)


async def _finish(pool: Pool, nursery: _Nursery, runner: int, serial: int, runtime: float, task: str = "short") -> None:
    done = pool.done
    nursery.ends[runner][0].send(encode_frame(Kind.OUTCOME, Outcome(serial, 0, task, "SUCCESS", runtime=runtime)))
    await _until(lambda: pool.done > done)


# how many


@given(st.one_of(st.none(), st.floats(0, 1e6)))
def test_what_waits_in_a_slot_is_worth_a_few_milliseconds(runtime: float | None) -> None:
    frames = depth(runtime)
    assert 1 <= frames <= MAX_DEPTH
    if frames > 1:
        assert runtime is not None
        assert runtime * frames <= WORTH_WAITING * 1.01


def test_a_task_that_never_ran_is_taken_for_long() -> None:
    assert depth(None) == depth(1.0) == depth(SHORT * 1.01) == 1
    assert depth(0.0) == MAX_DEPTH


def test_ahead_of_tasks_that_are_neither_short_nor_long_one_is_fetched() -> None:
    assert [ahead(runtime) for runtime in (SHORT * 1.01, LONG * 0.99, LONG)] == [1, 1, 0]
    assert ahead(SHORT) > 1


def test_an_unknown_task_gets_a_slot_of_its_own() -> None:
    async def scenario() -> None:
        async with _pool() as (pool, nursery, _):
            pool.submit(_assignment(f"a{n}") for n in range(4))
            assert [len(nursery.received(runner)) for runner in (0, 1)] == [1, 1]
            assert len(pool.ready) == 2

    asyncio.run(scenario())


def test_short_tasks_are_dealt_out_evenly() -> None:
    async def scenario() -> None:
        async with _pool() as (pool, nursery, _):
            pool.submit([_assignment("first")])
            await _finish(pool, nursery, 0, 1, runtime=0.0001)
            nursery.received(0)
            pool.submit(_assignment(f"a{n}") for n in range(20))
            assert [len(nursery.received(runner)) for runner in (0, 1)] == [10, 10]
            assert not pool.ready

    asyncio.run(scenario())


def _outcome(runner: int, serial: int, nursery: _Nursery, runtime: float = 0.001) -> None:
    nursery.ends[runner][0].send(encode_frame(Kind.OUTCOME, Outcome(serial, 0, "short", "SUCCESS", runtime=runtime)))


async def _busy_with_milliseconds(pool: Pool, nursery: _Nursery, number: int) -> None:
    """Have every slot full of tasks of a millisecond, `number` of them given to the pool."""
    pool.submit([_assignment("first")])
    await _finish(pool, nursery, 0, 1, runtime=0.001)
    pool.submit(_assignment(f"a{n}") for n in range(number))
    for runner in (0, 1):
        nursery.received(runner)


def test_a_slot_is_filled_up_when_half_of_it_is_used() -> None:
    async def scenario() -> None:
        async with _pool() as (pool, nursery, owner):
            await _busy_with_milliseconds(pool, nursery, 5 * depth(0.001))
            full = depth(0.001)
            sent = []
            for serial in range(2, 2 + full):
                _outcome(0, serial, nursery)
                await _eventually(lambda serial=serial: len(owner.ended) == serial)
                sent.append(len(nursery.received(0)))
            assert [number for number in sent if number] == [full // 2, full // 2]

    asyncio.run(scenario())


def test_outcomes_of_all_runners_gather_while_every_slot_has_work_and_more_is_ready() -> None:
    async def scenario() -> None:
        async with _pool() as (pool, nursery, owner):
            await _busy_with_milliseconds(pool, nursery, 5 * depth(0.001))
            for runner, serial in ((0, 2), (1, 1), (0, 3), (1, 2)):
                _outcome(runner, serial, nursery)
            await _eventually(lambda: len(owner.ended) == 5)
            assert owner.batches == [1, 4]

    asyncio.run(scenario())


def test_nothing_gathers_where_nothing_else_is_ready_or_a_slot_would_run_dry() -> None:
    async def scenario() -> None:
        async with _pool() as (pool, nursery, owner):
            await _busy_with_milliseconds(pool, nursery, 4)  # all with the runners
            _outcome(0, 2, nursery)
            for _ in range(3):  # the loop looks at its sockets at most this often before it has seen it
                await asyncio.sleep(0)
            assert len(owner.ended) == 2
            pool.submit(_assignment(f"long{n}", "long") for n in range(4))  # ready, and each wants a slot of its own
            _outcome(1, 1, nursery)
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(owner.ended) == 3

    asyncio.run(scenario())


def test_a_runner_that_dies_while_outcomes_gather_loses_none() -> None:
    async def scenario() -> None:
        async with _pool() as (pool, nursery, owner):
            await _busy_with_milliseconds(pool, nursery, 5 * depth(0.001))
            _outcome(0, 2, nursery)
            nursery.ends[0][1].begin(0, 3, 0.0)
            ran = pool.processes[0].slots[0].held[1].id
            nursery.ends[0][0].close()
            await _eventually(lambda: len(owner.ended) == 2)
            await _eventually(lambda: owner.crashed == [ran])

    asyncio.run(scenario())


def test_nothing_is_put_behind_a_task_that_has_turned_out_long() -> None:
    async def scenario() -> None:
        async with _pool() as (pool, nursery, _):
            pool.submit([_assignment("first")])
            await _finish(pool, nursery, 0, 1, runtime=0.0001)
            nursery.received(0)
            pool.submit([_assignment("turns out long"), _assignment("other")])
            slot = pool.processes[1].slots[0]
            slot.is_blocked = True
            pool.submit(_assignment(f"a{n}") for n in range(8))
            assert len(slot.held) == 1
            assert len(pool.processes[0].slots[0].held) == 9
            await _finish(pool, nursery, 1, 1, runtime=3.0)
            assert not slot.is_blocked

    asyncio.run(scenario())


def test_ahead_of_long_tasks_nothing_is_fetched() -> None:
    async def scenario() -> None:
        async with _pool() as (pool, nursery, _):
            assert pool.wanted() == 2
            pool.submit([_assignment("first", "long")])
            assert pool.wanted() == 1
            await _finish(pool, nursery, 0, 1, runtime=5.0, task="long")
            assert pool.wanted() == 2
            pool.is_stopping = True
            assert pool.wanted() == 0

    asyncio.run(scenario())


def test_ahead_of_short_tasks_enough_is_fetched_to_keep_runners_busy() -> None:
    async def scenario() -> None:
        async with _pool() as (pool, nursery, _):
            pool.submit([_assignment("first")])
            await _finish(pool, nursery, 0, 1, runtime=0.00005)
            assert pool.wanted() > 2 * MAX_DEPTH

    asyncio.run(scenario())


# what goes wrong


@pytest.mark.parametrize("value", [2**70, "\ud800", object()])
def test_a_message_that_can_not_be_handed_over_is_refused_and_harms_no_other(value: Any) -> None:
    async def scenario() -> None:
        async with _pool(processes=1) as (pool, nursery, owner):
            pool.submit([_assignment("bad", x=value), _assignment("good")])
            assert [execution.message.id for execution in nursery.received(0)] == ["good"]
            assert [name for name, _ in owner.refused] == ["bad"]
            assert owner.refused[0][1].startswith("malformed message: ")
            await _finish(pool, nursery, 0, 1, runtime=0.1)
            assert owner.ended == ["good"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "body", [b"\xc1", msgspec.msgpack.encode([1, 0, "t"]), msgspec.msgpack.encode(["1", 0, "t", "SUCCESS"])]
)
def test_an_answer_that_can_not_be_read_costs_the_runner(body: bytes) -> None:
    async def scenario() -> None:
        async with _pool(processes=1) as (pool, nursery, owner):
            pool.submit([_assignment("one")])
            process = pool.processes[0]
            frame = len(body).to_bytes(4, "little") + bytes([Kind.OUTCOME]) + body
            nursery.ends[0][0].send(frame)
            await _until(lambda: process.is_retiring)
            assert "can't be read" in process.end_text()
            assert owner.ended == []

    asyncio.run(scenario())


# shape


@pytest.mark.parametrize(
    ("pool", "concurrency", "processes", "shape"),
    [
        ("prefork", 8, None, ("prefork", 8, 1)),
        ("processes", 3, None, ("prefork", 3, 1)),
        ("threads", 32, None, ("threads", 2, 16)),
        ("threads", 33, None, ("threads", 3, 11)),
        ("threads", 8, 4, ("threads", 4, 2)),
        ("solo", 8, None, ("solo", 1, 1)),
    ],
)
def test_a_pool_is_processes_times_slots(pool: str, concurrency: int, processes: int | None, shape: Any) -> None:
    assert pool_shape(pool, concurrency, processes) == shape


def test_an_unknown_pool_names_those_there_are() -> None:
    with pytest.raises(
        ImproperlyConfigured, match=r"pool 'prefrok' is unknown; allowed are .*Did you mean 'prefork'\?"
    ):
        pool_shape("prefrok", 1, None)
    with pytest.raises(ImproperlyConfigured, match="concurrency must be at least 1, not -1"):
        pool_shape("prefork", -1, None)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (None, "celery@web1.example.com"),
        ("w1@%h", "w1@web1.example.com"),
        ("w1@%n", "w1@web1"),
        ("%n.x@%d", "web1.x@example.com"),
        ("w1", "w1@web1.example.com"),
        ("100%%@h", "100%@h"),
    ],
)
def test_node_names(pattern: str | None, name: str) -> None:
    """[B-WORKER-001]"""
    assert node_name(pattern, {"HOSTNAME_OVERRIDE": "web1.example.com"}) == name
