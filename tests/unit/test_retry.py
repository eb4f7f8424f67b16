"""Retries: what `retry` raises and sends, how often, how long later, and by itself."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac import Celeriac, Ignore, Retry, Task, signals
from celeriac.errors import MaxRetriesExceededError
from celeriac.message import Message
from celeriac.retrying import next_delay
from celeriac.transport.packing import unpack
from tests.support.apps import memory_app, run_all, sent


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


def _next(app: Celeriac, *queues: str) -> Message:
    """Run what is due; the one message that was sent for later."""
    run_all(app, *queues)
    (delayed,) = _delayed(app)
    return delayed


def _delayed(app: Celeriac) -> list[Message]:
    broker = app.transport._broker  # type: ignore[attr-defined]  # nothing of the port shows what is not due yet
    return [unpack(entry.head, entry.body, entry.queue) for entry in broker.entries.values() if entry.due_at]


# what retry does


def test_nothing_after_retry_is_reached(app: Celeriac) -> None:
    """[B-RETRY-001, B-RETRY-003, B-RETRY-005, B-RETRY-006]"""
    seen: list[Any] = []

    def on_retry(sender: Any, request: Any, reason: Any, einfo: Any, **_: Any) -> None:
        seen.append((sender.name, request.id, repr(reason), "ValueError" in einfo))

    signals.task_retry.connect(on_retry)

    @app.task(bind=True, name="t")
    def work(self: Any) -> None:
        try:
            raise ValueError("not yet")
        except ValueError as exc:
            self.retry(exc=exc)
        seen.append("reached")

    result = work.delay()
    message = _next(app)
    assert seen == [("t", result.id, "ValueError('not yet')", True)]
    assert (message.id, message.headers["retries"], message.headers["root_id"]) == (result.id, 1, result.id)
    assert (result.state, repr(result.result)) == ("RETRY", "ValueError('not yet')")
    assert not result.children


def test_retry_without_throw_returns_what_it_would_raise(app: Celeriac) -> None:
    """[B-RETRY-002]"""
    seen: list[Any] = []

    @app.task(bind=True)
    def work(self: Any) -> None:
        retry = self.retry(throw=False, countdown=5, exc=KeyError("k"))
        seen.append((type(retry), retry.when, str(retry)))
        raise retry

    work.delay()
    _next(app)
    assert seen == [(Retry, 5, "Retry in 5s: KeyError('k')")]


def test_a_retry_goes_where_the_message_came_from(app: Celeriac) -> None:
    """[B-RETRY-004]"""

    @app.task(bind=True, queue="own")
    def work(self: Any) -> None:
        raise self.retry()

    work.apply_async(queue="other", priority=7)
    message = _next(app, "other")
    assert (message.queue, message.priority) == ("other", 7)


def test_the_default_delay(app: Celeriac) -> None:
    """[B-RETRY-007, B-RETRY-008]"""
    delays: list[float] = []
    later = datetime.now(UTC) + timedelta(hours=2)
    for name, task_options, options in (
        ("default", {}, {}),
        ("own", {"default_retry_delay": 30}, {}),
        ("countdown", {}, {"countdown": 5}),
        ("eta", {}, {"eta": later}),
    ):
        own = memory_app()

        @own.task(bind=True, name=name, **task_options)
        def work(self: Any, options: Any = options) -> None:
            raise self.retry(**options)

        before = time.time()
        own.send_task(name)
        delays.append((_next(own).eta or 0) - before)
    assert delays == pytest.approx([180, 30, 5, 7200], abs=3)


@pytest.mark.parametrize(("task_limit", "executions"), [(..., 4), (0, 1), (1, 2)])
def test_how_often_it_is_run_in_all(app: Celeriac, task_limit: Any, executions: int) -> None:
    """[B-RETRY-009, B-RETRY-012]"""
    runs: list[int] = []

    @app.task(bind=True, **({} if task_limit is ... else {"max_retries": task_limit}))
    def work(self: Any) -> None:
        runs.append(self.request.retries)
        self.retry()

    result = work.apply()
    assert runs == list(range(executions))
    with pytest.raises(MaxRetriesExceededError, match="Can't retry") as caught:
        result.get()
    assert (caught.value.task_args, caught.value.task_kwargs) == ([], {})


def test_without_limit_it_is_retried_for_ever(app: Celeriac) -> None:
    """[B-RETRY-010]"""

    @app.task(bind=True, max_retries=None)
    def work(self: Any) -> int:
        if self.request.retries < 25:
            self.retry()
        return int(self.request.retries)

    assert work.apply().get() == 25


@pytest.mark.parametrize("is_active", [True, False])
def test_past_the_limit_the_cause_is_raised(app: Celeriac, is_active: bool) -> None:
    """[B-RETRY-011]"""

    @app.task(bind=True, max_retries=1)
    def work(self: Any) -> None:
        try:
            raise LookupError(self.request.retries)
        except LookupError as exc:
            self.retry(**({} if is_active else {"exc": exc}))

    with pytest.raises(LookupError, match="1"):
        work.apply().get()


def test_a_limit_given_to_retry_holds_this_time(app: Celeriac) -> None:
    """[B-RETRY-013]"""
    runs: list[int] = []

    @app.task(bind=True)
    def work(self: Any) -> None:
        runs.append(self.request.retries)
        self.retry(exc=OSError("end"), max_retries=5)

    with pytest.raises(OSError, match="end"):
        work.apply().get()
    assert runs == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("throw", [True, False])
def test_called_as_a_function_it_raises_the_cause(app: Celeriac, throw: bool) -> None:
    """[B-RETRY-014]"""

    @app.task(bind=True)
    def work(self: Any, exc: BaseException | None) -> None:
        self.retry(exc=exc, throw=throw)

    with pytest.raises(ValueError, match="cause"):
        work(ValueError("cause"))
    with pytest.raises(Retry, match="Task can be retried"):
        work(None)


def test_other_arguments_and_options_for_the_next_run(app: Celeriac) -> None:
    """[B-RETRY-015, B-RETRY-016]"""

    @app.task(bind=True)
    def work(self: Any, x: int, y: int = 0) -> list[Any]:
        if self.request.retries == 0:
            raise self.retry(args=(5,), kwargs={"y": 6}, countdown=0, queue="other", priority=9, shadow="again")
        return [x, y, self.request.shadow]

    result = work.delay(1)
    run_all(app)
    (message,) = sent(app, "other")
    assert (message.priority, message.headers["shadow"]) == (9, "again")
    app.transport.publish([message])
    run_all(app, "other")
    assert result.get(timeout=1) == [5, 6, "again"]


def test_a_retry_in_this_process_runs_at_once(app: Celeriac) -> None:
    """[B-RETRY-017]"""

    @app.task(bind=True)
    def work(self: Any) -> list[Any]:
        if self.request.retries < 2:
            raise self.retry(countdown=3600)
        return [self.request.id, self.request.retries]

    assert work.apply(task_id="the id").get() == ["the id", 2]


@pytest.mark.parametrize("options", [{"countdown": "soon"}, {"priority": 999}, {"args": (object(),)}])
def test_a_retry_that_can_not_be_sent_is_a_failure_and_keeps_the_message(app: Celeriac, options: Any) -> None:
    """[B-RETRY-018]"""
    app.conf.task_create_missing_queues = True

    @app.task(bind=True)
    def work(self: Any) -> None:
        raise self.retry(**options)

    result = work.delay()
    run_all(app)
    assert result.state == "FAILURE"
    assert app.transport.dead_letters()[0].reason.startswith("its retry can't be sent")


def test_everything_about_the_call_survives(app: Celeriac) -> None:
    """[B-RETRY-020]"""
    note = app.task(lambda *args: None, name="note")

    @app.task(bind=True)
    def work(self: Any, x: int) -> None:
        raise self.retry(countdown=60)

    expires = datetime(2040, 1, 1, tzinfo=UTC)
    options: dict[str, Any] = {
        "expires": expires, "time_limit": 9, "soft_time_limit": 8, "link": [note.s(1)], "link_error": note.s(2),
        "chain": [note.s(3)], "chord": note.s(4), "headers": {"tenant": "acme"}, "shadow": "shown", "reply_to": "me",
        "group_id": "g", "group_index": 3, "ignore_result": True, "stamped_headers": ["s"], "stamps": {"s": "v"},
        "argsrepr": "(…)", "priority": 4,
    }  # fmt: skip
    work.apply_async((1,), **options)
    (first,) = sent(app)
    app.transport.publish([first])
    again = _next(app)
    assert again.body == first.body
    differing = {key for key in first.headers if first.headers[key] != again.headers[key]} - {"origin"}
    assert differing == {"retries", "parent_id", "eta"}
    # With something that waits for its end no broker may drop it: the moment stands in the header only.
    assert (again.headers["expires"], again.expires_at) == (expires.isoformat(), None)
    assert (again.priority, again.reply_to) == (4, "me")
    assert again.headers["tenant"] == "acme"


# by itself


def _autoretry(app: Celeriac, exc: Exception, **options: Any) -> tuple[Task[..., Any], list[int]]:
    runs: list[int] = []

    def work(self: Any) -> None:
        runs.append(self.request.retries)
        raise exc

    return app.task(work, bind=True, name="auto", **options), runs


def test_listed_exceptions_are_retried_by_themselves(app: Celeriac) -> None:
    """[B-RETRY-021, B-RETRY-028, B-RETRY-029]"""
    task, runs = _autoretry(app, KeyError("k"), autoretry_for=(LookupError,), retry_kwargs={"max_retries": 2})
    with pytest.raises(KeyError, match="k"):
        task.apply().get()
    assert runs == [0, 1, 2]


@pytest.mark.parametrize(
    ("exc", "options"),
    [
        (ValueError(), {"autoretry_for": (KeyError,)}),
        (KeyError(), {"autoretry_for": (LookupError,), "dont_autoretry_for": (KeyError,)}),
        (Ignore(), {"autoretry_for": (Exception,)}),
    ],
)
def test_others_are_not(app: Celeriac, exc: Exception, options: dict[str, Any]) -> None:
    """[B-RETRY-022, B-RETRY-023]"""
    task, runs = _autoretry(app, exc, **options)
    assert task.apply().state == ("IGNORED" if isinstance(exc, Ignore) else "FAILURE")
    assert runs == [0]


def test_a_retry_of_the_tasks_own_is_not_retried_by_itself(app: Celeriac) -> None:
    """[B-RETRY-023]"""

    @app.task(bind=True, autoretry_for=(Exception,), retry_kwargs={"countdown": 1})
    def work(self: Any) -> None:
        raise self.retry(countdown=1000)

    before = time.time()
    work.delay()
    assert (_next(app).eta or 0) - before > 900


def test_coroutines_and_classes_are_retried_by_themselves(app: Celeriac) -> None:
    """[B-RETRY-027]"""
    runs: list[int] = []

    class Work(Task[..., Any]):
        autoretry_for = (ValueError,)
        max_retries = 1

        async def run(self) -> None:
            runs.append(self.request.retries)
            raise ValueError

    app.register_task(Work()).apply()
    assert runs == [0, 1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"retry_backoff": True}, [1, 2, 4, 8]),
        ({"retry_backoff": 5}, [5, 10, 20, 40]),
        ({"retry_backoff": 300}, [300, 600, 600, 600]),
        ({"retry_backoff": 300, "retry_backoff_max": 1000}, [300, 600, 1000, 1000]),
        ({}, [180, 180, 180, 180]),
    ],
)
def test_delays_double_up_to_a_cap(app: Celeriac, options: dict[str, Any], expected: list[int]) -> None:
    """[B-RETRY-024, B-RETRY-025]"""
    task, _ = _autoretry(app, ValueError(), autoretry_for=(ValueError,), retry_jitter=False, max_retries=9, **options)
    delays = []
    for retries in range(4):
        before = time.time()
        task.apply_async(retries=retries)
        run_all(app)
        delays.append(
            max(message.eta or 0 for message in _delayed(app) if message.headers["retries"] == retries + 1) - before
        )
    assert delays == pytest.approx(expected, abs=2)


@given(
    retries=st.integers(0, 10_000),
    factor=st.one_of(st.booleans(), st.floats(0, 1e6)),
    maximum=st.floats(0, 1e9),
    jitter=st.booleans(),
)
def test_a_delay_is_never_above_its_bounds(retries: int, factor: float, maximum: float, jitter: bool) -> None:
    """[B-RETRY-024, B-RETRY-025, B-RETRY-026]"""
    delay = next_delay(retries, factor, maximum, jitter=jitter)
    ceiling = min(float(factor) * 2.0 ** min(retries, 60), maximum)
    assert 0 <= delay <= ceiling
    if not jitter:
        assert delay == ceiling


def test_jitter_spreads_delays() -> None:
    """[B-RETRY-026]"""
    delays = {next_delay(5, True, 600, jitter=True) for _ in range(50)}
    assert len(delays) > 40
    assert max(delays) <= 32
