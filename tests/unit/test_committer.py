"""The committer's order, what it does again after a failure and what it does not, and what it gives up."""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import pytest

from celeriac.errors import OperationalError
from celeriac.message import Action, Delivery, Message, Settlement
from celeriac.results.base import Record
from celeriac.results.open import open_store
from celeriac.transport.open import open_transport
from celeriac.worker.committer import MOST_BACK, PIECE, Committer, Entry
from celeriac.worker.leases import Leases
from tests.support.files import eventually
from tests.support.flaky import FlakyStore, FlakyTransport

QUEUE = "work"


class _Bench(SimpleNamespace):
    """A committer between a broker and a store that is none of the broker's."""

    transport: FlakyTransport
    store: FlakyStore
    committer: Committer
    leases: Leases
    ended: queue.SimpleQueue[tuple[list[Entry], list[Delivery]]]

    def deliver(self, *ids: str) -> list[Delivery]:
        self.transport.publish([_message(task_id, QUEUE) for task_id in ids])
        return self.transport.fetch([QUEUE], len(ids), 5.0, 60.0)

    def wait_ended(self, count: int) -> list[Delivery]:
        """Wait until so many entries have ended; returns the refused ones."""
        ended, refused = 0, []
        while ended < count:
            entries, lost = self.ended.get(timeout=10)
            ended += len(entries)
            refused += lost
        return refused

    def stored(self, task_id: str) -> str | None:
        (record,) = self.store.get([task_id])
        return record.state if record else None


def _message(task_id: str, to: str) -> Message:
    return Message(id=task_id, headers={"task": "t", "id": task_id}, body=b"[]", queue=to)


def _entry(delivery: Delivery, *messages: Message) -> Entry:
    record = Record(id=delivery.message.id, state="SUCCESS", result=b"1", date_done="2030-01-01T00:00:00+00:00")
    return Entry(Settlement(delivery), record, messages)


class _PickyStore(FlakyStore):
    """Has a fault of its own for one record."""

    def store(self, records: Sequence[Record]) -> list[str]:
        if any(record.id == "bad" for record in records):
            raise OverflowError("too large for a column")
        return super().store(records)


class _PickyTransport(FlakyTransport):
    """Can't even settle one delivery."""

    def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        if any(each.delivery.message.id == "bad" for each in settlements):
            raise OverflowError("too large for a column")
        return super().settle(settlements)


@pytest.fixture
def make_bench() -> Iterator[Callable[..., _Bench]]:
    benches: list[_Bench] = []

    def make(
        transport_type: type[FlakyTransport] = FlakyTransport, store_type: type[FlakyStore] = FlakyStore
    ) -> _Bench:
        name = uuid.uuid4().hex
        transport = transport_type(open_transport(f"memory://{name}"))
        bench = _Bench(transport=transport, store=store_type(open_store(f"memory://{name}")), ended=queue.SimpleQueue())
        bench.leases = leases = Leases(transport, 60.0, lambda lost: None)
        bench.committer = Committer(
            transport, bench.store, leases, lambda entries, refused: bench.ended.put((entries, refused))
        )
        bench.committer.start()
        benches.append(bench)
        return bench

    yield make
    for bench in benches:
        assert bench.committer.drain(10), "the committer does not end"


def test_stored_then_published_then_acked(make_bench: Callable[..., _Bench]) -> None:
    bench = make_bench()
    (delivery,) = bench.deliver("a")
    bench.transport.faults.calls.clear()
    order: list[str] = []
    bench.store.faults.calls = bench.transport.faults.calls = order
    bench.committer.add([_entry(delivery, _message("callback", "next"))])
    assert bench.wait_ended(1) == []
    assert [call for call in order if call != "extend"] == ["store", "publish", "settle"]
    assert bench.stored("a") == "SUCCESS"
    assert bench.transport.size("next").ready == 1


@pytest.mark.parametrize("lost", ["settle", "store"])
def test_what_is_published_is_not_published_again_when_a_reply_is_lost(
    make_bench: Callable[..., _Bench], lost: str
) -> None:
    bench = make_bench()
    (delivery,) = bench.deliver("a")
    (bench.store if lost == "store" else bench.transport).faults.lose_replies(lost, times=2)
    bench.committer.add([_entry(delivery, _message("callback", "next"))])
    bench.wait_ended(1)
    assert bench.transport.size("next").ready == 1
    size = bench.transport.size(QUEUE)
    assert (size.ready, size.leased) == (0, 0)


def test_published_though_an_earlier_execution_has_stored_the_same(make_bench: Callable[..., _Bench]) -> None:
    """It may have died before it could publish, and nobody else would."""
    bench = make_bench()
    (delivery,) = bench.deliver("a")
    bench.store.store([_entry(delivery).record])  # type: ignore[list-item]
    bench.committer.add([_entry(delivery, _message("callback", "next"))])
    bench.wait_ended(1)
    assert bench.transport.size("next").ready == 1


def test_what_follows_an_outcome_that_was_stored_ahead_is_published() -> None:
    """Its handlers ran meanwhile. In one step with the acknowledgement, its record would be refused as another's."""
    name = uuid.uuid4().hex
    transport, ended = open_transport(f"memory://{name}"), queue.SimpleQueue[int]()
    leases = Leases(transport, 60.0, lambda lost: None)
    store = open_store(f"memory://{name}")
    committer = Committer(transport, store, leases, lambda entries, refused: ended.put(len(entries)))
    committer.start()
    transport.publish([_message("a", QUEUE)])
    (delivery,) = transport.fetch([QUEUE], 1, 5.0, 60.0)
    outcome = _entry(delivery, _message("callback", "next"))
    committer.add([Entry(record=outcome.record, is_early=True)])
    assert ended.get(timeout=10) == 1
    (stored,) = store.get(["a"])
    assert stored == outcome.record
    assert transport.size("next").ready == 0
    committer.add([outcome])
    assert ended.get(timeout=10) == 1
    assert (transport.size("next").ready, transport.size(QUEUE).leased) == (1, 0)
    assert committer.drain(10)


def test_nothing_of_a_lost_lease_is_stored_or_published(make_bench: Callable[..., _Bench]) -> None:
    bench = make_bench()
    (late,) = bench.deliver("a")
    bench.transport.extend([late], 0.0)
    (again,) = bench.transport.fetch([QUEUE], 1, 5.0, 60.0)
    bench.committer.add([_entry(late, _message("callback", "next"))])
    assert [each.token for each in bench.wait_ended(1)] == [late.token]
    assert bench.stored("a") is None
    assert bench.transport.size("next").ready == 0
    assert bench.transport.extend([again], 60.0) == [], "the other's lease was touched"


def test_outcome_that_a_driver_chokes_on_is_buried_and_the_others_are_committed(
    make_bench: Callable[..., _Bench],
) -> None:
    bench = make_bench(store_type=_PickyStore)
    deliveries = bench.deliver("a", "bad", "b")
    bench.committer.add([_entry(delivery) for delivery in deliveries])
    bench.wait_ended(3)
    assert (bench.stored("a"), bench.stored("bad"), bench.stored("b")) == ("SUCCESS", None, "SUCCESS")
    (letter,) = bench.transport.dead_letters()
    assert letter.message.id == "bad"
    assert letter.reason == "its outcome can't be committed: too large for a column"


class _TiringTransport(FlakyTransport):
    """Is away now and then: from the second `settle` on, once."""

    sizes: list[int]

    def settle(self, settlements: Sequence[Settlement]) -> list[Delivery]:
        self.sizes = [*getattr(self, "sizes", []), len(settlements)]
        if len(self.sizes) == 2:
            raise OperationalError("no answer within 4 s")
        return super().settle(settlements)


def test_much_that_is_put_off_goes_in_pieces_and_none_twice(make_bench: Callable[..., _Bench]) -> None:
    """A broker may need long for each: what it has done of a batch is not sent again when the rest fails."""
    bench = make_bench(transport_type=_TiringTransport)
    number = 2 * PIECE + 1
    deliveries = bench.deliver(*(str(each) for each in range(number)))
    later = time.time() + 3600
    bench.committer.add([Entry(Settlement(each, Action.DEFER, until=later)) for each in deliveries])
    assert bench.wait_ended(number) == []
    assert bench.transport.sizes == [PIECE, PIECE, PIECE, 1]
    eventually(lambda: bench.committer.backlog == 0)
    assert bench.committer.pace == 1e-4, "an outage was taken for the usual pace"
    size = bench.transport.size(QUEUE)
    assert (size.ready, size.delayed, size.leased) == (0, number, 0)


def test_what_goes_back_is_committed_before_more_is_taken_in() -> None:
    """Each may be as much work for the broker as many acknowledgements, and the time that it takes is told."""
    name = uuid.uuid4().hex
    transport = open_transport(f"memory://{name}")
    committer = Committer(transport, None, Leases(transport, 60.0, lambda lost: None), lambda entries, refused: None)
    transport.publish([_message(str(number), QUEUE) for number in range(MOST_BACK + 1)])
    *most, last = transport.fetch([QUEUE], MOST_BACK + 1, 5.0, 60.0)
    for delivery in most:
        committer.put_back(Entry(Settlement(delivery, Action.DEFER, until=time.time() + 3600)))
    assert not committer.is_behind
    committer.put_back(Entry(Settlement(last, Action.REQUEUE)))
    assert committer.is_behind
    assert committer.spent == 0.0
    committer.start()
    assert committer.drain(10)
    assert not committer.is_behind
    assert committer.spent > 0.0
    size = transport.size(QUEUE)
    assert (size.ready, size.delayed, size.leased) == (1, MOST_BACK, 0)


def test_what_can_not_even_be_buried_is_left_to_its_lease(make_bench: Callable[..., _Bench]) -> None:
    bench = make_bench(transport_type=_PickyTransport)
    deliveries = bench.deliver("a", "bad", "b")
    bench.leases.add(deliveries)
    bench.committer.add([_entry(delivery) for delivery in deliveries])
    bench.wait_ended(3)
    assert (bench.stored("a"), bench.stored("b")) == ("SUCCESS", "SUCCESS")
    size = bench.transport.size(QUEUE)
    assert (size.ready, size.leased) == (0, 1)
    assert len(bench.leases) == 0, "its lease is still renewed"
