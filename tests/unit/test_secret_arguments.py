"""Arguments that are marked as secret: they reach the task, and nobody else sees them."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pytest

from celeriac import Celeriac, Secret, Task, chain, log
from celeriac.hiding import secrets_of
from celeriac.message import Delivery
from celeriac.runner.zygote import facts_of
from celeriac.worker.assignment import Assignment
from celeriac.worker.task_info import task_info
from tests.support.apps import memory_app, run_all, sent

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]

PASSWORD = "hunter2"  # noqa: S105 -- it is the test's
Password = Annotated[str, Secret()]


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


@pytest.fixture
def log_in(app: Celeriac) -> Task[..., Any]:
    @app.task(name="log_in")
    def log_in(user: str, password: Annotated[str, Secret], tries: int = 1) -> str:
        return f"{user} {password}"

    return log_in


def texts(app: Celeriac) -> tuple[str, str]:
    [message] = sent(app)
    assert PASSWORD.encode() in message.body
    return message.headers["argsrepr"], message.headers["kwargsrepr"]


def test_texts_of_a_call_hide_secrets(app: Celeriac, log_in: Task[..., Any]) -> None:
    log_in.delay("ada", PASSWORD, 2)
    assert texts(app) == ("('ada', ***, 2)", "{}")
    log_in.delay("ada", tries=3, password=PASSWORD)
    assert texts(app) == ("('ada',)", "{'tries': 3, 'password': ***}")
    app.send_task("log_in", ("ada", PASSWORD), countdown=0)
    assert texts(app) == ("('ada', ***)", "{}")
    app.signature("log_in", ("ada", PASSWORD)).delay()
    assert texts(app) == ("('ada', ***)", "{}")
    app.amqp.send_task_message(None, "log_in", app.amqp.as_task_v2("1", "log_in", ("ada", PASSWORD)))
    assert texts(app) == ("('ada', ***)", "{}")
    app.send_task("unknown", ("ada", PASSWORD), argsrepr="('ada', ***)")
    assert texts(app) == ("('ada', ***)", "{}")
    log_in.apply_async(("ada", PASSWORD), argsrepr="(mine)")
    assert texts(app) == ("(mine)", "{}")


def test_the_task_gets_them(app: Celeriac, log_in: Task[..., Any]) -> None:
    result = log_in.delay("ada", PASSWORD)
    run_all(app)
    assert result.get(timeout=1) == "ada hunter2"
    assert log_in.apply(("ada", PASSWORD)).get() == "ada hunter2"


def functions() -> list[Any]:
    def optional(x: int, p: Optional[Annotated[str, Secret]] = None) -> None: ...  # noqa: UP045
    def alias(x: int, p: Password) -> None: ...
    def or_none(x: int, p: Annotated[str, Secret] | None) -> None: ...
    def unresolvable(x: Unknown, p: Annotated[str, Secret]) -> None: ...
    def inside(x: int, p: list[Annotated[str, Secret]]) -> None: ...

    return [optional, alias, or_none, unresolvable, inside]


@pytest.mark.parametrize("fun", functions(), ids=lambda fun: fun.__name__)
def test_however_the_mark_is_written(app: Celeriac, fun: Any) -> None:
    secrets = secrets_of(app.task(fun, name="t"))
    assert secrets is not None
    assert (secrets.positional, secrets.names) == ((False, True), {"p"})


def test_stars_are_marked_too(app: Celeriac) -> None:
    @app.task(name="t", bind=True)
    def t(self: Any, x: int, *rest: Annotated[str, Secret], **more: Annotated[str, Secret]) -> None: ...

    t.delay(1, PASSWORD, "b", key=PASSWORD)
    assert texts(app) == ("(1, ***, ***)", "{'key': ***}")


def test_a_class_with_run(app: Celeriac) -> None:
    class Login(Task[..., Any]):
        name = "login"

        def run(self, user: str, password: Annotated[str, Secret]) -> None: ...

    app.register_task(Login()).delay("ada", PASSWORD)
    assert texts(app) == ("('ada', ***)", "{}")


def test_a_task_without_marks_has_none(app: Celeriac) -> None:
    @app.task(name="t")
    def t(x: int, secretary: str, SecretStr: str = "") -> None: ...  # noqa: N803

    assert t.secrets is None
    assert not facts_of(t).has_secrets


def test_what_follows_from_a_task_and_its_retries_hide_them(app: Celeriac, log_in: Task[..., Any]) -> None:
    @app.task(name="again", bind=True)
    def again(self: Any, password: Annotated[str, Secret]) -> str:
        if not self.request.retries:
            self.retry(countdown=0)
        return str(self.request.argsrepr)

    result = again.delay(PASSWORD)
    steps = chain(app.task(lambda: "ada", name="who").si(), log_in.s(PASSWORD)).apply_async()
    del steps
    outcomes = run_all(app)
    assert result.get(timeout=1) == "(***,)"
    shown = [message.headers["argsrepr"] for outcome in outcomes for message in outcome.messages]
    assert shown == ["(***,)", "('ada', ***)"]


def test_reprs_of_calls_hide_them(app: Celeriac, log_in: Task[..., Any]) -> None:
    seen: list[str] = []

    @app.task(name="show", bind=True)
    def show(self: Any, password: Annotated[str, Secret]) -> None:
        seen.append(repr(self.request))

    show.delay(PASSWORD)
    run_all(app)
    assert PASSWORD not in seen[0]
    assert repr(log_in.s("ada", password=PASSWORD)) == "log_in('ada', password='***')"
    assert PASSWORD not in repr(chain(log_in.s("ada", PASSWORD), log_in.si("bob", PASSWORD)))
    assert PASSWORD not in repr(log_in.map([PASSWORD])) + repr(log_in.chunks([("ada", PASSWORD)], 1))


def test_logs_hide_them(
    app: Celeriac, log_in: Task[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LOG_SUCCESS", "%(name)s%(args)s%(kwargs)s")
    with caplog.at_level(logging.DEBUG):
        log_in.delay("ada", password=PASSWORD)
        run_all(app)
    assert "log_in('ada',){'password': ***}" in caplog.text
    assert PASSWORD not in caplog.text


def test_extended_results_hide_them() -> None:
    app = memory_app(result_extended=True)

    @app.task(name="t")
    def t(user: str, password: Annotated[str, Secret]) -> int:
        return 1

    result = t.delay("ada", password=PASSWORD)
    run_all(app)
    assert (result.get(timeout=1), result.args, result.kwargs) == (1, ["ada"], {"password": "***"})


def test_remote_control_shows_texts(app: Celeriac, log_in: Task[..., Any]) -> None:
    log_in.delay("ada", PASSWORD)
    [message] = sent(app)
    assert facts_of(log_in).has_secrets
    info = task_info(Assignment(Delivery(message=message, queue="celery", token=1)), "node", safe=True)
    assert PASSWORD not in json.dumps(info)


def test_items_of_a_map_are_secret(app: Celeriac, log_in: Task[..., Any]) -> None:
    for many in (log_in.map([PASSWORD]), log_in.starmap([("ada", PASSWORD)])):
        many.apply_async()
        assert PASSWORD not in "".join(texts(app))
