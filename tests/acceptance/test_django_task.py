"""Tasks of Django projects are sent when the transaction commits, and not before, nor if it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.conf import settings
from django.db import connection, transaction

from celeriac import Celeriac
from celeriac.testing.sent import record_sent
from tests.support.apps import memory_app, run_all

if not settings.configured:
    settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
    django.setup()


@pytest.fixture
def app() -> Iterator[Celeriac]:
    with memory_app(task_cls="celeriac.contrib.django.task:DjangoTask") as app:
        app.task(lambda x, y=0: x + y, name="add")
        yield app
    connection.close()


@pytest.mark.behaviour("B-DJANGO-004")
def test_a_task_is_sent_when_the_transaction_commits(app: Celeriac) -> None:
    add: Any = app.tasks["add"]
    with record_sent(app) as sent:
        with transaction.atomic():
            assert add.delay_on_commit(1, y=2) is None
            sent.assert_nothing_sent()
        sent.assert_sent("add", 1, y=2)
    [outcome] = run_all(app)
    assert outcome.state == "SUCCESS"


@pytest.mark.behaviour("B-DJANGO-004")
def test_nothing_is_sent_when_it_is_rolled_back(app: Celeriac) -> None:
    add: Any = app.tasks["add"]
    with record_sent(app) as sent:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            add.delay_on_commit(1)
            add.apply_async_on_commit((1,))
            raise ZeroDivisionError
        with transaction.atomic():
            pass
        sent.assert_nothing_sent()


@pytest.mark.behaviour("B-DJANGO-005")
def test_options_are_those_of_apply_async(app: Celeriac) -> None:
    add: Any = app.tasks["add"]
    with record_sent(app) as sent, transaction.atomic():
        assert add.apply_async_on_commit((1,), {"y": 2}, queue="later", priority=3) is None
    [task] = sent
    assert (task.args, task.kwargs, task.queue, task.message.priority) == ([1], {"y": 2}, "later", 3)


def test_outside_of_a_transaction_it_is_sent_at_once(app: Celeriac) -> None:
    add: Any = app.tasks["add"]
    with record_sent(app) as sent:
        add.delay_on_commit(3)
        sent.assert_sent("add", 3)
