"""Conformance of transports whose capabilities tell `hands_over`: messages that are pushed while a fetch waits.

A driver's suite of that kind adds `PushingTests`, next to `testing.transports.TransportSuite`.
"""

# ruff: noqa: D102 -- the names of the tests say what is promised

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from queue import SimpleQueue

from celeriac.message import Delivery, Settlement
from celeriac.testing.transport_case import LONG, PATIENCE, SOON, TransportCase, make_message, names
from celeriac.transport.base import PushingTransport, QueueSize, Transport

__all__ = ["PushingTests"]


class PushingTests(TransportCase):
    """A fetch that hands over what comes while it waits."""

    def test_it_can(self, transport: Transport) -> None:
        assert transport.capabilities.hands_over

    def test_each_message_is_handed_over_or_returned(
        self, transport: PushingTransport, other: Transport, queue: str
    ) -> None:
        came: list[Delivery] = []

        def hand_over(deliveries: list[Delivery]) -> bool:
            came.extend(deliveries)
            return True

        with ThreadPoolExecutor(1) as pool:
            for name in ("a", "b", "c"):
                waiting = pool.submit(transport.fetch_to, [queue], 1, PATIENCE, LONG, hand_over)
                other.publish([make_message(name, queue)])
                came += waiting.result(2 * PATIENCE)
                assert names(came)[-1] == name
        assert [each.queue for each in came] == [queue] * 3
        assert transport.settle([Settlement(each) for each in came]) == []
        assert other.size(queue) == QueueSize(0, 0, 0)

    def test_it_brings_no_more_than_the_limit(self, transport: PushingTransport, other: Transport, queue: str) -> None:
        came: list[Delivery] = []

        def hand_over(deliveries: list[Delivery]) -> bool:
            came.extend(deliveries)
            return True

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(transport.fetch_to, [queue], 2, PATIENCE, LONG, hand_over)
            other.publish([make_message(str(number), queue) for number in range(5)])
            returned = waiting.result(2 * PATIENCE)
        assert 1 <= len(came) + len(returned) <= 2
        rest = 5 - len(came) - len(returned)
        found: list[Delivery] = []
        while len(found) < rest and (more := transport.fetch([queue], 10, PATIENCE, LONG)):
            found += more
        assert sorted(names([*came, *returned, *found])) == ["0", "1", "2", "3", "4"]

    def test_it_returns_when_it_is_told_not_to_go_on(
        self, transport: PushingTransport, other: Transport, queue: str
    ) -> None:
        came: list[Delivery] = []

        def hand_over(deliveries: list[Delivery]) -> bool:
            came.extend(deliveries)
            return False

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(transport.fetch_to, [queue], 100, 20 * PATIENCE, LONG, hand_over)
            other.publish([make_message("m", queue)])
            returned = waiting.result(PATIENCE)
        assert names(came + returned) == ["m"]

    def test_interrupt_ends_it_after_something_was_handed_over(
        self, transport: PushingTransport, other: Transport, queue: str
    ) -> None:
        came: SimpleQueue[str] = SimpleQueue()

        def hand_over(deliveries: list[Delivery]) -> bool:
            for name in names(deliveries):
                came.put(name)
            return True

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(transport.fetch_to, [queue], 100, 20 * PATIENCE, LONG, hand_over)
            other.publish([make_message("m", queue)])
            handed = [came.get(timeout=PATIENCE)] if not wait([waiting], SOON).done else []
            transport.interrupt()
            returned = waiting.result(PATIENCE)
        assert handed + names(returned) == ["m"]
