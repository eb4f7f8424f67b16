"""Conformance of transports, first part: what is sent arrives once, in order, in time, and on lease until it is settled.

`testing.transports.TransportSuite` is made of it.
"""

# ruff: noqa: D102 -- the names of the tests say what is promised

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from celeriac.errors import EncodeError, MessageTooLarge
from celeriac.message import Action, Settlement
from celeriac.routing import Queue
from celeriac.testing.transport_case import (
    LARGE,
    LONG,
    PATIENCE,
    SHORT,
    SOON,
    TransportCase,
    make_message,
    names,
    needs,
)
from celeriac.transport.base import QueueSize, Transport

__all__ = ["DeliveryTests"]


class DeliveryTests(TransportCase):
    """Publish, fetch, delay, leases and settling."""

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

    @needs("priorities")
    def test_priorities(self, transport: Transport, other: Transport, queue: str) -> None:
        transport.declare([Queue(queue, max_priority=9)])
        sent = [("a", None), ("b", 9), ("c", 0), ("d", 5), ("e", 9)]
        transport.publish([make_message(name, queue, priority=priority) for name, priority in sent])
        urgent_first = {"high": ["b", "e", "d", "a", "c"], "low": ["a", "c", "d", "b", "e"]}
        assert self.take(other, queue, 5) == urgent_first[transport.capabilities.urgent]

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

    def test_a_large_message_travels_and_a_too_large_one_is_refused(self, transport: Transport, queue: str) -> None:
        limit = transport.capabilities.max_bytes
        body = b"x" * min(LARGE, limit or LARGE)
        transport.publish([make_message("large", queue, body=body)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
        assert delivery.message.body == body
        transport.settle([Settlement(delivery)])
        if limit is not None and limit <= LARGE:
            with pytest.raises(MessageTooLarge):
                transport.publish([make_message("m", queue), make_message("huge", queue, body=b"x" * (limit + 1))])
            assert transport.fetch([queue], 1, 0.05, LONG) == []

    # --- delay

    @needs("delay")
    def test_an_eta_is_kept(self, transport: Transport, other: Transport, queue: str) -> None:
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

    @needs("delay")
    def test_a_far_eta_is_not_delivered(self, transport: Transport, other: Transport, queue: str) -> None:
        far = min(86_400.0, transport.capabilities.delay)
        transport.publish([make_message("m", queue, eta=time.time() + far)])
        assert other.fetch([queue], 1, SOON, LONG) == []

    @needs("delay")
    def test_a_fetch_that_waits_hears_of_an_earlier_eta(
        self, transport: Transport, other: Transport, queue: str
    ) -> None:
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

    @needs("message leases")
    def test_a_lease_that_ran_out_is_taken_over(self, transport: Transport, other: Transport, queue: str) -> None:
        transport.publish([make_message("m", queue)])
        [first] = transport.fetch([queue], 1, PATIENCE, SHORT)
        [second] = other.fetch([queue], 1, PATIENCE, LONG)
        assert second.message.id == "m"
        assert (second.deliveries, second.redelivered, second.starts) == (2, True, 0)
        assert second.token != first.token

    @needs("message leases")
    def test_a_lost_lease_can_do_nothing(self, transport: Transport, other: Transport, queue: str) -> None:
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

    @needs("message leases")
    def test_an_extended_lease_lasts(self, transport: Transport, other: Transport, queue: str) -> None:
        transport.publish([make_message("m", queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, SHORT)
        assert transport.extend([delivery], LONG) == []
        assert other.fetch([queue], 1, SHORT + SOON, LONG) == []
        assert transport.settle([Settlement(delivery)]) == []

    @needs("message leases")
    def test_a_settled_delivery_cannot_be_settled_again(self, transport: Transport, queue: str) -> None:
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

    @needs("counted starts", "delay")
    @pytest.mark.parametrize("action", [Action.REQUEUE, Action.DEFER])
    def test_only_charged_deliveries_count_as_starts(self, transport: Transport, queue: str, action: Action) -> None:
        transport.publish([make_message("m", queue)])
        starts = []
        for charged in (False, True, True, False):
            [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
            starts.append(delivery.starts)
            transport.settle([Settlement(delivery, action, until=time.time() + 0.02, charged=charged)])
        assert starts == [0, 0, 1, 2]
        assert transport.fetch([queue], 1, PATIENCE, LONG)[0].deliveries == 5

    @needs("counted starts", "message leases")
    def test_a_start_counts_although_the_worker_dies(self, transport: Transport, other: Transport, queue: str) -> None:
        transport.publish([make_message("m", queue)])
        transport.mark_started(transport.fetch([queue], 1, PATIENCE, SHORT))
        assert other.fetch([queue], 1, PATIENCE, LONG)[0].starts == 1

    @needs("counted starts")
    @pytest.mark.parametrize("charged", [False, True])
    def test_a_start_is_charged_once(self, transport: Transport, queue: str, charged: bool) -> None:
        transport.publish([make_message("m", queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
        transport.mark_started([delivery])
        transport.mark_started([delivery])
        transport.settle([Settlement(delivery, Action.REQUEUE, charged=charged)])
        assert transport.fetch([queue], 1, PATIENCE, LONG)[0].starts == int(charged)

    @needs("delay")
    def test_defer(self, transport: Transport, other: Transport, queue: str) -> None:
        transport.publish([make_message("m", queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, LONG)
        until = time.time() + 0.5
        assert transport.settle([Settlement(delivery, Action.DEFER, until=until)]) == []
        assert other.fetch([queue], 1, 0, LONG) == []
        [again] = other.fetch([queue], 1, PATIENCE, LONG)
        assert time.time() >= until
        assert (again.message.id, again.deliveries) == ("m", 2)

    @needs("message leases", "dead letters")
    def test_one_batch_of_everything(self, transport: Transport, other: Transport, queue: str) -> None:
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
