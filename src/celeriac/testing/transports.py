"""The conformance suite of transports: every promise of `celeriac.transport.base.Transport` as a test.

A driver's test module subclasses `TransportSuite` and gives it two connections to one broker:

    class TestMine(TransportSuite):
        @pytest.fixture
        def transport(self):
            transport = MyTransport("mine://localhost", {})
            yield transport
            transport.close()

        @pytest.fixture
        def other(self):
            ...  # a second one, to the same broker

Queues have random names, so a broker may be shared. What the driver's `capabilities` rule out is skipped. Nothing sleeps:
a test that needs a lease to end lets the other connection wait for the message.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from celeriac.errors import EncodeError, MessageTooLarge, QueueNotFound
from celeriac.message import Action, Delivery, Message, Settlement
from celeriac.results.base import Record, ResultStore
from celeriac.routing import Exchange, Queue
from celeriac.transport.base import Commit, QueueSize, Transport

__all__ = ["PATIENCE", "TransportSuite", "make_message"]

#: Longest wait for what must come, in seconds. Reached only by a failing test.
PATIENCE = 20.0
#: A wait for what must not come, in seconds.
SOON = 0.3
#: A lease that is to run out, and one that is not.
SHORT, LONG = 0.2, 60.0


def make_message(name: str, queue: str = "", **fields: Any) -> Message:
    """A message as a client would send it; `name` is its id and its body."""
    fields.setdefault("headers", {"task": "suite.task", "id": name, "retries": 0})
    fields.setdefault("body", name.encode())
    return Message(id=name, queue=queue, **fields)


def names(deliveries: Sequence[Delivery]) -> list[str]:
    """Ids of the delivered messages, in order."""
    return [delivery.message.id for delivery in deliveries]


class TransportSuite:
    """Subclass it with fixtures `transport`, `other` and, where the driver commits with a store, `store`."""

    @pytest.fixture
    def transport(self) -> Transport:
        """The transport under test: to be overridden."""
        raise NotImplementedError("override the fixture 'transport'")

    @pytest.fixture
    def other(self) -> Transport:
        """A second connection to the same broker: to be overridden."""
        raise NotImplementedError("override the fixture 'other'")

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

    # --- publish and fetch

    def test_a_message_arrives_as_it_was_sent(self, transport: Transport, other: Transport, queue: str) -> None:
        sent = make_message(
            "m1",
            queue,
            headers={"task": "suite.task", "id": "m1", "retries": 2, "timelimit": [None, 1.5], "stamps": {"ä": "ö"}},
            body=bytes(range(256)),
            content_type="application/x-suite",
            content_encoding="binary",
            routing_key=queue,
            expires_at=time.time() + 3600,
            reply_to="reply-queue",
        )
        transport.publish([sent])
        [delivery] = other.fetch([queue], 10, PATIENCE, LONG)
        assert delivery.queue == queue
        for field in ("id", "headers", "body", "content_type", "content_encoding", "queue", "reply_to", "defect"):
            assert getattr(delivery.message, field) == getattr(sent, field), field
        assert delivery.message.expires_at == pytest.approx(sent.expires_at, abs=0.01)
        assert (delivery.deliveries, delivery.starts, delivery.redelivered) == (1, 0, False)
        other.settle([Settlement(delivery)])

    def test_large_and_unicode(self, transport: Transport, other: Transport, queue: str) -> None:
        limit = transport.capabilities.max_bytes
        size = 2_000_000 if limit is None or limit > 2_000_000 else limit // 2
        sent = make_message("größe-✓-数", queue, body=b"\x00\xff" * (size // 2))
        transport.publish([sent])
        [delivery] = other.fetch([queue], 1, PATIENCE, LONG)
        assert delivery.message.id == sent.id
        assert delivery.message.body == sent.body

    def test_older_first(self, transport: Transport, other: Transport, queue: str) -> None:
        transport.publish([make_message(f"a{i}", queue) for i in range(10)])
        transport.publish([make_message("b", queue)])
        assert self.take(other, queue, 11) == [f"a{i}" for i in range(10)] + ["b"]

    def test_no_more_than_the_limit(self, transport: Transport, queue: str) -> None:
        transport.publish([make_message(f"m{i}", queue) for i in range(5)])
        assert 1 <= len(transport.fetch([queue], 3, PATIENCE, LONG)) <= 3

    def test_an_empty_queue_gives_nothing(self, transport: Transport, queue: str) -> None:
        assert transport.fetch([queue], 10, 0, LONG) == []
        assert transport.fetch([queue], 10, 0.05, LONG) == []

    def test_only_the_queues_asked_for(self, transport: Transport, make_queue: Callable[[], str]) -> None:
        mine, others = make_queue(), make_queue()
        transport.publish([make_message("m", others)])
        assert transport.fetch([mine], 10, 0.05, LONG) == []
        assert names(transport.fetch([mine, others], 10, PATIENCE, LONG)) == ["m"]

    def test_empty_batches(self, transport: Transport) -> None:
        transport.publish([])
        assert transport.settle([]) == []
        assert transport.extend([], LONG) == []
        transport.mark_started([])

    def test_a_waiting_fetch_is_woken_by_a_publish(self, transport: Transport, other: Transport, queue: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(other.fetch, [queue], 10, PATIENCE, LONG)
            transport.publish([make_message("m", queue)])
            assert names(waiting.result(PATIENCE)) == ["m"]

    def test_interrupt_ends_a_waiting_fetch(self, transport: Transport, queue: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(transport.fetch, [queue], 10, 600.0, LONG)
            while not waiting.done():
                transport.interrupt()  # again and again: the thread may not have begun to wait yet
            assert waiting.result() == []

    def test_priorities(self, transport: Transport, other: Transport, queue: str) -> None:
        if transport.capabilities.priorities < 3:
            pytest.skip("the broker has no priorities")
        transport.declare([Queue(queue, max_priority=9)])
        sent = [("a", None), ("b", 9), ("c", 0), ("d", 5), ("e", 9)]
        transport.publish([make_message(name, queue, priority=priority) for name, priority in sent])
        assert self.take(other, queue, 5) == ["b", "e", "d", "a", "c"]

    def test_queues_take_turns(self, transport: Transport, make_queue: Callable[[], str]) -> None:
        queues = [make_queue(), make_queue()]
        for queue in queues:
            transport.publish([make_message(f"{queue}-{i}", queue) for i in range(4)])
        first_four = [transport.fetch(queues, 1, PATIENCE, LONG)[0].queue for _ in range(4)]
        assert sorted(first_four) == sorted(queues * 2)
        assert {delivery.queue for delivery in transport.fetch(queues, 2, PATIENCE, LONG)} == set(queues)

    def test_a_long_queue_fills_what_a_short_one_leaves(
        self, transport: Transport, make_queue: Callable[[], str]
    ) -> None:
        long, short = make_queue(), make_queue()
        transport.publish([make_message(f"l{i}", long) for i in range(10)] + [make_message("s", short)])
        fetched: list[str] = []
        while len(fetched) < 8:
            fetched += names(transport.fetch([long, short], 8 - len(fetched), PATIENCE, LONG))
        assert "s" in fetched

    def test_a_value_that_cannot_travel(self, transport: Transport, queue: str) -> None:
        with pytest.raises(EncodeError, match="bad"):
            transport.publish([make_message("m", queue, headers={"task": "t", "bad": object()})])
        assert transport.fetch([queue], 1, 0.05, LONG) == []

    def test_too_large(self, transport: Transport, queue: str) -> None:
        limit = transport.capabilities.max_bytes
        if limit is None or limit > 32_000_000:
            pytest.skip("no limit that a test could reach")
        with pytest.raises(MessageTooLarge):
            transport.publish([make_message("small", queue), make_message("large", queue, body=b"x" * (limit + 1))])
        assert transport.fetch([queue], 1, 0.05, LONG) == []

    # --- delay

    def test_an_eta_is_kept(self, transport: Transport, other: Transport, queue: str) -> None:
        self.need_delay(transport)
        due = time.time() + 0.5
        transport.publish([make_message("later", queue, eta=due), make_message("now", queue)])
        assert self.take(other, queue, 1) == ["now"]
        assert other.fetch([queue], 10, 0, LONG) == []
        [delivery] = other.fetch([queue], 10, PATIENCE, LONG)
        assert time.time() >= due
        assert delivery.message.id == "later"
        assert delivery.message.eta == pytest.approx(due, abs=0.01)

    def test_an_eta_that_is_over(self, transport: Transport, queue: str) -> None:
        transport.publish([make_message("m", queue, eta=time.time() - 10)])
        assert self.take(transport, queue, 1) == ["m"]

    def test_a_far_eta_is_not_delivered(self, transport: Transport, other: Transport, queue: str) -> None:
        self.need_delay(transport)
        far = min(86_400.0, transport.capabilities.delay)
        transport.publish([make_message("m", queue, eta=time.time() + far)])
        assert other.fetch([queue], 1, SOON, LONG) == []

    def test_a_fetch_that_waits_hears_of_an_earlier_eta(
        self, transport: Transport, other: Transport, queue: str
    ) -> None:
        self.need_delay(transport)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(other.fetch, [queue], 1, PATIENCE, LONG)
            transport.publish([make_message("m", queue, eta=time.time() + 0.2)])
            assert names(waiting.result(PATIENCE)) == ["m"]

    # --- leases

    def test_a_leased_message_is_nobody_elses(self, transport: Transport, other: Transport, queue: str) -> None:
        transport.publish([make_message("m", queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
        assert other.fetch([queue], 1, SOON, LONG) == []
        if transport.capabilities.lease == "message":
            assert time.monotonic() < delivery.deadline <= time.monotonic() + LONG

    def test_a_lease_that_ran_out_is_taken_over(self, transport: Transport, other: Transport, queue: str) -> None:
        self.need_message_leases(transport)
        transport.publish([make_message("m", queue)])
        [first] = transport.fetch([queue], 1, PATIENCE, SHORT)
        [second] = other.fetch([queue], 1, PATIENCE, LONG)
        assert second.message.id == "m"
        assert (second.deliveries, second.redelivered, second.starts) == (2, True, 0)
        assert second.token != first.token

    def test_a_lost_lease_can_do_nothing(self, transport: Transport, other: Transport, queue: str) -> None:
        self.need_message_leases(transport)
        transport.publish([make_message("m", queue)])
        [first] = transport.fetch([queue], 1, PATIENCE, SHORT)
        [second] = other.fetch([queue], 1, PATIENCE, LONG)
        for action in Action:
            settlement = Settlement(first, action, reason="late", until=time.time() + 60)
            assert transport.settle([settlement]) == [first], action
        assert transport.extend([first], LONG) == [first]
        transport.mark_started([first])
        assert other.extend([second], LONG) == []
        assert other.settle([Settlement(second, Action.REQUEUE)]) == []
        [third] = transport.fetch([queue], 1, PATIENCE, LONG)
        assert (third.deliveries, third.starts) == (3, 0)

    def test_an_extended_lease_lasts(self, transport: Transport, other: Transport, queue: str) -> None:
        self.need_message_leases(transport)
        transport.publish([make_message("m", queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, SHORT)
        assert transport.extend([delivery], LONG) == []
        assert other.fetch([queue], 1, SHORT + SOON, LONG) == []
        assert transport.settle([Settlement(delivery)]) == []

    def test_a_settled_delivery_cannot_be_settled_again(self, transport: Transport, queue: str) -> None:
        self.need_message_leases(transport)
        transport.publish([make_message("m", queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
        assert transport.settle([Settlement(delivery)]) == []
        assert transport.settle([Settlement(delivery, Action.REQUEUE)]) == [delivery]
        assert transport.fetch([queue], 1, 0.05, LONG) == []

    # --- settling

    def test_ack_deletes(self, transport: Transport, other: Transport, queue: str) -> None:
        transport.publish([make_message("m", queue)])
        transport.settle([Settlement(delivery) for delivery in transport.fetch([queue], 1, PATIENCE, LONG)])
        assert other.fetch([queue], 1, 0.05, LONG) == []
        assert other.size(queue) == QueueSize(0, 0, 0)

    def test_requeue_goes_to_the_head(self, transport: Transport, other: Transport, queue: str) -> None:
        transport.publish([make_message("a", queue), make_message("b", queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
        transport.settle([Settlement(delivery, Action.REQUEUE)])
        fetched = other.fetch([queue], 1, PATIENCE, LONG)
        assert names(fetched) == ["a"]
        assert fetched[0].redelivered

    def test_requeue_wakes_a_waiting_fetch(self, transport: Transport, other: Transport, queue: str) -> None:
        transport.publish([make_message("m", queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(other.fetch, [queue], 1, PATIENCE, LONG)
            transport.settle([Settlement(delivery, Action.REQUEUE)])
            assert names(waiting.result(PATIENCE)) == ["m"]

    @pytest.mark.parametrize("action", [Action.REQUEUE, Action.DEFER])
    def test_only_charged_deliveries_count_as_starts(self, transport: Transport, queue: str, action: Action) -> None:
        self.need_counted_starts(transport)
        if action is Action.DEFER:
            self.need_delay(transport)
        transport.publish([make_message("m", queue)])
        starts = []
        for charged in (False, True, True, False):
            [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
            starts.append(delivery.starts)
            transport.settle([Settlement(delivery, action, until=time.time() + 0.02, charged=charged)])
        assert starts == [0, 0, 1, 2]
        assert transport.fetch([queue], 1, PATIENCE, LONG)[0].deliveries == 5

    def test_a_start_counts_although_the_worker_dies(self, transport: Transport, other: Transport, queue: str) -> None:
        self.need_counted_starts(transport)
        self.need_message_leases(transport)
        transport.publish([make_message("m", queue)])
        transport.mark_started(transport.fetch([queue], 1, PATIENCE, SHORT))
        assert other.fetch([queue], 1, PATIENCE, LONG)[0].starts == 1

    @pytest.mark.parametrize("charged", [False, True])
    def test_a_start_is_charged_once(self, transport: Transport, queue: str, charged: bool) -> None:
        self.need_counted_starts(transport)
        transport.publish([make_message("m", queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
        transport.mark_started([delivery])
        transport.mark_started([delivery])
        transport.settle([Settlement(delivery, Action.REQUEUE, charged=charged)])
        assert transport.fetch([queue], 1, PATIENCE, LONG)[0].starts == int(charged)

    def test_defer(self, transport: Transport, other: Transport, queue: str) -> None:
        self.need_delay(transport)
        transport.publish([make_message("m", queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
        until = time.time() + 0.5
        assert transport.settle([Settlement(delivery, Action.DEFER, until=until)]) == []
        assert other.fetch([queue], 1, 0, LONG) == []
        [again] = other.fetch([queue], 1, PATIENCE, LONG)
        assert time.time() >= until
        assert (again.message.id, again.deliveries) == ("m", 2)

    def test_one_batch_of_everything(self, transport: Transport, other: Transport, queue: str) -> None:
        self.need_message_leases(transport)
        self.need_dead_letters(transport)
        transport.publish([make_message(name, queue) for name in ("ack", "requeue", "dead")])
        deliveries = transport.fetch([queue], 3, PATIENCE, LONG)
        lost = deliveries[0]
        transport.settle([Settlement(lost)])
        transport.publish([make_message("ack2", queue)])
        [fresh] = transport.fetch([queue], 1, PATIENCE, LONG)
        settlements = [
            Settlement(lost),
            Settlement(deliveries[1], Action.REQUEUE),
            Settlement(deliveries[2], Action.DEAD_LETTER, reason="bad"),
            Settlement(fresh),
        ]
        assert transport.settle(settlements) == [lost]
        assert names(other.fetch([queue], 10, PATIENCE, LONG)) == ["requeue"]
        assert [letter.message.id for letter in other.dead_letters(10, queue)] == ["dead"]

    # --- dead letters

    def bury(self, transport: Transport, queue: str, *ids: str) -> None:
        """Send messages and put them aside, in this order."""
        for name in ids:
            transport.publish([make_message(name, queue)])
            [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
            transport.settle([Settlement(delivery, Action.DEAD_LETTER, reason=f"because of {name}")])

    def test_a_dead_letter_is_kept_with_its_reason(self, transport: Transport, other: Transport, queue: str) -> None:
        self.need_dead_letters(transport)
        before = time.time()
        self.bury(transport, queue, "m")
        [letter] = other.dead_letters(10, queue)
        assert (letter.message.id, letter.message.body, letter.queue) == ("m", b"m", queue)
        assert (letter.reason, letter.deliveries, letter.starts) == ("because of m", 1, 0)
        assert before - 1 <= letter.died_at <= time.time() + 1
        assert other.dead_letter(letter.key) == letter
        assert other.dead_letter("m") == letter
        assert other.dead_letter("unknown") is None
        assert other.fetch([queue], 1, 0.05, LONG) == []
        assert other.size(queue) == QueueSize(0, 0, 0)

    def test_dead_letters_newest_first(self, transport: Transport, make_queue: Callable[[], str]) -> None:
        self.need_dead_letters(transport)
        queue, another = make_queue(), make_queue()
        self.bury(transport, queue, "a", "b", "c")
        self.bury(transport, another, "d")
        assert [letter.message.id for letter in transport.dead_letters(2, queue)] == ["c", "b"]
        everywhere = [letter.queue for letter in transport.dead_letters(1000)]
        assert everywhere.count(queue) == 3
        assert everywhere.count(another) == 1

    @pytest.mark.parametrize("by", ["key", "id"])
    def test_replay(self, transport: Transport, other: Transport, queue: str, by: str) -> None:
        self.need_dead_letters(transport)
        self.bury(transport, queue, "m", "stays")
        letter = transport.dead_letter("m")
        assert letter is not None
        key = letter.key if by == "key" else "m"
        assert other.replay([key, "unknown"]) == 1
        [delivery] = transport.fetch([queue], 10, PATIENCE, LONG)
        assert (delivery.message.id, delivery.message.body) == ("m", b"m")
        assert (delivery.deliveries, delivery.starts) == (1, 0)
        assert [each.message.id for each in transport.dead_letters(10, queue)] == ["stays"]
        assert other.replay([key]) == 0

    @pytest.mark.parametrize("by", ["key", "id"])
    def test_discard(self, transport: Transport, other: Transport, queue: str, by: str) -> None:
        self.need_dead_letters(transport)
        self.bury(transport, queue, "m", "stays")
        letter = transport.dead_letter("m")
        assert letter is not None
        key = letter.key if by == "key" else "m"
        assert other.discard([key, "unknown"]) == 1
        assert other.discard([key]) == 0
        assert [each.message.id for each in transport.dead_letters(10, queue)] == ["stays"]

    # --- queues and exchanges

    def test_size(self, transport: Transport, other: Transport, queue: str) -> None:
        self.need_delay(transport)
        transport.publish([make_message(f"m{i}", queue) for i in range(5)])
        transport.publish([make_message("later", queue, eta=time.time() + 60)])
        transport.fetch([queue], 2, PATIENCE, LONG)
        assert other.size(queue) == QueueSize(ready=3, delayed=1, leased=2)

    def test_purge_spares_what_is_on_lease(self, transport: Transport, other: Transport, queue: str) -> None:
        transport.publish([make_message(f"m{i}", queue) for i in range(4)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
        assert other.purge(queue) == 3
        assert other.fetch([queue], 10, 0.05, LONG) == []
        transport.settle([Settlement(delivery, Action.REQUEUE)])
        assert names(other.fetch([queue], 10, PATIENCE, LONG)) == ["m0"]

    def test_purge_takes_delayed_ones(self, transport: Transport, other: Transport, queue: str) -> None:
        self.need_delay(transport)
        transport.publish([make_message("later", queue, eta=time.time() + 0.2), make_message("now", queue)])
        assert other.purge(queue) == 2
        assert other.fetch([queue], 10, 0.2 + SOON, LONG) == []

    def test_delete(self, transport: Transport, other: Transport, make_queue: Callable[[], str]) -> None:
        queue, another = make_queue(), make_queue()
        transport.publish([make_message("a", queue), make_message("b", queue), make_message("c", another)])
        assert other.delete(queue) == 2
        assert names(transport.fetch([another], 10, PATIENCE, LONG)) == ["c"]
        transport.declare([Queue(queue)])
        assert transport.fetch([queue], 10, 0.05, LONG) == []

    def test_a_deleted_queue_is_no_longer_bound(self, transport: Transport, make_queue: Callable[[], str]) -> None:
        queue = make_queue()
        exchange = Exchange(f"{queue}-x", "fanout")
        transport.declare([Queue(queue, exchange)])
        transport.delete(queue)
        with pytest.raises(QueueNotFound):
            transport.publish([make_message("m", exchange=exchange.name)])

    def test_default_exchange(self, transport: Transport, other: Transport, queue: str) -> None:
        transport.publish([make_message("m", exchange="", routing_key=queue)])
        [delivery] = other.fetch([queue], 1, PATIENCE, LONG)
        assert (delivery.message.id, delivery.queue, delivery.message.queue) == ("m", queue, queue)

    @pytest.mark.parametrize(
        ("kind", "keys", "routing_key", "reached"),
        [
            ("direct", ["a", "b", "a"], "a", [0, 2]),
            ("fanout", ["a", "", "c"], "whatever", [0, 1, 2]),
            ("topic", ["log.*", "log.#", "*.error"], "log.error", [0, 1, 2]),
            ("topic", ["log.*", "log.#", "*.error"], "log", [1]),
        ],
    )
    def test_exchanges(
        self, transport: Transport, other: Transport, make_queue: Callable[[], str], kind: str, keys: list[str],
        routing_key: str, reached: list[int],
    ) -> None:  # fmt: skip
        queues = [make_queue() for _ in keys]
        exchange = Exchange(f"{queues[0]}-x", kind)
        declared = [Queue(queue, exchange, key) for queue, key in zip(queues, keys, strict=True)]
        transport.declare(declared)
        other.declare(declared)
        transport.publish([make_message("m", exchange=exchange.name, routing_key=routing_key)])
        for number, queue in enumerate(queues):
            wait = PATIENCE if number in reached else 0.05
            assert names(other.fetch([queue], 10, wait, LONG)) == (["m"] if number in reached else [])

    def test_headers_exchange(self, transport: Transport, other: Transport, make_queue: Callable[[], str]) -> None:
        both, either = make_queue(), make_queue()
        exchange = Exchange(f"{both}-x", "headers")
        arguments = {"format": "pdf", "size": 4}
        transport.declare([
            Queue(both, exchange, binding_arguments={"x-match": "all", **arguments}),
            Queue(either, exchange, binding_arguments={"x-match": "any", **arguments}),
        ])  # fmt: skip
        transport.publish([make_message("m1", exchange=exchange.name, headers={"task": "t", "format": "pdf"})])
        transport.publish([make_message("m2", exchange=exchange.name, headers={"task": "t", **arguments})])
        assert self.take(other, either, 2) == ["m1", "m2"]
        assert self.take(other, both, 1) == ["m2"]

    def test_a_message_that_no_queue_takes_is_refused(self, transport: Transport, queue: str) -> None:
        exchange = Exchange(f"{queue}-x", "direct")
        transport.declare([Queue(queue, exchange, "key")])
        with pytest.raises(QueueNotFound, match="other-key"):
            transport.publish([make_message("m", exchange=exchange.name, routing_key="other-key")])

    # --- broadcast

    def test_broadcast_reaches_every_subscriber_of_the_topic(self, transport: Transport, other: Transport) -> None:
        self.need_broadcast(transport)
        topic, another = f"t-{uuid.uuid4().hex}", f"t-{uuid.uuid4().hex}"
        mine, yours = transport.subscribe([topic]), other.subscribe([topic, another])
        try:
            transport.broadcast(topic, b"\x00one")
            transport.broadcast(another, b"two")
            transport.broadcast(f"{topic}-unwanted", b"never")
            transport.broadcast(topic, b"three")
            assert self.hear(mine, 2) == [(topic, b"\x00one"), (topic, b"three")]
            assert self.hear(yours, 3) == [(topic, b"\x00one"), (another, b"two"), (topic, b"three")]
            assert mine.poll(0.05) == []
        finally:
            mine.close()
            yours.close()

    def test_broadcast_keeps_nothing_for_absent_ones(self, transport: Transport, other: Transport) -> None:
        self.need_broadcast(transport)
        topic = f"t-{uuid.uuid4().hex}"
        other.subscribe([topic]).close()
        transport.broadcast(topic, b"missed")
        late = other.subscribe([topic])
        try:
            transport.broadcast(topic, b"heard")
            assert self.hear(late, 1) == [(topic, b"heard")]
        finally:
            late.close()

    def test_a_waiting_poll_is_woken(self, transport: Transport, other: Transport) -> None:
        self.need_broadcast(transport)
        topic = f"t-{uuid.uuid4().hex}"
        subscription = other.subscribe([topic])
        try:
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(subscription.poll, PATIENCE)
                transport.broadcast(topic, b"x")
                assert waiting.result(PATIENCE) == [(topic, b"x")]
        finally:
            subscription.close()

    def test_interrupt_ends_a_waiting_poll(self, transport: Transport) -> None:
        self.need_broadcast(transport)
        subscription = transport.subscribe([f"t-{uuid.uuid4().hex}"])
        try:
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(subscription.poll, 600.0)
                while not waiting.done():
                    subscription.interrupt()
                assert waiting.result() == []
        finally:
            subscription.close()

    # --- many at once, and connections

    def test_every_message_exactly_once(self, transport: Transport, other: Transport, queue: str) -> None:
        senders, each = 4, 100
        seen: list[str] = []
        finished = threading.Event()

        def send(sender: int) -> None:
            for number in range(0, each, 4):
                transport.publish([make_message(f"{sender}-{number + i}", queue) for i in range(4)])

        def receive(connection: Transport) -> None:
            while not finished.is_set():
                deliveries = connection.fetch([queue], 7, 0.1, LONG)
                assert connection.settle([Settlement(delivery) for delivery in deliveries]) == []
                seen.extend(names(deliveries))
                if len(seen) >= senders * each:
                    finished.set()

        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(send, sender) for sender in range(senders)]
            jobs += [pool.submit(receive, connection) for connection in (transport, other, transport, other)]
            for job in jobs:
                job.result(PATIENCE * 2)
        assert sorted(seen) == sorted(f"{sender}-{number}" for sender in range(senders) for number in range(each))
        assert transport.size(queue) == QueueSize(0, 0, 0)

    def test_close_and_use_again(self, transport: Transport, queue: str) -> None:
        transport.publish([make_message("a", queue)])
        transport.close()
        transport.publish([make_message("b", queue)])
        assert self.take(transport, queue, 2) == ["a", "b"]
        transport.close()
        transport.close()

    # --- committing outcomes

    def test_commit_stores_publishes_and_settles(
        self, transport: Transport, other: Transport, queue: str, store: ResultStore | None
    ) -> None:
        store = self.need_store(transport, store)
        delivery = self.leased(transport, queue, "m")
        record = Record(id=f"{queue}-m", state="SUCCESS", result=b"1", fence=(0, 1))
        assert transport.commit([Commit(Settlement(delivery), record, [make_message("next", queue)])]) == []
        assert self.stored_state(store, record.id) == "SUCCESS"
        assert names(other.fetch([queue], 10, PATIENCE, LONG)) == ["next"]
        assert other.size(queue).leased == 1

    def test_commit_of_a_lost_lease_does_nothing(
        self, transport: Transport, other: Transport, queue: str, store: ResultStore | None
    ) -> None:
        store = self.need_store(transport, store)
        self.need_message_leases(transport)
        transport.publish([make_message("lost", queue), make_message("held", queue)])
        [lost] = transport.fetch([queue], 1, PATIENCE, SHORT)
        [held] = transport.fetch([queue], 1, PATIENCE, LONG)
        assert names(other.fetch([queue], 1, PATIENCE, LONG)) == ["lost"]
        commits = [
            Commit(
                Settlement(delivery),
                Record(id=f"{queue}-{delivery.message.id}", state="SUCCESS", result=b"1"),
                [make_message(f"after-{delivery.message.id}", queue)],
            )
            for delivery in (lost, held)
        ]
        assert transport.commit(commits) == [lost]
        assert self.stored_state(store, f"{queue}-lost") is None
        assert self.stored_state(store, f"{queue}-held") == "SUCCESS"
        assert names(other.fetch([queue], 10, PATIENCE, LONG)) == ["after-held"]

    def test_commit_of_a_refused_record_settles_but_publishes_nothing(
        self, transport: Transport, other: Transport, queue: str, store: ResultStore | None
    ) -> None:
        store = self.need_store(transport, store)
        delivery = self.leased(transport, queue, "m")
        newer = Record(id=f"{queue}-m", state="FAILURE", result=b"newer", fence=(1, 1))
        store.store([newer])
        older = Record(id=f"{queue}-m", state="SUCCESS", result=b"older", fence=(0, 1))
        assert transport.commit([Commit(Settlement(delivery), older, [make_message("next", queue)])]) == []
        assert self.stored_state(store, newer.id) == "FAILURE"
        assert other.fetch([queue], 10, 0.05, LONG) == []
        assert other.size(queue) == QueueSize(0, 0, 0)

    def test_commit_without_a_record(
        self, transport: Transport, other: Transport, queue: str, store: ResultStore | None
    ) -> None:
        self.need_store(transport, store)
        delivery = self.leased(transport, queue, "m")
        assert transport.commit([Commit(Settlement(delivery), None, [make_message("next", queue)])]) == []
        assert names(other.fetch([queue], 10, PATIENCE, LONG)) == ["next"]

    def test_commit_that_cannot_publish_does_nothing(
        self, transport: Transport, queue: str, store: ResultStore | None
    ) -> None:
        store = self.need_store(transport, store)
        delivery = self.leased(transport, queue, "m")
        record = Record(id=f"{queue}-m", state="SUCCESS", result=b"1")
        bad = make_message("bad", queue, headers={"task": "t", "bad": object()})
        with pytest.raises(EncodeError):
            transport.commit([Commit(Settlement(delivery), record, [bad])])
        assert self.stored_state(store, record.id) is None
        assert transport.extend([delivery], LONG) == []

    # --- helpers

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

    def need_delay(self, transport: Transport) -> None:
        """Skip where the broker keeps no delayed messages."""
        if transport.capabilities.delay <= 0:
            pytest.skip("the broker has no delay of its own")

    def need_message_leases(self, transport: Transport) -> None:
        """Skip where leases are not per message."""
        if transport.capabilities.lease != "message":
            pytest.skip("leases are not per message")

    def need_counted_starts(self, transport: Transport) -> None:
        """Skip where starts are not counted."""
        if not transport.capabilities.counts_starts:
            pytest.skip("the broker doesn't count starts")

    def need_dead_letters(self, transport: Transport) -> None:
        """Skip where dead letters can't be listed."""
        if not transport.capabilities.dead_letters:
            pytest.skip("the broker can't list dead letters")

    def need_broadcast(self, transport: Transport) -> None:
        """Skip where there is no broadcast."""
        if not transport.capabilities.broadcast:
            pytest.skip("the broker has no broadcast")

    def need_store(self, transport: Transport, store: ResultStore | None) -> ResultStore:
        """Skip where outcomes are not committed in one step."""
        if store is None or not transport.commits_with(store):
            pytest.skip("the driver commits with no store")
        return store
