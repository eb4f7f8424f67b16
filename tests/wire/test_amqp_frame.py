"""Frames that we write and read ourselves are those that pika writes and reads."""

from __future__ import annotations

import pytest

pytest.importorskip("pika")

from pika import frame, spec

from celeriac.transport.amqp_frame import publish_frames, read_deliver, settling_frames


def decoded(data: bytes) -> list[frame.Frame]:
    """Each frame, as pika reads it; nothing may remain."""
    found = []
    while data:
        size, each = frame.decode_frame(data)
        assert size, "cut off"
        found.append(each)
        data = data[size:]
    return found


def test_settling() -> None:
    wanted = b"".join([
        frame.Method(7, spec.Basic.Ack(2**40, True)).marshal(),
        frame.Method(7, spec.Basic.Ack(3, False)).marshal(),
        frame.Method(7, spec.Basic.Nack(9, False, True)).marshal(),
    ])  # fmt: skip
    assert settling_frames(7, [(2**40, True), (3, False)], [9]) == wanted


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 250])
@pytest.mark.parametrize("is_mandatory", [True, False])
def test_publishing(size: int, is_mandatory: bool) -> None:
    body, properties = bytes(range(256))[:size], spec.BasicProperties("text/plain", priority=3)
    header = frame.Header(5, size, properties).marshal()[7:-1]
    method, head, *bodies = decoded(publish_frames(5, "ex", "käy", header, body, 100, is_mandatory=is_mandatory))
    publish = method.method
    assert (method.channel_number, publish.exchange, publish.routing_key) == (5, "ex", "käy")
    assert (publish.mandatory, publish.immediate) == (is_mandatory, False)
    assert (head.body_size, head.properties) == (size, properties)
    assert [len(each.fragment) for each in bodies] == [100] * (size // 100) + ([size % 100] if size % 100 else [])
    assert b"".join(each.fragment for each in bodies) == body


@pytest.mark.parametrize("redelivered", [True, False])
def test_a_delivery(redelivered: bool) -> None:
    deliver = spec.Basic.Deliver("celeriac-1", 2**40 + 5, redelivered, "", "käy")
    data = b"before" + frame.Method(1, deliver).marshal()
    found = read_deliver(data, len(b"before") + 11)
    assert found == ("celeriac-1", 2**40 + 5, redelivered, "", "käy")
