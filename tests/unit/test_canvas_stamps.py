"""Stamps on workflows: what a visitor is asked, what it may say, and where stamps arrive."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celeriac import Celeriac, Task, chain, chord, group
from celeriac.canvas import StampingVisitor
from tests.support.apps import memory_app, run_all, sent


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


@pytest.fixture
def a(app: Celeriac) -> Task[..., Any]:
    return app.task(lambda *args: args, name="a", typing=False)


class Visitor(StampingVisitor):
    """Stamps each kind of place with a letter, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def _note(self, what: str, headers: dict[str, Any]) -> None:
        stamps = {key: value for key, value in headers.items() if key != "stamped_headers"}
        self.asked.append(" ".join([what, *(f"{key}={value}" for key, value in sorted(stamps.items()))]))

    def on_signature(self, sig: Any, **headers: Any) -> Any:
        self._note(f"task {sig['args'][0]}", headers)
        return {"s": sig["args"][0]}

    def on_group_start(self, sig: Any, **headers: Any) -> Any:
        self._note("group", headers)
        return {"g": 1}

    def on_group_end(self, sig: Any, **headers: Any) -> None:
        self._note("/group", headers)

    def on_chain_start(self, sig: Any, **headers: Any) -> Any:
        self._note("chain", headers)
        return {"c": 1, "hidden": 2, "stamped_headers": ["c"]}

    def on_chain_end(self, sig: Any, **headers: Any) -> None:
        self._note("/chain", headers)

    def on_chord_body(self, sig: Any, **headers: Any) -> Any:
        self._note("body", headers)
        return {"b": 1}

    def on_callback(self, callback: Any, **headers: Any) -> Any:
        self._note(f"callback {callback['args'][0]}", headers)
        return {"k": 1}

    def on_errback(self, errback: Any, **headers: Any) -> Any:
        self._note(f"errback {errback['args'][0]}", headers)
        return {"e": 1}


def test_stamps_are_options(a: Task[..., Any]) -> None:
    """[B-STAMP-001, B-STAMP-002]"""
    whole = group(a.s(1), chain(a.s(2), a.s(3).on_error(a.s(4))))
    whole.stamp(x=1)
    first, steps = whole.tasks
    linked = steps.tasks[1].options["link_error"][0]
    for sig in (first, *steps.tasks, linked):
        assert (sig.options["x"], sig.options["stamped_headers"]) == (1, ["x"])
    assert whole.options == steps.options == {}
    one = a.s(1)
    one.stamp(x=1)
    one.stamp(x=2, y=[1])
    assert one.options == {"x": 2, "y": [1], "stamped_headers": ["x", "y"]}
    one.stamp(append_stamps=True, x=3, y=4)
    assert one.options == {"x": [3, 2], "y": [4, 1], "stamped_headers": ["x", "y"]}


def test_a_visitor_sees_everything(a: Task[..., Any]) -> None:
    """[B-STAMP-003, B-STAMP-004, B-STAMP-005, B-STAMP-009]"""
    visitor = Visitor()
    whole = chain(a.s(1), chord([a.s(2), a.s(3)], a.s(4).on_error(a.s(5))))
    whole.link(a.s(6))
    whole.stamp(visitor, top="T")
    assert visitor.asked == [
        "chain top=T", "callback 6 c=1 top=T", "task 6 c=1 k=1 top=T", "task 1 c=1 top=T", "group c=1 top=T",
        "task 2 c=1 g=1 top=T", "task 3 c=1 g=1 top=T", "/group c=1 g=1 top=T", "body c=1 top=T",
        "errback 5 b=1 c=1 top=T", "task 5 b=1 c=1 e=1 top=T", "task 4 b=1 c=1 top=T", "/chain c=1 top=T",
    ]  # fmt: skip
    text = json.dumps(whole)
    assert "hidden" not in text
    options = whole.tasks[1].tasks[0].options
    assert options == {"top": "T", "c": 1, "g": 1, "s": 2, "stamped_headers": ["top", "c", "g", "s"]}


def test_a_visitor_has_to_say_something_of_tasks() -> None:
    """[B-STAMP-008]"""
    with pytest.raises(TypeError, match="abstract"):
        StampingVisitor()  # type: ignore[abstract]


def test_the_visitor_may_only_look(a: Task[..., Any]) -> None:
    class Look(StampingVisitor):
        def on_signature(self, sig: Any, **headers: Any) -> None:
            return None

    one = a.s(1)
    one.stamp(Look())
    assert one.options == {}


def test_stamps_of_links_alone(a: Task[..., Any]) -> None:
    one = a.s(1).on_error(a.s(2))
    one.stamp_links(None, x=1)
    assert (one.options["link_error"][0].options["x"], "x" in one.options) == (1, False)


def test_stamps_arrive(app: Celeriac, a: Task[..., Any]) -> None:
    """[B-STAMP-006, B-STAMP-007, B-STAMP-010]"""
    app.conf.result_extended = True
    seen = []

    @app.task(bind=True, name="look")
    def look(self: Any, *args: Any) -> Any:
        seen.append((self.request.stamped_headers, self.request.stamps))
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        if self.request.replaced_task_nesting == 0:
            return self.replace(look.si())
        return 1

    whole = chain(look.si(), chord([look.si(), look.si()], look.si()))
    whole.stamp(mid="z")
    result = whole.apply_async()
    run_all(app)
    assert result.get(timeout=1) == 1
    assert len(seen) == 4 * 4
    assert all(each == (["mid"], {"mid": "z"}) for each in seen)
    stored = app.backend.get([result.id])[0]
    assert stored.stamps == {"stamped_headers": ["mid"], "stamps": {"mid": "z"}}


def test_stamps_are_headers_of_messages(app: Celeriac, a: Task[..., Any]) -> None:
    whole = chord([a.s(1)], a.s(2))
    whole.stamp(mid="z")
    whole.apply_async()
    (message,) = sent(app)
    assert (message.headers["stamped_headers"], message.headers["stamps"]) == (["mid"], {"mid": "z"})
    body = json.loads(message.body)[2]["chord"]
    assert (body["options"]["stamped_headers"], body["options"]["mid"]) == (["mid"], "z")
