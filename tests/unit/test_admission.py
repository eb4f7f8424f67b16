"""Admission: what becomes of a message that has just come, decided by its headers alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from celeriac.message import Delivery, Message
from celeriac.outcome import RUN
from celeriac.results.base import Record
from celeriac.results.open import open_store
from celeriac.worker.admission import Admission, Decision, Rules, admit

NOW = datetime(2030, 6, 1, 12, tzinfo=UTC).timestamp()
RULES = Rules(known={"add": None}, max_deliveries=5, unknown_delay=10.0, timezone=UTC)


def _admit(
    headers: Any = None, *, deliveries: int = 1, starts: int = 0, stored: str = "", rules: Rules = RULES, **fields: Any
) -> Admission:
    message = Message(**{"id": "i", "headers": {"task": "add", **(headers or {})}, "body": b"", **fields})
    record = Record(id="i", state=stored, result=b"") if stored else None
    delivery = Delivery(message=message, queue="q", token=1, deliveries=deliveries, starts=starts)
    return admit(delivery, rules, NOW, record)


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat()


def test_a_good_message_runs() -> None:
    assert _admit() == Admission(Decision.RUN, RUN)


def test_one_of_protocol_1_is_left_to_the_runner() -> None:
    """[B-CALL-028]"""
    assert _admit(headers={"task": None}) == Admission(Decision.RUN, RUN)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id": "", "defect": "unreadable head"}, "malformed message: unreadable head"),
        ({"id": ""}, "malformed message: it has no task id"),
        ({"headers": ["no", "mapping"]}, "malformed message: it has no task id"),
    ],
)
def test_malformed_messages_are_dead(fields: dict[str, Any], reason: str) -> None:
    """[B-TASK-068]"""
    message = Message(**{"id": "i", "headers": {"task": "add"}, "body": b"", **fields})
    admission = admit(Delivery(message=message, queue="q", token=1), RULES, NOW)
    assert (admission.decision, admission.reason) == (Decision.DEAD, reason)


@pytest.mark.parametrize("header", ["eta", "expires"])
@pytest.mark.parametrize("value", ["tomorrow", 5, ["x"], {}, True])
def test_a_moment_that_is_none_is_dead(header: str, value: Any) -> None:
    admission = _admit({header: value})
    assert_ends_as_malformed(admission)
    assert "is not a date in ISO 8601" in admission.verdict.reason


def test_the_task_of_a_malformed_message_ends_as_failed_if_its_id_can_be_read() -> None:
    assert_ends_as_malformed(_admit(defect="the body is no base64"))


def assert_ends_as_malformed(admission: Admission) -> None:
    verdict = admission.verdict
    assert (admission.decision, verdict.state, verdict.error) == (Decision.RUN, "FAILURE", "InvalidTaskError")
    assert (verdict.action, verdict.reason.startswith("malformed message: ")) == ("dead-letter", True)


@pytest.mark.parametrize("value", [None, ""])
def test_no_moment_is_no_moment(value: Any) -> None:
    assert _admit({"eta": value, "expires": value}).decision is Decision.RUN


def test_what_has_expired_is_revoked() -> None:
    """[B-CALL-004]"""
    verdict = _admit({"expires": _at(-1)}).verdict
    assert (verdict.state, verdict.error, verdict.args, verdict.action) == (
        "REVOKED",
        "TaskRevokedError",
        ["expired"],
        "ack",
    )
    assert _admit({"expires": _at(0)}).verdict.state == "REVOKED"
    assert _admit({"expires": _at(1)}).verdict is RUN


def test_what_is_not_due_goes_back_until_then() -> None:
    """[B-ACK-016]"""
    admission = _admit({"eta": _at(60)})
    assert (admission.decision, admission.until, admission.charged) == (Decision.DEFER, NOW + 60, False)
    assert _admit({"eta": _at(0)}).decision is Decision.RUN


def test_a_moment_without_offset_is_in_the_apps_time_zone() -> None:
    """[B-CALL-003]"""
    zone = timezone(timedelta(hours=2))
    rules = Rules(known={"add": None}, max_deliveries=5, unknown_delay=10.0, timezone=zone)
    assert _admit({"eta": "2030-06-01T14:30:00"}, rules=rules).until == NOW + 1800
    assert _admit({"eta": "2030-06-01T13:30:00"}, rules=rules).decision is Decision.RUN


def test_an_unknown_task_is_given_back_and_charged() -> None:
    """[B-TASK-067]"""
    admission = _admit({"task": "new"})
    assert (admission.decision, admission.until, admission.charged) == (Decision.DEFER, NOW + 10, True)
    assert admission.reason == "unknown task 'new'"


def test_an_unknown_task_whose_tries_are_used_up_is_dead_and_a_failure() -> None:
    """[B-TASK-067]"""
    verdict = _admit({"task": "new"}, deliveries=5, starts=4).verdict
    assert (verdict.state, verdict.error, verdict.args) == ("FAILURE", "NotRegistered", ["new"])
    assert verdict.action == "dead-letter"


@pytest.mark.parametrize(("deliveries", "starts"), [(6, 5), (101, 0)])
def test_what_kills_its_runner_again_and_again_is_poison(deliveries: int, starts: int) -> None:
    verdict = _admit(deliveries=deliveries, starts=starts).verdict
    assert (verdict.state, verdict.error, verdict.action) == ("FAILURE", "WorkerLostError", "dead-letter")
    assert verdict.reason.startswith("poisonous")
    assert _admit(deliveries=deliveries - 1, starts=max(0, starts - 1)).verdict is RUN


@pytest.mark.parametrize("deliveries", [1, 2])
def test_what_was_revoked_before_it_ran_ends_as_revoked(deliveries: int) -> None:
    """Whoever has to know, a chord for one, is told by the runner that writes it down."""
    assert _admit(deliveries=deliveries, stored="REVOKED").verdict.state == "REVOKED"


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE"])
def test_what_has_ended_is_not_run_again(state: str) -> None:
    """[B-ACK-013]"""
    assert _admit(deliveries=2, stored=state).verdict.state == "STORED"


@pytest.mark.parametrize(("deliveries", "state"), [(1, "SUCCESS"), (2, "STARTED"), (2, "RETRY"), (2, "PROGRESS")])
def test_what_has_not_ended_or_was_not_delivered_before_is_run(deliveries: int, state: str) -> None:
    assert _admit(deliveries=deliveries, stored=state).verdict is RUN


def test_poison_counts_more_than_a_stored_state() -> None:
    assert _admit(deliveries=6, starts=5, stored="STARTED").verdict.error == "WorkerLostError"


@pytest.mark.behaviour("B-ACK-014")
def test_a_store_that_keeps_nothing_spares_no_second_run() -> None:
    """Results that are sent to their client are not here to be looked up, so what is delivered again runs again."""
    store = open_store("rpc://", {}, {"broker_write_url": "amqp://127.0.0.1:1", "result_serializer": "json"})
    delivery = Delivery(message=Message(id="i", headers={"task": "add"}, body=b""), queue="q", token=1, deliveries=2)
    assert admit(delivery, RULES, NOW, store.get(["i"])[0]).verdict is RUN
