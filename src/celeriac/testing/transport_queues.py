"""Conformance of transports, second part: dead letters, queues, exchanges, broadcasts, many threads at once.

`testing.transports.TransportSuite` is made of it.
"""

# ruff: noqa: D102 -- the names of the tests say what is promised

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from celeriac.errors import QueueNotFound
from celeriac.message import Action, ControlMessage, Settlement
from celeriac.routing import Broadcast, Exchange, Queue, binding, copy_of
from celeriac.testing.transport_case import LONG, PATIENCE, SOON, TransportCase, make_message, names, needs
from celeriac.transport.base import Box, Mailbox, QueueSize, Transport

__all__ = ["QueueTests"]


class QueueTests(TransportCase):
    """Dead letters, queues, exchanges and broadcasts."""

    # --- dead letters

    @needs("dead letters")
    def test_a_dead_letter_is_kept_with_its_reason(self, transport: Transport, other: Transport, queue: str) -> None:
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

    @needs("dead letters")
    def test_dead_letters_newest_first(self, transport: Transport, make_queue: Callable[[], str]) -> None:
        queue, another = make_queue(), make_queue()
        self.bury(transport, queue, "a", "b", "c")
        self.bury(transport, another, "d")
        assert [letter.message.id for letter in transport.dead_letters(2, queue)] == ["c", "b"]
        everywhere = [letter.queue for letter in transport.dead_letters(1000)]
        assert everywhere.count(queue) == 3
        assert everywhere.count(another) == 1

    @needs("dead letters")
    @pytest.mark.parametrize("by", ["key", "id"])
    def test_replay(self, transport: Transport, other: Transport, queue: str, by: str) -> None:
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

    @needs("dead letters")
    @pytest.mark.parametrize("by", ["key", "id"])
    def test_discard(self, transport: Transport, other: Transport, queue: str, by: str) -> None:
        self.bury(transport, queue, "m", "stays")
        letter = transport.dead_letter("m")
        assert letter is not None
        key = letter.key if by == "key" else "m"
        assert other.discard([key, "unknown"]) == 1
        assert other.discard([key]) == 0
        assert [each.message.id for each in transport.dead_letters(10, queue)] == ["stays"]

    # --- queues and exchanges

    @needs("delay")
    def test_size(self, transport: Transport, other: Transport, queue: str) -> None:
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

    @needs("delay")
    def test_purge_takes_delayed_ones(self, transport: Transport, other: Transport, queue: str) -> None:
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

    def test_a_queue_may_have_several_bindings(
        self, transport: Transport, other: Transport, make_queue: Callable[[], str]
    ) -> None:
        queue = make_queue()
        topic, direct = Exchange(f"{queue}-t", "topic"), Exchange(f"{queue}-d")
        bindings = [binding(topic, "a.*"), binding(topic, "*.b"), binding(direct, "key")]
        transport.declare([Queue(queue, bindings=bindings)])  # type: ignore[arg-type]  # any sequence will do
        for name, exchange, key in (("m1", topic, "a.x"), ("m2", topic, "a.b"), ("m3", direct, "key")):
            transport.publish([make_message(name, exchange=exchange.name, routing_key=key)])
        transport.publish([make_message("m4", queue)])
        assert self.take(other, queue, 4) == ["m1", "m2", "m3", "m4"]
        assert other.fetch([queue], 10, 0.05, LONG) == []

    def test_a_broadcast_reaches_all_copies_that_there_are(self, transport: Transport, other: Transport) -> None:
        news = Broadcast(f"news-{uuid.uuid4().hex}")
        transport.declare([news])
        transport.publish([make_message("nobody", exchange=news.exchange.name)])
        mine, yours = copy_of(news), copy_of(news)
        try:
            other.declare([news, mine, yours])
            transport.publish([make_message("both", exchange=news.exchange.name)])
            assert self.take(other, mine.name, 1) == ["both"]
            assert self.take(other, yours.name, 1) == ["both"]
            other.delete(mine.name)
            transport.publish([make_message("one", exchange=news.exchange.name)])
            assert self.take(other, yours.name, 1) == ["one"]
            assert other.size(mine.name) == QueueSize(0, 0, 0)
        finally:
            other.delete(mine.name)
            other.delete(yours.name)

    def test_a_copy_expires_with_what_is_in_it(self, transport: Transport, other: Transport) -> None:
        news = Broadcast(f"news-{uuid.uuid4().hex}", expires=0.4)
        forgotten, kept = copy_of(news), copy_of(news)
        try:
            transport.declare([news, forgotten])
            transport.publish([make_message("m", exchange=news.exchange.name)])
            deadline = time.monotonic() + PATIENCE
            while transport.size(forgotten.name).ready:
                assert time.monotonic() < deadline, "it stays"
                time.sleep(0.5)  # some brokers take a look for a sign of life
                other.declare([kept])
            transport.publish([make_message("late", exchange=news.exchange.name)])
            assert transport.size(forgotten.name).ready == 0
        finally:
            for queue in (forgotten, kept):
                other.delete(queue.name)

    def test_a_message_that_no_queue_takes_is_refused(self, transport: Transport, queue: str) -> None:
        exchange = Exchange(f"{queue}-x", "direct")
        transport.declare([Queue(queue, exchange, "key")])
        with pytest.raises(QueueNotFound, match="other-key"):
            transport.publish([make_message("m", exchange=exchange.name, routing_key="other-key")])

    def test_a_message_without_any_destination_is_refused(self, transport: Transport) -> None:
        with pytest.raises(QueueNotFound, match="lost-one"):
            transport.publish([make_message("lost-one")])

    # --- broadcast

    @needs("broadcast")
    def test_broadcast_reaches_every_subscriber_of_the_topic(self, transport: Transport, other: Transport) -> None:
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

    @needs("broadcast")
    def test_broadcast_keeps_nothing_for_absent_ones(self, transport: Transport, other: Transport) -> None:
        topic = f"t-{uuid.uuid4().hex}"
        other.subscribe([topic]).close()
        transport.broadcast(topic, b"missed")
        late = other.subscribe([topic])
        try:
            transport.broadcast(topic, b"heard")
            assert self.hear(late, 1) == [(topic, b"heard")]
        finally:
            late.close()

    @needs("broadcast")
    def test_a_waiting_poll_is_woken(self, transport: Transport, other: Transport) -> None:
        topic = f"t-{uuid.uuid4().hex}"
        subscription = other.subscribe([topic])
        try:
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(subscription.poll, PATIENCE)
                transport.broadcast(topic, b"x")
                assert waiting.result(PATIENCE) == [(topic, b"x")]
        finally:
            subscription.close()

    @needs("broadcast")
    def test_interrupt_ends_a_waiting_poll(self, transport: Transport) -> None:
        subscription = transport.subscribe([f"t-{uuid.uuid4().hex}"])
        try:
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(subscription.poll, 600.0)
                while not waiting.done():
                    subscription.interrupt()
                assert waiting.result() == []
        finally:
            subscription.close()

    # --- control messages

    def receive(self, mailbox: Mailbox, count: int) -> list[ControlMessage]:
        """The next `count` control messages."""
        received: list[ControlMessage] = []
        while len(received) < count:
            messages = mailbox.receive(PATIENCE)
            assert messages, f"only {received} came"
            received += messages
        return received

    @needs("broadcast")
    def test_a_control_message_reaches_every_box_of_the_exchange(self, transport: Transport, other: Transport) -> None:
        name = uuid.uuid4().hex
        exchange = f"{name}.pidbox"
        mine = transport.open_mailbox(Box(name=f"a@{name}", exchange=exchange))
        yours = other.open_mailbox(Box(name=f"b@{name}", exchange=exchange))
        message = ControlMessage(body=b'{"method": "ping"}', headers={"clock": 7, "expires": 1.5})
        try:
            transport.post(ControlMessage(body=b"{}"), f"other-{exchange}")
            transport.post(message, exchange)
            assert self.receive(mine, 1) == [message]
            assert self.receive(yours, 1) == [message]
            assert mine.receive(0.05) == []
        finally:
            mine.close()
            yours.close()

    @needs("broadcast")
    def test_a_control_message_with_a_key_reaches_its_box_only(self, transport: Transport, other: Transport) -> None:
        name = uuid.uuid4().hex
        exchange = f"reply.{name}.pidbox"
        box = transport.open_mailbox(Box(name=f"one.{exchange}", exchange=exchange, key="one"))
        another = other.open_mailbox(Box(name=f"two.{exchange}", exchange=exchange, key="two"))
        answers = [ControlMessage(body=b"%d" % n, headers={"ticket": name, "clock": n}) for n in range(3)]
        try:
            other.post(ControlMessage(body=b"lost"), exchange, "nobody")
            for answer in answers:
                other.post(answer, exchange, "one")
            assert self.receive(box, 3) == answers
            assert another.receive(0.05) == []
        finally:
            box.close()
            another.close()
        other.post(answers[0], exchange, "one")  # nobody waits for it any more

    @needs("broadcast")
    def test_interrupt_ends_a_waiting_receive(self, transport: Transport) -> None:
        name = uuid.uuid4().hex
        for key in ("", "mine"):
            mailbox = transport.open_mailbox(Box(name=f"{key}.{name}", exchange=f"{key}.{name}.pidbox", key=key))
            try:
                with ThreadPoolExecutor(1) as pool:
                    waiting = pool.submit(mailbox.receive, 600.0)
                    while not waiting.done():
                        mailbox.interrupt()
                    assert waiting.result() == []
            finally:
                mailbox.close()

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
