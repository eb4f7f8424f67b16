"""Reading results while the store can't be reached: tried again, if `result_backend_always_retry` says so."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import OperationalError
from celeriac.results.base import Record
from tests.support.apps import memory_app
from tests.support.flaky import Faults, FlakyStore


def _flaky(**settings: Any) -> tuple[Celeriac, Faults]:
    app, faults = memory_app(result_backend_base_sleep_between_retries_ms=1, **settings), Faults()
    store = app.backend
    assert store is not None
    store.store([Record(id="i", state="SUCCESS", result=b"5")])
    app.__dict__["backend"] = FlakyStore(store, faults)
    return app, faults


@pytest.mark.behaviour("B-RESULT-041")
def test_a_result_is_asked_for_again() -> None:
    app, faults = _flaky(result_backend_always_retry=True)
    faults.fail("wait", "get", times=3)
    assert (app.AsyncResult("i").get(timeout=20), faults.count("wait")) == (5, 4)
    faults.fail("get", times=3)
    assert (app.AsyncResult("i").state, faults.count("get")) == ("SUCCESS", 4)
    faults.fail("save_group", "get_group", "forget_group", "forget", times=1)
    group = app.GroupResult("g", [app.AsyncResult("i")])
    group.save()
    assert app.GroupResult.restore("g") == group
    group.delete()
    group.forget()


def test_patience_ends() -> None:
    app, faults = _flaky(result_backend_always_retry=True, result_backend_max_retries=2)
    faults.fail("get", "wait")
    with pytest.raises(OperationalError):
        _ = app.AsyncResult("i").state
    assert faults.count("get") == 3
    app, faults = _flaky(result_backend_always_retry=True)
    faults.fail("wait")
    with pytest.raises(OperationalError):
        app.AsyncResult("i").get(timeout=0.05)


def test_without_the_setting_the_error_is_raised_at_once() -> None:
    app, faults = _flaky()
    faults.fail("wait", times=1)
    with pytest.raises(OperationalError):
        app.AsyncResult("i").get(timeout=20)
    assert faults.count("wait") == 1


@pytest.mark.behaviour("B-RESULT-042")
def test_a_sql_server_is_asked_three_times_more_unless_told_otherwise() -> None:
    pytest.importorskip("sqlalchemy")
    for settings, calls in (
        ({}, 4),
        ({"result_backend_max_retries": 1}, 2),
        ({"result_backend_always_retry": False}, 1),
        ({"result_backend_always_retry": True, "result_backend_max_retries": 5}, 6),
    ):
        nobody = memory_app(
            backend="mysql://127.0.0.1:1/none", result_backend_base_sleep_between_retries_ms=1, **settings
        )
        faults = Faults()
        assert nobody.backend is not None
        nobody.__dict__["backend"] = FlakyStore(nobody.backend, faults)
        faults.fail("get")
        with pytest.raises(OperationalError):
            _ = nobody.AsyncResult("i").state
        assert faults.count("get") == calls, settings
