"""What surrounds an app: bug reports, the default app, other apps, the time zone of the machine."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

import celeriac
from celeriac import Celeriac, current
from celeriac.testing.sent import record_sent
from tests.support.apps import memory_app


@pytest.mark.behaviour("B-APP-031")
def test_a_bug_report_tells_versions_and_changed_settings_without_secrets() -> None:
    app = memory_app(security_key_password="hunter2", worker_concurrency=3)
    text = app.bugreport()
    assert text == celeriac.bugreport(app)
    for part in (
        "python     3.",
        "packages   click ",
        "msgspec ",
        "app        unit (",
        "broker     memory:",
        "concurrency",
    ):
        assert part in text
    assert "hunter2" not in text


@pytest.mark.behaviour("B-APP-035")
def test_falling_back_to_the_default_app_can_be_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before = current.current_apps()
    try:
        mine = Celeriac("mine", set_as_current=False)
        current.restore_apps((None, mine))
        assert current.get_current_app() is mine
        monkeypatch.setenv("CELERY_TRACE_APP", "1")
        with pytest.raises(RuntimeError, match="CELERY_TRACE_APP"):
            current.get_current_app()
        mine.set_current()
        assert current.get_current_app() is mine
    finally:
        current.restore_apps(before)


@pytest.mark.behaviour("B-APP-009")
def test_a_task_belongs_to_its_app_alone() -> None:
    one, other = memory_app(), memory_app()
    one.task(lambda: 1, name="private", shared=False)
    one.task(lambda: 1, name="own")
    other.finalize()
    assert {"private", "own"} <= set(one.tasks)
    assert not {"private", "own"} & set(other.tasks)


@pytest.mark.behaviour("B-CONF-019")
def test_moments_without_a_zone_are_in_utc_or_by_choice_in_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        noon = datetime(2030, 1, 1, 12)
        for settings, hour in (({}, 12), ({"enable_utc": False}, 3), ({"timezone": "Europe/Athens"}, 10)):
            app = memory_app(**settings)
            with record_sent(app) as sent_tasks:
                app.send_task("t", eta=noon)
            [message] = sent_tasks
            assert message.eta == datetime(2030, 1, 1, hour, tzinfo=UTC).timestamp()
    finally:
        monkeypatch.undo()
        time.tzset()
