"""Calling options: what becomes of them in the message, which rank they have, and what is refused."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import EncodeError, ImproperlyConfigured, MessageTooLarge, OperationalError, QueueNotFound
from celeriac.message import Message
from celeriac.options import COPIED, KNOWN
from celeriac.task_limits import mark_of
from celeriac.wire.messages import TaskCall
from tests.support.apps import memory_app, run_all, sent
from tests.support.flaky import Faults, FlakyTransport


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


def _message(app: Celeriac, *queues: str, **options: Any) -> Message:
    """The message of `add(1, y=2)` with these options."""
    add = app.tasks.get("add") or app.task(lambda x, y=0: x + y, name="add")
    add.apply_async((1,), {"y": 2}, **options)
    (message,) = sent(app, *queues)
    return message


# form


def test_delay_is_apply_async(app: Celeriac) -> None:
    """[B-CALL-001]"""
    add = app.task(lambda x, y=0: x + y, name="add")
    add.delay(1, y=2)
    add.apply_async((1,), {"y": 2})
    one, other = sent(app)
    assert one.body == other.body
    assert {**one.headers, "id": "", "root_id": ""} == {**other.headers, "id": "", "root_id": ""}


def test_the_form_is_protocol_2(app: Celeriac) -> None:
    """[B-CALL-024, B-CALL-025, B-CALL-026, B-CALL-027]"""
    message = _message(app)
    assert set(message.headers) == {
        "lang", "task", "id", "root_id", "parent_id", "group", "group_index", "eta", "expires", "retries", "timelimit",
        "shadow", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers",
        "stamps",
    }  # fmt: skip
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    assert json.loads(message.body) == [[1], {"y": 2}, embed]
    assert message.headers["id"] == message.id
    assert message.headers["lang"] == "py"
    assert (message.headers["argsrepr"], message.headers["kwargsrepr"]) == ("(1,)", "{'y': 2}")


def test_the_form_can_be_protocol_1() -> None:
    """[B-CALL-028]"""
    app = memory_app(task_protocol=1)
    result = app.task(lambda x: x + 1, name="inc").delay(1)
    (message,) = sent(app)
    assert message.headers == {}
    assert json.loads(message.body)["task"] == "inc"
    app.transport.publish([message])
    assert [outcome.state for outcome in run_all(app)] == ["SUCCESS"]
    assert result.get(timeout=1) == 2


def test_every_option_that_is_copied_is_known_and_a_field_of_the_call() -> None:
    assert set(COPIED) <= KNOWN
    assert set(COPIED) <= set(TaskCall.__struct_fields__)


# moments


def test_countdown_is_a_moment_from_now(app: Celeriac) -> None:
    """[B-CALL-002]"""
    before = datetime.now(UTC)
    app.task(lambda: None, name="t").apply_async(countdown=60)
    assert sent(app) == []
    assert app.transport.size("celery").delayed == 1
    message = app.prepare("t", (), {}, None, None, None, None, None, {"countdown": 60})[0]
    eta = datetime.fromisoformat(message.headers["eta"])
    assert before + timedelta(seconds=60) <= eta <= datetime.now(UTC) + timedelta(seconds=60)
    assert message.eta == pytest.approx(eta.timestamp())


@pytest.mark.parametrize(
    ("eta", "expected"),
    [
        (datetime(2030, 1, 1, 12, tzinfo=UTC), datetime(2030, 1, 1, 12, tzinfo=UTC)),
        (datetime(2030, 1, 1, 12), datetime(2030, 1, 1, 11, tzinfo=UTC)),
        ("2030-01-01T12:00:00", datetime(2030, 1, 1, 11, tzinfo=UTC)),
        ("2030-01-01T12:00:00+00:00", datetime(2030, 1, 1, 12, tzinfo=UTC)),
    ],
)
def test_a_naive_eta_is_in_the_apps_time_zone(eta: Any, expected: datetime) -> None:
    """[B-CALL-003]"""
    app = memory_app(timezone="Europe/Paris")
    message = app.prepare("t", (), {}, None, None, None, None, None, {"eta": eta})[0]
    assert message.eta == expected.timestamp()


def test_expires_is_seconds_from_now_or_a_moment(app: Celeriac) -> None:
    """[B-CALL-004]"""
    before = datetime.now(UTC).timestamp()
    assert before + 9 < (_message(app, expires=10).expires_at or 0) < before + 60
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    message = _message(app, expires=moment)
    assert (message.expires_at, message.headers["expires"]) == (moment.timestamp(), moment.isoformat())
    app.task(lambda x, y=0: None, name="own", expires=moment).delay(1)
    assert sent(app)[0].expires_at == moment.timestamp()


def test_what_has_expired_already_is_sent_with_a_warning(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    """[B-CALL-005]"""
    message = _message(app, expires=-1)
    assert message.expires_at is not None
    assert "it will not be run" in caplog.text


# ids, links, properties


def test_the_id_can_be_given(app: Celeriac) -> None:
    """[B-CALL-006]"""
    assert _message(app, task_id="my id").id == "my id"
    given = uuid.uuid4()
    assert _message(app, task_id=given).id == str(given)


def test_links_are_run_with_what_the_task_returns(app: Celeriac) -> None:
    """[B-CALL-007, B-CALL-009, B-CALL-010]"""
    seen: list[Any] = []
    note = app.task(lambda *args: seen.append(args), name="note")
    add = app.task(lambda x, y: x + y, name="add")
    fail = app.task(lambda: 1 / 0, name="fail")
    result = add.apply_async((1, 2), link=[note.s(10), note.s(20)])
    add.apply_async((3, 4), link=note.si("alone"))
    fail.apply_async(link=note.s())
    run_all(app)
    assert sorted(seen, key=str) == sorted([(3, 10), (3, 20), ("alone",)], key=str)
    assert result.children is not None
    assert len(result.children) == 2


def test_error_callbacks_take_the_documented_arguments_or_the_id(app: Celeriac) -> None:
    """[B-CALL-008, B-CALL-009]"""
    seen: list[Any] = []

    @app.task(name="full")
    def full(request: Any, exc: BaseException, traceback: str, extra: int = 0) -> None:
        seen.append((request.id, request.task, repr(exc), "Traceback" in traceback, extra))

    @app.task(name="old")
    def old(task_id: str) -> None:
        seen.append(task_id)

    fail = app.task(lambda: 1 / 0, name="fail")
    result = fail.apply_async(link_error=[full.s(), full.s(extra=5), old.s()])
    run_all(app)
    described = result.id, "fail", "ZeroDivisionError('division by zero')", True
    assert seen == [(*described, 0), (*described, 5), result.id]


def test_an_error_callback_that_fails_is_logged(app: Celeriac, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(name="broken")
    def broken(request: Any, exc: Any, traceback: Any) -> None:
        raise LookupError("the callback's own")

    result = app.task(lambda: 1 / 0, name="fail").apply_async(link_error=broken.s())
    run_all(app)
    assert isinstance(result.get(timeout=1, propagate=False), ZeroDivisionError)
    assert "the callback's own" in caplog.text


def test_other_keywords_become_properties(app: Celeriac) -> None:
    """[B-CALL-019]"""
    assert _message(app, MessageGroupId="g", app_id="shop").properties == {"MessageGroupId": "g", "app_id": "shop"}
    assert _message(app).properties == {}


def test_a_slip_in_the_name_of_an_option_is_told(app: Celeriac) -> None:
    for slip, option in (
        ("contdown", "countdown"),
        ("expire", "expires"),
        ("timelimit", "time_limit"),
        ("header", "headers"),
    ):
        with pytest.raises(TypeError, match=rf"'{slip}' is no option of apply_async. Did you mean '{option}'\?"):
            _message(app, **{slip: 5})
    assert _message(app, expiration="5000", tenant_id="t", header="stamp", stamped_headers=["header"]).properties == {
        "expiration": "5000",
        "tenant_id": "t",
    }


def test_stamps_travel_in_headers(app: Celeriac) -> None:
    message = _message(app, stamped_headers=["monitor"], monitor=["a"])
    assert message.headers["stamped_headers"] == ["monitor"]
    assert message.headers["stamps"] == {"monitor": ["a"]}
    assert message.properties == {}


# ranks


@pytest.mark.parametrize(
    ("setting", "option", "call", "expected"),
    [
        ("msgpack", None, None, "application/x-msgpack"),
        ("msgpack", "yaml", None, "application/x-yaml"),
        ("msgpack", "yaml", "json", "application/json"),
    ],
)
def test_the_rank_of_serializers(setting: str, option: str | None, call: str | None, expected: str) -> None:
    """[B-CALL-014]"""
    app = memory_app(task_serializer=setting)
    app.task(lambda x, y=0: None, name="add", **({"serializer": option} if option else {}))
    assert _message(app, **({"serializer": call} if call else {})).content_type == expected


@pytest.mark.parametrize(
    ("setting", "option", "call", "expected"),
    [
        ("gzip", None, None, "application/x-gzip"),
        ("gzip", "bzip2", None, "application/x-bz2"),
        ("gzip", "bzip2", "gzip", "application/x-gzip"),
    ],
)
def test_the_rank_of_compressions(setting: str, option: str | None, call: str | None, expected: str) -> None:
    """[B-CALL-015]"""
    app = memory_app(task_compression=setting)
    app.task(lambda x, y=0: None, name="add", **({"compression": option} if option else {}))
    assert _message(app, **({"compression": call} if call else {})).headers["compression"] == expected


@pytest.mark.parametrize(
    ("setting", "option", "route", "call", "expected"),
    [(1, None, None, None, 1), (1, None, 2, None, 2), (1, 3, 2, None, 3), (1, 3, 2, 4, 4), (1, 3, 2, 0, 0)],
)
def test_the_rank_of_priorities(setting: int, option: Any, route: Any, call: Any, expected: int) -> None:
    """[B-CALL-021, B-ROUTE-010]"""
    routes = {"add": {"priority": route}} if route is not None else None
    app = memory_app(task_default_priority=setting, task_routes=routes)
    app.task(lambda x, y=0: None, name="add", **({} if option is None else {"priority": option}))
    assert _message(app, **({} if call is None else {"priority": call})).priority == expected


@pytest.mark.parametrize(
    ("option", "call", "expected"), [(None, None, False), (1, None, True), ("transient", 2, False)]
)
def test_the_rank_of_delivery_modes(app: Celeriac, option: Any, call: Any, expected: bool) -> None:
    """[B-ROUTE-026]"""
    app.task(lambda x, y=0: None, name="add", **({} if option is None else {"delivery_mode": option}))
    assert _message(app, **({} if call is None else {"delivery_mode": call})).transient is expected


# sending by name


def test_send_task_sends_what_is_not_registered(app: Celeriac) -> None:
    """[B-CALL-016]"""
    result = app.send_task("far.away", (1,), {"y": 2}, task_id="x", priority=3)
    (message,) = sent(app)
    assert (message.task, message.id, message.priority, result.id) == ("far.away", "x", 3, "x")


def test_send_task_takes_options_of_a_task_that_is_registered(app: Celeriac) -> None:
    """[B-CALL-017]"""
    app.task(lambda: None, name="here", serializer="yaml", queue="own", priority=4)
    app.send_task("here")
    (message,) = sent(app, "own")
    assert (message.content_type, message.priority) == ("application/x-yaml", 4)


# refusals


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"priority": "high"}, ValueError, "priority='high' is not a whole number from 0 to 255"),
        ({"priority": 256}, ValueError, "priority=256 is not"),
        ({"priority": True}, ValueError, "priority=True is not"),
        ({"time_limit": "5"}, ValueError, "time_limit='5' is not a number of seconds above 0"),
        ({"soft_time_limit": 0}, ValueError, "soft_time_limit=0 is not a number of seconds above 0"),
        ({"time_limit": 1, "soft_time_limit": 2}, ValueError, r"soft_time_limit \(2\) must not be above time_limit \(1\)"),
        ({"countdown": "soon"}, ValueError, "countdown='soon' is not a number of seconds"),
        ({"countdown": timedelta(seconds=5)}, ValueError, "countdown=.* is not a number of seconds"),
        ({"eta": "tomorrow"}, ValueError, "eta='tomorrow' is neither a datetime nor a date in ISO 8601"),
        ({"eta": 5}, ValueError, "eta=5 is neither"),
        ({"expires": "never"}, ValueError, "expires='never' is neither"),
        ({"expires": {}}, ValueError, "expires={} is not a number"),
        ({"headers": ["a"]}, TypeError, r"headers=\['a'\] is not a mapping"),
        ({"retry_policy": 5}, TypeError, "retry_policy=5 is not a mapping"),
        ({"queue": 5}, TypeError, "queue=5 is neither a name nor a Queue"),
        ({"task_id": 5}, TypeError, "task_id=5 is neither text nor a UUID"),
        ({"link": "add"}, TypeError, "link takes a signature or a list of signatures, not 'add'"),
        ({"link_error": [5]}, TypeError, "link_error takes a signature or a list of signatures, not 5"),
        ({"serializer": "jsno"}, ImproperlyConfigured, r"unknown serializer 'jsno'.* Did you mean 'json'\?"),
        ({"compression": "gzpi"}, ImproperlyConfigured, r"unknown compression 'gzpi'.* Did you mean 'gzip'\?"),
        ({"headers": {"a": object()}}, EncodeError, "header 'a' .object. is not plain data"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused_at_once_in_one_line(
    app: Celeriac, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        _message(app, **options)
    assert "\n" not in str(caught.value)
    assert sent(app) == []


def test_a_task_as_link_is_told_to_be_a_signature(app: Celeriac) -> None:
    add = app.task(lambda: None, name="add")
    with pytest.raises(TypeError, match=r"pass add\.s\(\)"):
        add.apply_async(link=add)


def test_an_argument_that_can_not_be_serialized_is_named(app: Celeriac) -> None:
    with pytest.raises(EncodeError, match=r"t: args\[0\]\['a'\]\[1\] of type object can't be serialized as json"):
        app.send_task("t", ({"a": [1, object()]},))
    with pytest.raises(EncodeError, match=r"t: kwargs\['x'\] of type set can't be serialized as json: pass a list"):
        app.send_task("t", kwargs={"x": {1}})


def test_a_body_past_the_limit_is_refused() -> None:
    app = memory_app(message_max_bytes=1000)
    app.send_task("t", ("x" * 900,))
    with pytest.raises(MessageTooLarge, match=r"the arguments of t take 10\d\d bytes, more than the 1000 allowed"):
        app.send_task("t", ("x" * 990,))


def test_a_queue_that_is_not_there_is_named_if_none_are_made() -> None:
    """[B-ROUTE-003]"""
    app = memory_app(task_create_missing_queues=False, task_queues=["celery", "video"])
    with pytest.raises(
        QueueNotFound, match=r"Queue 'vidoe' is not in task_queues \(celery, video\).* Did you mean 'video'\?"
    ):
        _message(app, queue="vidoe")


# trying again


def _flaky(app: Celeriac) -> Faults:
    faults = Faults()
    app.__dict__["transport"] = FlakyTransport(app.transport, faults)
    return faults


def test_without_retry_an_error_of_the_broker_is_raised_at_once(app: Celeriac) -> None:
    """[B-CALL-011, B-CALL-013]"""
    faults = _flaky(app)
    faults.fail("publish")
    task = app.task(lambda: None, name="t")
    with pytest.raises(task.OperationalError):
        task.apply_async(retry=False)
    assert faults.count("publish") == 1


def test_publishing_is_tried_again_as_the_policy_says(app: Celeriac) -> None:
    """[B-CALL-012]"""
    faults = _flaky(app)
    policy = {"max_retries": 2, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    task = app.task(lambda: None, name="t")
    faults.fail("publish", times=2)
    task.apply_async(retry=None, retry_policy=policy)
    assert faults.count("publish") == 3
    faults.fail("publish", times=3)
    with pytest.raises(OperationalError):
        task.apply_async(retry=True, retry_policy=policy)
    assert faults.count("publish") == 6


def test_a_caller_without_the_task_says_which_limit_a_call_is_under() -> None:
    app = memory_app()
    app.task(lambda tenant: None, name="export", max_concurrency=2, concurrency_key="tenant:{tenant}")
    app.send_task("export", (7,))
    app.send_task("elsewhere", (7,), concurrency_key="tenant:8")
    app.send_task("elsewhere", (7,), concurrency_key="x" * 400, task_id="chosen")
    app.signature("export", (7,)).apply_async(concurrency_key="tenant:9")
    marks = [mark_of(message.headers) for message in sent(app)]
    assert [mark.key[:8] if mark else None for mark in marks] == ["tenant:7", "tenant:8", "xxxxxxxx", "tenant:9"]
    assert marks[2] is not None and marks[2].is_named and len(marks[2].key) <= 150
    with pytest.raises(TypeError, match="concurrency_key=5 is not text"):
        app.send_task("elsewhere", concurrency_key=5)
