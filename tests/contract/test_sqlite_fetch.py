"""In which order a fetch from SQLite takes messages that were sorted in and those that have just come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac.message import Action, Delivery, Message, Settlement
from celeriac.transport.sqlite import SqliteTransport


def _message(name: str, queue: str = "celery", **fields: Any) -> Message:
    return Message(id=name, headers={"task": "t", "id": name}, body=b"[]", queue=queue, **fields)


def _names(deliveries: list[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


@pytest.fixture
def transport(tmp_path: Path) -> Iterator[SqliteTransport]:
    transport = SqliteTransport(f"sqlite:///{tmp_path}/broker.db")
    yield transport
    transport.close()


def test_what_is_ready_goes_before_what_has_just_come_by_priority_and_age(transport: SqliteTransport) -> None:
    transport.publish([_message("a"), _message("b")])
    given_back = transport.fetch(["celery"], 1, 0, 30)
    transport.settle([Settlement(each, Action.REQUEUE) for each in given_back])
    transport.publish([_message("c"), _message("urgent", priority=9)])
    assert _names(transport.fetch(["celery"], 3, 0, 30)) == ["urgent", "a", "b"]
    assert _names(transport.fetch(["celery"], 3, 0, 30)) == ["c"]
    assert transport.size("celery").leased == 4


def test_messages_of_other_queues_that_came_earlier_are_left_for_their_workers(transport: SqliteTransport) -> None:
    transport.publish([_message(f"other{n}", "other") for n in range(5)])
    transport.publish([_message("mine"), _message("theirs", "other"), _message("mine too")])
    assert _names(transport.fetch(["celery"], 10, 0, 30)) == ["mine", "mine too"]
    assert transport.fetch(["celery"], 10, 0, 30) == []
    assert _names(transport.fetch(["other"], 4, 0, 30)) == [f"other{n}" for n in range(4)]
    assert _names(transport.fetch(["other"], 4, 0, 30)) == ["other4", "theirs"]


def test_no_more_is_taken_than_was_asked_for(transport: SqliteTransport) -> None:
    transport.publish([_message(str(n)) for n in range(7)])
    assert _names(transport.fetch(["celery"], 3, 0, 30)) == ["0", "1", "2"]
    size = transport.size("celery")
    assert (size.ready, size.leased) == (4, 3)
    assert _names(transport.fetch(["celery"], 10, 0, 30)) == ["3", "4", "5", "6"]
