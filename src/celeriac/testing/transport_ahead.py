"""Conformance of transports to which messages can be on their way while others are made.

A driver whose capabilities tell `publishes_ahead` adds `AheadTests` to its suite.
"""

# ruff: noqa: D102 -- the names of the tests say what is promised

from __future__ import annotations

import pytest

from celeriac.errors import EncodeError
from celeriac.testing.transport_case import LONG, PATIENCE, TransportCase, make_message, names
from celeriac.transport.base import AheadTransport, Transport

__all__ = ["AheadTests"]


class AheadTests(TransportCase):
    """Publishing in two steps."""

    def test_it_can_begin_to_publish(self, transport: Transport) -> None:
        assert transport.capabilities.publishes_ahead

    def test_what_was_begun_is_there_once_it_was_waited_for(
        self, transport: AheadTransport, other: Transport, queue: str
    ) -> None:
        wait = transport.begin_publish([make_message(name, queue) for name in ("a", "b")])
        wait()
        assert names(other.fetch([queue], 10, PATIENCE, LONG)) == ["a", "b"]

    def test_other_calls_may_come_between(self, transport: AheadTransport, other: Transport, queue: str) -> None:
        first = transport.begin_publish([make_message("a", queue)])
        second = transport.begin_publish([make_message("b", queue)])
        transport.publish([make_message("c", queue)])
        second()
        first()
        assert sorted(names(other.fetch([queue], 10, PATIENCE, LONG))) == ["a", "b", "c"]

    def test_messages_for_several_queues_go_together(
        self, transport: AheadTransport, other: Transport, queue: str
    ) -> None:
        transport.begin_publish([make_message("a", queue), make_message("b", f"{queue}-2")])()
        assert names(other.fetch([queue], 10, PATIENCE, LONG)) == ["a"]
        assert names(other.fetch([f"{queue}-2"], 10, PATIENCE, LONG)) == ["b"]

    def test_what_can_not_be_written_is_refused_before_anything_is_sent(
        self, transport: AheadTransport, queue: str
    ) -> None:
        bad = make_message("bad", queue, headers={"task": "t", "bad": object()})
        with pytest.raises(EncodeError):
            transport.begin_publish([make_message("good", queue), bad])
        assert transport.size(queue).ready == 0
