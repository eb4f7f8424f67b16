"""Executions: every message and every end of a task is an outcome that can travel; nothing is raised."""

from __future__ import annotations

import json
import logging
import pickle
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from celeriac import Celeriac, Reject, Retry, signals
from celeriac.environment import Environment
from celeriac.errors import WorkerLostError
from celeriac.execution import execute, give_up
from celeriac.hooks import Signal
from celeriac.message import Message
from celeriac.outcome import RUN, STORED, Execution, Outcome, Verdict
from celeriac.results.base import Record
from celeriac.runner.protocol import FrameReader, Kind, decode_frame, encode_frame
from tests.support.apps import memory_app, run_all, sent


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


def _message(body: Any = ((), {}, {}), task: str = "t", headers: Any = None, **fields: Any) -> Message:
    table = {"task": task, "id": "i", **(headers or {})}
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return Message(**{"id": "i", "headers": table, "body": body, "queue": "celery", **fields})


def _execute(app: Celeriac, message: Message, verdict: Verdict = RUN, deliveries: int = 1) -> Outcome:
    """Execute, and let the outcome travel as it would to the supervisor."""
    outcome = execute(Environment(app, "node@test"), Execution(7, 3, message, "celery", deliveries, verdict))
    ((kind, frame),) = FrameReader().feed(encode_frame(Kind.OUTCOME, outcome))
    travelled: Outcome = decode_frame(kind, frame)
    assert (travelled.serial, travelled.slot) == (7, 3)
    return travelled


def _value(outcome: Outcome) -> Any:
    assert outcome.record is not None
    return json.loads(outcome.record.result)


# messages


def test_a_good_message_runs(app: Celeriac) -> None:
    app.task(lambda x, y=0: x + y, name="t")
    outcome = _execute(app, _message([[1], {"y": 2}, {}]))
    assert (outcome.state, outcome.task, outcome.action, _value(outcome)) == ("SUCCESS", "t", "ack", 3)
    assert outcome.runtime > 0


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (_message(b"{"), "DecodeError"),
        (_message([1, 2]), "InvalidTaskError: the body is not"),
        (_message(pickle.dumps(((), {}, {})), content_type="application/x-python-serialize"), "ContentDisallowed"),
        (_message(headers={"id": 5}), "InvalidTaskError: header 'id' is 5, not text"),
        (_message(headers={"parent_id": []}), "InvalidTaskError: header 'parent_id' is [], not text"),
        (_message(headers={"root_id": {}}), "InvalidTaskError: header 'root_id' is {}, not text"),
        (_message(headers={"shadow": 1}), "InvalidTaskError: header 'shadow' is 1, not text"),
        (_message(headers={"retries": -1}), "InvalidTaskError: header 'retries' is -1, not a whole number from 0 up"),
        (_message(headers={"retries": 1.5}), "InvalidTaskError: header 'retries' is 1.5"),
        (_message(headers={"retries": 2**63}), "InvalidTaskError: header 'retries' is 9223372036854775808"),
        (_message(headers={"group_index": "0"}), "InvalidTaskError: header 'group_index' is '0'"),
        (_message(headers={"stamps": []}), "InvalidTaskError: header 'stamps' is [], not an object"),
        (_message(defect="broken"), "InvalidTaskError: broken"),
    ],
)
def test_a_message_that_can_not_be_read_is_a_dead_letter_and_a_failure(
    app: Celeriac, message: Message, reason: str
) -> None:
    """[B-TASK-068, B-SERIAL-002, B-SERIAL-010]"""
    outcome = _execute(app, message)
    assert (outcome.state, outcome.action) == ("FAILURE", "dead-letter")
    assert outcome.reason.startswith(reason)
    assert outcome.record is not None
    assert (outcome.record.id, outcome.record.state) == ("i", "FAILURE")
    assert _value(outcome)["exc_type"] == reason.partition(":")[0]


def test_a_message_without_id_has_nothing_to_record(app: Celeriac) -> None:
    outcome = _execute(app, _message(b"{", id="", headers={"id": None}))
    assert (outcome.action, outcome.record) == ("dead-letter", None)


def test_an_unknown_task_that_got_here_is_a_dead_letter(app: Celeriac) -> None:
    """[B-TASK-067]"""
    outcome = _execute(app, _message(task="unknown"))
    assert (outcome.state, outcome.action, _value(outcome)["exc_type"]) == ("FAILURE", "dead-letter", "NotRegistered")


def test_headers_of_older_peers_may_be_missing_or_null(app: Celeriac) -> None:
    app.task(lambda: 1, name="t")
    names = ("retries", "group", "timelimit", "root_id", "stamps", "stamped_headers", "ignore_result", "lang")
    assert _execute(app, _message(headers=dict.fromkeys(names))).state == "SUCCESS"


def test_protocol_1_is_understood(app: Celeriac) -> None:
    """[B-CALL-028]"""
    app.task(lambda x, y: x + y, name="t")
    body = {"task": "t", "id": "i", "args": [1], "kwargs": {"y": 2}, "retries": 1}
    outcome = _execute(app, Message(id="i", headers={"task": "", "x": None}, body=json.dumps(body).encode()))
    assert (outcome.state, _value(outcome)) == ("SUCCESS", 3)


@pytest.mark.parametrize(
    ("fields", "state", "action"),
    [
        ({"expires": "2020-01-01T00:00:00"}, "REVOKED", "ack"),
        ({"eta": "2999-01-01T00:00:00", "utc": True}, "PENDING", "defer"),
        ({"eta": "2020-01-01T00:00:00"}, "SUCCESS", "ack"),
        ({"eta": "tomorrow"}, "FAILURE", "dead-letter"),
    ],
)
def test_moments_of_protocol_1_are_kept(app: Celeriac, fields: dict[str, Any], state: str, action: str) -> None:
    """[B-CALL-028]"""
    app.task(lambda: 1, name="t")
    body = json.dumps({"task": "t", "id": "i", "args": [], "kwargs": {}, **fields}).encode()
    outcome = _execute(app, Message(id="i", headers={}, body=body))
    assert (outcome.state, outcome.action) == (state, action)
    assert (outcome.until is not None) is (action == "defer")


# verdicts


def test_a_decided_end_is_written_down_and_told(app: Celeriac) -> None:
    """[B-LIMIT-004]"""
    seen: list[Any] = []

    def on_failure(self: Any, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        seen.append((repr(exc), task_id, args, kwargs, self.request.id))

    task = app.task(lambda x: seen.append("ran"), name="t", on_failure=on_failure)
    errback = app.task(lambda task_id: None, name="errback")
    body = [[1], {}, {"errbacks": [dict(errback.s())]}]
    outcome = _execute(app, _message(body), Verdict("FAILURE", "TimeLimitExceeded", [5]))
    assert (outcome.state, outcome.action) == ("FAILURE", "ack")
    assert _value(outcome)["exc_type"] == "TimeLimitExceeded"
    assert seen == [("TimeLimitExceeded(5)", "i", [1], {}, "i")]
    assert [message.task for message in outcome.messages] == ["errback"]
    assert task.name == "t"


@pytest.mark.parametrize(
    ("options", "error", "action", "is_end"),
    [
        ({}, "TimeLimitExceeded", "ack", True),
        ({"acks_on_timeout": False}, "TimeLimitExceeded", "requeue", False),
        ({"acks_on_failure_or_timeout": False}, "TimeLimitExceeded", "requeue", False),
        ({"acks_on_failure_or_timeout": False, "acks_on_timeout": True}, "TimeLimitExceeded", "ack", True),
        ({"acks_on_timeout": False}, "WorkerLostError", "ack", True),
    ],
)
def test_how_a_timed_out_message_is_settled(
    app: Celeriac, options: dict[str, Any], error: str, action: str, is_end: bool
) -> None:
    """[B-ACK-005, B-ACK-006]: one that is given back has not ended, so no failure is stored."""
    app.task(lambda: 1, name="t", **options)
    outcome = _execute(app, _message(), Verdict("FAILURE", error, [5]))
    assert outcome.action == action
    assert (outcome.record is not None) is is_end


@pytest.mark.parametrize(
    ("options", "action"),
    [
        ({}, "ack"),
        ({"acks_on_failure": False}, "dead-letter"),
        ({"acks_on_failure_or_timeout": False}, "dead-letter"),
        ({"acks_on_failure_or_timeout": False, "acks_on_failure": True}, "ack"),
    ],
)
def test_how_a_failed_message_is_settled(app: Celeriac, options: dict[str, Any], action: str) -> None:
    """[B-ACK-003, B-ACK-004, B-ACK-006]"""
    app.task(lambda: 1 / 0, name="t", **options)
    outcome = _execute(app, _message())
    assert (outcome.state, outcome.action) == ("FAILURE", action)
    assert outcome.record is not None
    assert bool(outcome.reason) is (action == "dead-letter")


def test_what_is_revoked_is_recorded_and_acknowledged(app: Celeriac) -> None:
    outcome = _execute(app, _message(), Verdict("REVOKED", "TaskRevokedError", ["expired"]))
    assert (outcome.state, outcome.action, _value(outcome)["exc_message"]) == ("REVOKED", "ack", ["expired"])


def test_a_verdict_on_a_body_that_can_not_be_read_is_still_a_dead_letter(app: Celeriac) -> None:
    outcome = _execute(app, _message(b"{"), Verdict("FAILURE", "WorkerLostError", ["x"], "dead-letter", "poison"))
    assert (outcome.state, outcome.action) == ("FAILURE", "dead-letter")


@pytest.mark.parametrize("has_failed", [False, True])
def test_of_a_stored_end_only_continuations_are_made_again(app: Celeriac, has_failed: bool) -> None:
    """[B-ACK-013]"""
    app.task(lambda *args: None, name="next")
    app.task(lambda: 1 / 0 if has_failed else 5, name="t")
    link = {"task": "next", "args": [], "kwargs": {}, "options": {}}
    message = _message([[], {}, {"callbacks": [link], "errbacks": [{**link, "task": "other"}]}])
    first = _execute(app, message)
    assert first.record is not None
    app.backend.store([first.record])  # type: ignore[union-attr]
    again = _execute(app, message, Verdict(STORED), deliveries=2)
    assert (again.state, again.action, again.record) == (first.state, "ack", None)
    assert [m.id for m in again.messages] == [m.id for m in first.messages], "made again they must be the same tasks"
    assert [m.task for m in again.messages] == (["other"] if has_failed else ["next"])


# what is user code, too


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize(
    "exc",
    [
        SpeechlessError(),
        ValueError("\ud800"),
        ValueError(object()),
        ValueError(2**80, float("nan"), b"\xff"),
        Reject("\ud800"),
        Reject(SpeechlessError()),
        Retry("by hand", when=5),
        ExceptionGroup("g", [ValueError("\ud800")]),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        OSError(2, "no such file"),
        StopIteration(5),
        SystemExit(object()),
    ],
    ids=lambda exc: type(exc).__name__.encode("ascii", "replace").decode(),
)
def test_any_exception_becomes_an_outcome_that_can_travel(app: Celeriac, exc: BaseException) -> None:
    def fail() -> None:
        raise exc

    app.task(fail, name="t", acks_on_failure=False)
    outcome = _execute(app, _message())
    assert outcome.state == "FAILURE"
    assert outcome.record is not None


def test_a_callback_that_can_not_be_sent_is_the_tasks_failure(app: Celeriac) -> None:
    app.task(lambda: 1, name="t")
    outcome = _execute(app, _message([[], {}, {"callbacks": [{"task": "x", "options": {"priority": "high"}}]}]))
    assert (outcome.state, outcome.messages) == ("FAILURE", [])
    assert "priority='high'" in str(_value(outcome))


def test_an_error_callback_that_can_not_be_sent_keeps_the_message_and_the_error(app: Celeriac) -> None:
    app.task(lambda: 1 / 0, name="t")
    outcome = _execute(app, _message([[], {}, {"errbacks": [{"task": "x", "options": {"priority": "high"}}]}]))
    assert (outcome.state, outcome.action) == ("FAILURE", "dead-letter")
    assert outcome.reason.startswith("its error callbacks can't be sent")
    assert _value(outcome)["exc_type"] == "ZeroDivisionError"


def test_an_outcome_that_can_not_be_sent_can_be_given_up(app: Celeriac) -> None:
    execution = Execution(7, 3, _message(), "celery")
    outcome = give_up(Environment(app), execution, TypeError("header 'x' is no plain data"))
    assert (outcome.state, outcome.action) == ("FAILURE", "dead-letter")
    assert outcome.reason == "TypeError: header 'x' is no plain data"


def test_a_fault_of_a_hook_is_an_internal_error(app: Celeriac) -> None:
    seen: list[Any] = []

    def receive(sender: Any, task_id: str, exception: BaseException, **_: Any) -> None:
        seen.append((task_id, repr(exception)))

    signals.task_internal_error.connect(receive)
    app.task(lambda: 1, name="t", track_started=True)

    def broken(record: Record) -> None:
        raise LookupError("store_state is broken")

    outcome = execute(Environment(app, store_state=broken), Execution(1, 0, _message(), "celery"))
    assert (outcome.state, outcome.action) == ("FAILURE", "dead-letter")
    assert seen == [("i", "LookupError('store_state is broken')")]


# signals


@pytest.fixture
def told() -> Iterator[list[Any]]:
    """Signals of tasks as they come: name and what is most telling."""
    seen: list[Any] = []
    receivers = []

    def listen(signal: Signal, *names: str) -> None:
        def receive(sender: Any, **named: Any) -> None:
            seen.append((signal.name, sender.name, *(repr(named[name]) for name in names)))

        receivers.append((signal, receive))
        signal.connect(receive)

    listen(signals.task_prerun, "task_id", "args")
    listen(signals.task_postrun, "state", "retval")
    listen(signals.task_success, "result")
    listen(signals.task_failure, "exception")
    listen(signals.task_retry, "reason")
    yield seen
    for signal, receive in receivers:
        signal.disconnect(receive)


def test_signals_of_success(app: Celeriac, told: list[Any]) -> None:
    """[B-SIGNAL-006, B-SIGNAL-007]"""
    app.task(lambda: 5, name="t")
    _execute(app, _message())
    assert told == [
        ("task_prerun", "t", "'i'", "[]"),
        ("task_success", "t", "5"),
        ("task_postrun", "t", "'SUCCESS'", "5"),
    ]


def test_signals_of_failure(app: Celeriac, told: list[Any]) -> None:
    """[B-SIGNAL-006, B-SIGNAL-007]"""
    app.task(lambda: 1 / 0, name="t")
    _execute(app, _message())
    error = "ZeroDivisionError('division by zero')"
    assert told[1:] == [("task_failure", "t", error), ("task_postrun", "t", "'FAILURE'", error)]


def test_signals_of_a_retry(app: Celeriac, told: list[Any]) -> None:
    """[B-SIGNAL-006, B-SIGNAL-007]"""

    @app.task(bind=True, name="t")
    def work(self: Any) -> None:
        self.retry(exc=KeyError("k"))

    _execute(app, _message())
    assert [each[:3] for each in told[1:]] == [("task_retry", "t", "KeyError('k')"), ("task_postrun", "t", "'RETRY'")]


def test_a_receiver_that_fails_changes_nothing(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    """[B-SIGNAL-003]"""

    def broken(**_: Any) -> None:
        raise LookupError("the receiver's own")

    signals.task_prerun.connect(broken)
    app.task(lambda: 5, name="t")
    try:
        assert _execute(app, _message()).state == "SUCCESS"
    finally:
        signals.task_prerun.disconnect(broken)
    assert "the receiver's own" in caplog.text


def test_publishing_may_be_watched_and_headers_changed(app: Celeriac) -> None:
    """[B-SIGNAL-004, B-SIGNAL-005]"""
    seen: list[Any] = []

    def before(sender: str, headers: dict[str, Any], **_: Any) -> None:
        headers["tenant"] = "acme"

    def after(sender: str, headers: dict[str, Any], body: bytes, **_: Any) -> None:
        seen.append((sender, headers["tenant"], body[:4]))

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        app.send_task("t", (1,))
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    (message,) = sent(app)
    assert message.headers["tenant"] == "acme"
    assert seen == [("t", "acme", b"[[1]")]


# the rest


def test_success_is_logged_with_info_only(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    app.task(lambda: 5, name="t")
    with caplog.at_level(logging.WARNING):
        _execute(app, _message())
    assert not caplog.records
    with caplog.at_level(logging.INFO):
        _execute(app, _message())
    assert "succeeded in" in caplog.text


def test_a_message_of_another_serializer_and_compression_is_read(app: Celeriac) -> None:
    """[B-SERIAL-003, B-SERIAL-007]"""
    app.conf.accept_content = ["json", "application/x-python-serialize"]
    app.task(lambda x: x == {1, 2}, name="t", serializer="pickle", compression="gzip")
    result = app.send_task("t", ({1, 2},))
    run_all(app)
    assert result.get(timeout=1) is True


def test_tracebacks_begin_with_the_users_code(app: Celeriac) -> None:
    app.task(lambda: 1 / 0, name="t")
    outcome = _execute(app, _message())
    assert outcome.record is not None
    first_frame = (outcome.record.traceback or "").splitlines()[1]
    assert __file__ in first_frame


def test_errors_of_the_library_can_be_rebuilt(app: Celeriac) -> None:
    result = app.send_task("t", task_id=str(uuid.uuid4()))
    app.task(lambda: None, name="t")
    (message,) = sent(app)
    outcome = _execute(app, message, Verdict("FAILURE", "WorkerLostError", ["runner 5 died"]))
    assert outcome.record is not None
    app.backend.store([msgspec.structs.replace(outcome.record)])  # type: ignore[union-attr]
    with pytest.raises(WorkerLostError, match="runner 5 died"):
        result.get(timeout=1)
