"""Errors of tasks as their callers get them: class, text, causes, notes, and where in the worker they were raised."""

from __future__ import annotations

import gc
import sys
import threading
import traceback
from typing import Any

import pytest

from celeriac import AsyncResult, Celeriac
from celeriac.remote_traceback import real_traceback
from celeriac.result import RemoteTraceback
from tests.support.apps import memory_app, run_all


def raised(app: Celeriac, fail: Any) -> BaseException:
    result = app.task(fail, name="fail").delay()
    run_all(app)
    with pytest.raises(LookupError) as caught:
        result.get(timeout=1)
    return caught.value


def fail_deeper() -> None:
    try:
        {}["shelf"]
    except KeyError as exc:
        error = LookupError("no such book")
        error.add_note("looked on every shelf")
        raise error from exc


def chain_of(exc: BaseException | None) -> list[str]:
    found = []
    while exc is not None:
        found.append(type(exc).__name__)
        exc = exc.__cause__
    return found


def test_causes_and_notes_come_with_the_error() -> None:
    error = raised(memory_app(), fail_deeper)
    assert (type(error), error.args, error.__notes__) == (LookupError, ("no such book",), ["looked on every shelf"])
    assert chain_of(error) == ["LookupError", "RemoteTraceback", "KeyError"]
    assert error.__cause__ is not None
    assert error.__cause__.__cause__ is not None
    assert error.__cause__.__cause__.args == ("shelf",)


def test_the_workers_traceback_is_shown_with_the_callers() -> None:
    error = raised(memory_app(), fail_deeper)
    shown = "".join(traceback.format_exception(error))
    assert "in fail_deeper" in shown
    assert "result.get(timeout=1)" in shown
    assert shown.rstrip().endswith("LookupError: no such book\nlooked on every shelf")


def test_raising_the_same_error_again_adds_nothing() -> None:
    app = memory_app()
    result: AsyncResult[None] = app.task(fail_deeper, name="fail").delay()
    run_all(app)
    error = result.result
    for _ in range(2):
        with pytest.raises(LookupError):
            result.throw(error, "a traceback")
    assert chain_of(error) == ["LookupError", "RemoteTraceback", "KeyError"]


@pytest.mark.behaviour("B-RESULT-039")
def test_the_workers_frames_stand_in_the_traceback_itself_if_asked_for() -> None:
    error = raised(memory_app(task_remote_tracebacks=True), fail_deeper)
    frames = [(frame.filename, frame.name, frame.line) for frame in traceback.extract_tb(error.__traceback__)]
    assert (__file__, "fail_deeper", "raise error from exc") in frames
    assert frames[-1][1] == "fail_deeper"
    assert (__file__, "raised", "result.get(timeout=1)") in frames
    assert chain_of(error) == ["LookupError", "KeyError"]


def test_without_tblib_the_traceback_comes_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tblib", None)
    error = raised(memory_app(task_remote_tracebacks=True), fail_deeper)
    assert isinstance(error.__cause__, RemoteTraceback)


@pytest.mark.parametrize("text", ["", "killed", "Traceback (most recent call last):\nValueError: 1", "x" * 10_000])
def test_a_text_without_frames_gives_none(text: str) -> None:
    assert real_traceback(text) is None


@pytest.mark.parametrize("is_set", [False, True])
def test_a_weak_callback_is_not_kept_alive(is_set: bool) -> None:
    app = memory_app()
    result: Any = app.task(lambda: 1, name="one").delay()
    waited = app.ResultSet([result]) if is_set else result
    called: list[str] = []
    told, last = threading.Event(), threading.Event()

    def forgotten(_: Any) -> None:
        called.append("forgotten")

    class Keeper:
        def tell(self, _: Any) -> None:
            called.append("kept")
            told.set()

    keeper = Keeper()
    waited.then(forgotten, weak=True)
    waited.then(keeper.tell, weak=True)
    del forgotten
    gc.collect()
    waited.then(lambda _: last.set())
    run_all(app)
    assert told.wait(20) and last.wait(20)
    assert called == ["kept"]
