"""Messages for tests that need one without a broker."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from celeriac import Celeriac
from celeriac.contrib.testing.mocks import ContextMock, TaskMessage, TaskMessage1, task_message_from_sig
from celeriac.contrib.testing.worker import setup_app_for_worker
from celeriac.current import current_apps, get_current_app, restore_apps


def test_a_mock_is_a_context_of_itself() -> None:
    mock = ContextMock(name="pool")
    with mock as inner:
        inner.acquire()
    mock.acquire.assert_called_once_with()
    assert inner is mock


def test_messages_of_both_protocols() -> None:
    message = TaskMessage("add", id="1", args=(2,), kwargs={"y": 3}, errbacks=["e"], shadow="plus", retries=2)
    assert message.headers == {"id": "1", "task": "add", "shadow": "plus", "retries": 2}
    assert json.loads(message.body) == [[2], {"y": 3}, {"callbacks": None, "errbacks": ["e"], "chain": None}]
    assert message.payload[0] == [2]
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    older = TaskMessage1("add", id="1", args=(2,))
    assert older.headers == {}
    assert older.payload["task"] == "add" and older.payload["args"] == [2]
    ids = {TaskMessage("add").headers["id"], TaskMessage1("add").payload["id"]}
    assert len(ids) == 2 and all(ids)


def test_a_signature_as_a_message() -> None:
    app = Celeriac("a", set_as_current=False)
    signature = app.signature("add", (1, 2), {"z": 3})
    message = task_message_from_sig(app, signature)
    assert (message.headers["task"], message.headers["id"]) == ("add", signature.id)
    assert message.payload[:2] == [[1, 2], {"z": 3}]
    assert (message.headers["eta"], message.headers["expires"]) == (None, None)


def test_what_a_signature_says_is_in_the_message() -> None:
    app = Celeriac("a", set_as_current=False)
    moment = datetime(2030, 1, 2, tzinfo=UTC)
    signature = app.signature("add", (1,)).set(
        eta=moment, expires=60, link=app.signature("b"), shadow="plus", retries=2
    )
    before = app.now()
    message = task_message_from_sig(app, signature)
    assert message.headers["eta"] == moment.isoformat()
    assert before <= datetime.fromisoformat(message.headers["expires"]) - timedelta(seconds=60) <= app.now()
    assert (message.headers["shadow"], message.headers["retries"]) == ("plus", 2)
    assert [link["task"] for link in json.loads(message.body)[2]["callbacks"]] == ["b"]
    soon = task_message_from_sig(app, app.signature("add", countdown=10))
    assert before <= datetime.fromisoformat(soon.headers["eta"]) - timedelta(seconds=10) <= app.now()


def test_an_app_is_made_ready_for_a_worker() -> None:
    before = current_apps()
    app = Celeriac("a", set_as_current=False)
    try:
        setup_app_for_worker(app, "ERROR", None)
        assert app.finalized and get_current_app() is app
    finally:
        restore_apps(before)
