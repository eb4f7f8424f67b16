"""What becomes of calls that have gathered, when their batch is to run."""

from __future__ import annotations

from datetime import UTC
from types import SimpleNamespace
from typing import Any

from celeriac.message import Delivery, Message
from celeriac.worker.admission import Rules
from celeriac.worker.assignment import Assignment, Batch
from celeriac.worker.gathering import together

NOW = 1_700_000_000.0
REVOKED = SimpleNamespace(is_revoked=lambda message: message.id == "revoked")
RULES = Rules(known=("index",), max_deliveries=5, unknown_delay=1.0, timezone=UTC, revoked=REVOKED)


def call(task_id: str, hard: float | None = None, **headers: Any) -> Assignment:
    message = Message(id=task_id, headers={"id": task_id, "task": "index", **headers}, body=b"")
    return Assignment(Delivery(message=message, queue="celery", token=task_id), hard=hard)


def test_calls_that_expired_or_were_revoked_meanwhile_end_apart() -> None:
    calls = [call("a"), call("late", expires="2023-11-14T22:13:19+00:00"), call("revoked"), call("b")]
    late, revoked, batch = together(calls, RULES, NOW)
    assert (late.id, late.verdict.args) == ("late", ["expired"])
    assert (revoked.id, revoked.verdict.args) == ("revoked", ["revoked"])
    assert [member.id for member in batch.members] == ["a", "b"]


def test_a_call_that_is_left_alone_is_no_batch() -> None:
    assert [type(each) for each in together([call("a"), call("revoked")], RULES, NOW)] == [Assignment, Assignment]
    assert together([call("revoked")], RULES, NOW)[0].verdict.state == "REVOKED"


def test_the_shortest_limit_of_the_calls_is_that_of_their_batch() -> None:
    [batch] = together([call("a"), call("b", 30.0), call("c", 20.0)], RULES, NOW)
    assert (batch.hard, batch.soft) == (20.0, None)


def test_taking_calls_out_of_a_batch_leaves_the_others() -> None:
    calls = [call("a"), call("b"), call("c")]
    batch = Batch(calls)
    left = batch.without(calls[:1])
    assert left is not None
    assert [member.id for member in left.members] == ["b", "c"]
    assert batch.without(calls[:2]) is calls[2]
    assert batch.without(calls) is None
