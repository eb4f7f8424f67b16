"""A bad message, or a task that misbehaves, harms nothing but itself: it ends in its named place and the worker lives on.

All tests of this module share one worker with two runners; each sends something bad and then a healthy task.
"""

from __future__ import annotations

import gzip
import json
import pickle
import re
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest

from celeriac import AsyncResult, errors
from celeriac.errors import EncodeError, MessageTooLarge, NotRegistered, TaskRevokedError, WorkerLostError
from celeriac.message import Message
from celeriac.transport.sqlite import SqliteTransport
from tests.faults.apps_b.bench import Bench, open_bench
from tests.support.files import eventually

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture(scope="module", params=["prefork", "threads"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with open_bench(tmp_path_factory.mktemp("bad")) as bench:
        bench.settings["task_unknown_delay"] = 0.1
        bench.pool = request.param  # type: ignore[attr-defined]
        worker = bench.worker("-c", "2", "-P", request.param)
        yield bench
        assert worker.returncode is None, worker.output


@pytest.fixture(autouse=True)
def _lives_on(bench: Bench) -> Iterator[None]:
    yield
    bench.assert_healthy()


def _message(
    body: Any = b"[[], {}, {}]", task: str = "echo", headers: dict[str, Any] | None = None, **fields: Any
) -> Message:
    task_id = str(uuid.uuid4())
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    table = {"task": task, "id": task_id, **(headers or {})}
    return Message(**{"id": task_id, "headers": table, "body": body, "queue": "celery", **fields})


_PICKLE = pickle.dumps(([], {}, {}))


def _assert_dead(bench: Bench, message: Message, reason: str) -> None:
    """`reason` begins with the name of the error and may go on with its text."""
    name, _, text = reason.partition(": ")
    result = bench.publish(message)
    letter = bench.wait_dead(message.id)
    assert reason in letter.reason
    assert letter.message.body == message.body
    with pytest.raises(getattr(errors, name), match=re.escape(text) if text else None):
        result.get(timeout=20)
    assert result.state == "FAILURE"


# what can't be read


@pytest.mark.parametrize("column", ["head", "body"])
@pytest.mark.parametrize("value", [b"\xc1\x00garbage", "text", b"", msgspec.msgpack.encode([1, 2, 3])])
def test_a_row_that_is_no_message_is_a_dead_letter(bench: Bench, column: str, value: Any) -> None:
    path = bench.broker_url.removeprefix("sqlite:///")
    before = len(bench.dead_letters())
    good = _message()
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        # In one transaction, so that the worker doesn't move the row meanwhile.
        transport = bench.app.transport
        assert isinstance(transport, SqliteTransport)
        transport.publish_in(connection, [msgspec.structs.replace(good, queue="aside")])
        changed = connection.execute(
            f"UPDATE celeriac_incoming SET queue = 'celery', {column} = ? WHERE queue = 'aside'",
            [value],
        )
        assert changed.rowcount == 1
        connection.commit()
    bench.send("echo")  # a change by a foreign hand wakes nobody
    eventually(lambda: len(bench.dead_letters()) == before + 1)
    assert bench.dead_letters()[0].reason


def test_a_message_without_id_is_a_dead_letter(bench: Bench) -> None:
    before = len(bench.dead_letters())
    bench.publish(_message(id=""))
    eventually(lambda: len(bench.dead_letters()) == before + 1)
    assert bench.dead_letters()[0].reason == "malformed message: it has no task id"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (_message(b"{not json"), "DecodeError"),
        (_message(b"\xff\xfe"), "DecodeError"),
        (_message(b""), "DecodeError"),
        (_message([[], {}]), "InvalidTaskError: the body is not [args, kwargs, embed], but an array of 2"),
        (_message([[], {}, {}, {}]), "InvalidTaskError: the body is not [args, kwargs, embed], but an array of 4"),
        (_message("text"), "InvalidTaskError"),
        (_message([5, {}, {}]), "InvalidTaskError: args is not an array"),
        (_message([[], [], {}]), "InvalidTaskError: kwargs is not an object"),
        (_message([[], {}, {"callbacks": ["echo"]}]), "InvalidTaskError: callbacks holds something that is not"),
        (_message(b"[" * 100_000), "DecodeError"),
        (_message(b"[[" + b"[" * 5000 + b"]" * 5000 + b"], {}, {}]"), "DecodeError"),
        (_message([[], {}, {}], task=""), "InvalidTaskError: no task"),
        (_message({"task": 5, "id": "x"}, task=""), "InvalidTaskError: the body is a mapping whose 'task' is not text"),
        (_message(headers={"retries": "many"}), "InvalidTaskError: header 'retries' is 'many', not a whole number"),
        (_message(headers={"group": 5}), "InvalidTaskError: header 'group' is 5, not text"),
        (_message(headers={"stamped_headers": "all"}), "InvalidTaskError: header 'stamped_headers' is 'all'"),
        (_message(_PICKLE, content_type="application/x-python-serialize", content_encoding="binary"), "ContentDisallowed"),
        (_message(b"[[], {}, {}]", content_type="application/x-yaml"), "ContentDisallowed"),
        (_message(content_type="application/unknown"), "ContentDisallowed"),
        (_message(content_type=""), "InvalidTaskError: the message has no content type"),
        (_message(headers={"compression": "application/x-gzip"}), "DecodeError"),
        (_message(headers={"compression": "no/such"}), "DecodeError"),
    ],
)  # fmt: skip
def test_what_a_runner_can_not_read_is_a_dead_letter_and_a_failure(bench: Bench, message: Message, reason: str) -> None:
    """[B-TASK-068, B-SERIAL-002, B-SERIAL-010]"""
    fresh = str(uuid.uuid4())  # the parameters are shared by the pools
    message = msgspec.structs.replace(message, id=fresh, headers={**message.headers, "id": fresh})
    _assert_dead(bench, message, reason)


def test_a_zip_bomb_is_not_unpacked(bench: Bench) -> None:
    bomb = gzip.compress(b"[[" + b" " * (300 << 20) + b"], {}, {}]", 9)
    assert len(bomb) < 1 << 20
    _assert_dead(bench, _message(bomb, headers={"compression": "application/x-gzip"}), "DecodeError")


@pytest.mark.parametrize("headers", [{"eta": "tomorrow"}, {"eta": 5}, {"expires": ["x"]}, {"expires": "9999999999"}])
def test_a_moment_that_is_none_is_a_dead_letter(bench: Bench, headers: dict[str, Any]) -> None:
    message = _message(headers=headers)
    bench.publish(message)
    assert "malformed message" in bench.wait_dead(message.id).reason


@pytest.mark.parametrize("limits", ["soon", [5], [1, 2, 3], ["a", "b"], [-1, -1], [float("inf"), None], {"hard": 1}])
def test_time_limits_that_make_no_sense_count_as_none(bench: Bench, limits: Any) -> None:
    message = _message([["fine"], {}, {}], headers={"timelimit": limits})
    assert bench.publish(message).get(timeout=20) == "fine"


def test_a_wrong_signature_for_the_function_is_a_failure(bench: Bench) -> None:
    result = bench.send("echo", 1, 2, 3)
    with pytest.raises(TypeError, match="takes from 0 to 1 positional arguments but 3 were given"):
        result.get(timeout=20)


def test_an_unknown_task_is_given_back_until_its_tries_are_used_up(bench: Bench) -> None:
    """[B-TASK-067]: the message is kept as a dead letter, since a worker of the next release may know the task."""
    result = bench.send("no.such.task")
    letter = bench.wait_dead(result.id)
    assert "unknown task 'no.such.task'" in letter.reason
    assert letter.deliveries == 5
    with pytest.raises(NotRegistered, match="no.such.task"):
        result.get(timeout=20)


def test_a_message_of_protocol_1_with_a_moment_waits_for_it(bench: Bench) -> None:
    """[B-CALL-028]"""
    due = time.time() + 1.0
    eta = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(due)) + f".{int(due % 1 * 1e6):06d}"
    _protocol1(bench, "timed", args=["p1", 0], eta=eta, utc=True).get(timeout=20)
    assert time.time() >= due - 0.01
    with pytest.raises(TaskRevokedError, match="expired"):
        _protocol1(bench, "echo", args=[], expires="2020-01-01T00:00:00").get(timeout=20)


def _protocol1(bench: Bench, task: str, **fields: Any) -> AsyncResult[Any]:
    task_id = str(uuid.uuid4())
    body = json.dumps({"task": task, "id": task_id, "kwargs": {}, **fields}).encode()
    return bench.publish(Message(id=task_id, headers={}, body=body, queue="celery"))


# what is too large


def test_an_argument_past_the_limit_is_refused_at_the_client(bench: Bench) -> None:
    with pytest.raises(
        MessageTooLarge, match=r"echo take 67108\d+ bytes, more than the 16777216 allowed by message_max_bytes"
    ):
        bench.send("echo", "x" * (64 << 20))


def test_a_large_argument_within_the_limit_goes_through(bench: Bench) -> None:
    text = "x" * (8 << 20)
    assert bench.send("echo", text).get(timeout=30) == text


# what a task returns and raises


def test_a_result_that_can_not_be_encoded_is_a_failure_that_names_it(bench: Bench) -> None:
    """[B-TASK-042]"""
    with pytest.raises(EncodeError, match=r"the result\['part'\]\[0\] of type object can't be serialized as json"):
        bench.send("unencodable").get(timeout=20)


@pytest.mark.parametrize(
    ("how", "name", "text"),
    [
        ("init", "StrangeError", "strange"),
        ("str", "SpeechlessError", None),
        ("local", "LocalError", "made here"),
        ("cause", "ValueError", "first"),
        ("group", "ExceptionGroup", "several"),
        ("deep", "RecursionError", "recursion"),
        ("surrogate", "ValueError", "half a pair"),
    ],
)
def test_any_exception_is_recorded(bench: Bench, how: str, name: str, text: str | None) -> None:
    """[B-RESULT-025]"""
    result = bench.send("fail", how)
    exc = result.get(timeout=20, propagate=False)
    assert result.state == "FAILURE"
    assert type(exc).__name__ == name
    if text is not None:
        assert text in str(exc)


# what a task does to its process


@pytest.mark.parametrize(
    ("how", "name"), [("sys.exit", "SystemExit"), ("interrupt", "KeyboardInterrupt"), ("generator", "GeneratorExit")]
)
def test_a_task_that_wants_to_end_the_process_fails(bench: Bench, how: str, name: str) -> None:
    result = bench.send("leave", how)
    exc = result.get(timeout=20, propagate=False)
    assert (result.state, type(exc).__name__) == ("FAILURE", name)


@pytest.mark.parametrize("how", ["close stdout", "print a lot", "handlers", "chdir", "thread", "fork"])
def test_what_a_task_does_to_its_process_does_not_harm_the_next(bench: Bench, how: str) -> None:
    results = [bench.send("abuse", how) for _ in range(2)]
    assert [result.get(timeout=20) for result in results] == [how] * 2
    after = [bench.send("say", number) for number in range(10)]
    assert [result.get(timeout=20) for result in after] == list(range(10))


def test_a_task_that_closes_everybodys_descriptors_costs_its_runner_only(bench: Bench) -> None:
    result = bench.send("abuse", "close descriptors", time_limit=20)
    with pytest.raises(WorkerLostError, match="poisonous"):
        result.get(timeout=30)
    assert "poisonous" in bench.wait_dead(result.id).reason


# what a task says about its end


def test_ignore_acknowledges_and_stores_nothing(bench: Bench) -> None:
    """[B-TASK-036]"""
    result = bench.send("end_as", "ignore", "ignored")
    bench.wait_start("ignored")
    eventually(lambda: bench.app.transport.size("celery").leased == 0)
    assert result.state == "PENDING"
    assert bench.app.transport.dead_letter(result.id) is None


def test_reject_keeps_the_message_as_a_dead_letter(bench: Bench) -> None:
    """[B-TASK-037]"""
    result = bench.send("end_as", "reject")
    assert bench.wait_dead(result.id).reason == "rejected: not here"
    assert result.get(timeout=20, propagate=False).args[0] == "not here"


def test_reject_with_requeue_delivers_again(bench: Bench) -> None:
    """[B-TASK-038]"""
    assert bench.send("end_as", "requeue").get(timeout=20) == "second delivery"


def test_requeueing_for_ever_is_bounded(bench: Bench) -> None:
    """B-TASK-038 differs on purpose: after task_max_deliveries the message is a dead letter."""
    result = bench.send("end_as", "requeue for ever", f"{bench.pool}-requeued")  # type: ignore[attr-defined]
    assert "poisonous" in bench.wait_dead(result.id).reason
    assert bench.starts()[f"{bench.pool}-requeued"] == 5  # type: ignore[attr-defined]


def test_a_retry_keeps_the_id_and_counts(bench: Bench) -> None:
    """[B-RETRY-001, B-RETRY-003, B-RETRY-005, B-RETRY-019]"""
    result: AsyncResult[Any] = bench.send("end_as", "retry")
    eventually(lambda: result.state == "RETRY")
    assert isinstance(result.result, ValueError)
    assert result.get(timeout=20) == f"{result.id} after 2"


def test_callbacks_error_callbacks_and_chains_are_sent_by_the_worker(bench: Bench) -> None:
    """[B-CALL-007, B-CALL-008, B-CALL-009, B-CALL-010]"""
    app, prefix = bench.app, bench.pool  # type: ignore[attr-defined]
    links = [app.signature("note", kwargs={"key": f"{prefix}-link{number}"}) for number in (1, 2)]
    result = bench.send("end_as", "value", link=links, link_error=app.signature("on_error", kwargs={"key": "never"}))
    for number in (1, 2):
        bench.wait_start(f"{prefix}-link{number}")
    assert result.get(timeout=20) == "value"
    children = eventually(lambda: result.children)
    assert [child.get(timeout=20) for child in children] == [["value", f"{prefix}-link{n}"] for n in (1, 2)]

    failed = bench.send(
        "end_as", "fail", link=links[0], link_error=[app.signature("on_error", kwargs={"key": f"{prefix}-e"})]
    )
    with pytest.raises(ValueError, match="fail"):
        failed.get(timeout=20)
    eventually(lambda: [mark for mark in bench.marks("ValueError") if mark.key == f"{prefix}-e"])
    assert bench.starts()[f"{prefix}-link1"] == 1
    assert not bench.marks("never")


def test_a_chain_in_the_message_goes_on_step_by_step(bench: Bench) -> None:
    signature, ids = bench.app.signature, [str(uuid.uuid4()) for _ in range(2)]
    steps = [signature("note", kwargs={"key": "step"}, options={"task_id": task_id}) for task_id in ids]
    bench.send("echo", 1, chain=steps[::-1])
    assert bench.app.AsyncResult(ids[1]).get(timeout=20) == [[1, "step"], "step"]

    ids = [str(uuid.uuid4()) for _ in range(2)]
    steps = [signature("note", kwargs={"key": "no"}, options={"task_id": task_id}) for task_id in ids]
    bench.send("end_as", "fail", chain=steps[::-1])
    for task_id in ids:
        with pytest.raises(ValueError, match="fail"):
            bench.app.AsyncResult(task_id).get(timeout=20)


def test_a_callback_that_can_not_be_sent_is_the_tasks_failure(bench: Bench) -> None:
    message = _message([["x"], {}, {"callbacks": [{"task": "echo", "options": {"countdown": "soon"}}]}])
    with pytest.raises(ValueError, match="countdown='soon'"):
        bench.publish(message).get(timeout=20)


def test_acked_early_it_is_not_run_again(bench: Bench) -> None:
    """[B-ACK-001]"""
    key = f"{bench.pool}-early"  # type: ignore[attr-defined]
    result = bench.send("die_acked_early", "x", key)
    with pytest.raises(WorkerLostError, match="exit code 9"):
        result.get(timeout=20)
    assert bench.starts()[key] == 1
    assert bench.app.transport.dead_letter(result.id) is None
