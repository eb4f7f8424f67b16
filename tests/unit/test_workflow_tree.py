"""The tree of a workflow from stored results: its root, its branches, groups, and how often the store is asked."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.results.base import Record
from celeriac.workflow_tree import Node, read_tree
from tests.support.apps import memory_app


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


def _task(app: Celeriac, task_id: str, *children: Any, state: str = "SUCCESS", **fields: Any) -> None:
    tuples = [child if isinstance(child, list) else [[child, None], None] for child in children]
    app.backend.store([Record(id=task_id, state=state, result=b"null", children=tuples, **fields)])  # type: ignore[union-attr]


def _group(group_id: str, *members: Any) -> list[Any]:
    return [[group_id, None], [each if isinstance(each, list) else [[each, None], None] for each in members]]


def _drawn(node: Node) -> Any:
    name = node.id + ("*" if node.is_group else "")
    drawn = {name: [_drawn(child) for child in node.children]} if node.children else name
    return (drawn, *map(_drawn, node.after)) if node.after else drawn


def test_the_tree_starts_at_the_first_task_whichever_is_named(app: Celeriac) -> None:
    _task(app, "a", "b", "c")
    _task(app, "b", "d", parent_id="a")
    _task(app, "d", parent_id="b")
    for named in ("a", "b", "d"):
        root = read_tree(app, named)
        assert root is not None
        assert _drawn(root) == {"a": [{"b": ["d"]}, "c"]}
    assert [(node.id, node.state) for node in root.tasks()] == [
        ("a", "SUCCESS"), ("b", "SUCCESS"), ("d", "SUCCESS"), ("c", "PENDING"),
    ]  # fmt: skip
    assert root.count() == {"SUCCESS": 3, "PENDING": 1}


def test_groups_are_branches(app: Celeriac) -> None:
    _task(app, "a", _group("g", "b", _group("h", "c")))
    _task(app, "c", "d", state="FAILURE")
    root = read_tree(app, "a")
    assert root is not None
    assert _drawn(root) == {"a": [{"g*": ["b", {"h*": [{"c": ["d"]}]}]}]}
    assert root.children[0].count() == {"PENDING": 2, "FAILURE": 1}


def test_a_chord_is_a_group_and_what_comes_after_it(app: Celeriac) -> None:
    """The child is the end of the chain; that it comes after a group and a body stands in its parents."""
    body = [["body", [["g", None], [[["m", None], None], [["n", None], None]]]], None]
    _task(app, "a", [["end", body], None])
    _task(app, "m", parent_id="a")
    _task(app, "body", "end", parent_id="m")
    _task(app, "end", parent_id="body")
    for named in ("a", "m", "end"):
        root = read_tree(app, named)
        assert root is not None
        assert _drawn(root) == {"a": [({"g*": ["m", "n"]}, {"body": ["end"]})]}
    assert root.count() == {"SUCCESS": 4, "PENDING": 1}
    assert root.children[0].members() == {"SUCCESS": 1, "PENDING": 1}


def test_a_body_stands_below_the_last_part_where_nothing_tells_of_the_group(app: Celeriac) -> None:
    _task(app, "m", group_id="g")
    _task(app, "body", "next", parent_id="m")
    root = read_tree(app, "body")
    assert root is not None
    assert _drawn(root) == {"m": [{"body": ["next"]}]}


def test_a_kept_group_is_a_root(app: Celeriac) -> None:
    app.GroupResult("g", [app.AsyncResult("a"), app.AsyncResult("b")]).save()
    _task(app, "a")
    root = read_tree(app, "g")
    assert root is not None
    assert _drawn(root) == {"g*": ["a", "b"]}
    assert read_tree(app, "unknown") is None


def test_a_first_task_that_has_expired_is_no_obstacle(app: Celeriac) -> None:
    _task(app, "b", parent_id="gone")
    root = read_tree(app, "b")
    assert root is not None
    assert root.id == "b"


def test_circles_end(app: Celeriac) -> None:
    _task(app, "a", "b", parent_id="b")
    _task(app, "b", "a", parent_id="a")
    root = read_tree(app, "a")
    assert root is not None
    assert _drawn(root) == {"b": [{"a": ["b"]}]}


def test_a_wide_tree_takes_few_questions(app: Celeriac, monkeypatch: pytest.MonkeyPatch) -> None:
    _task(app, "a", _group("g", *(f"t{number}" for number in range(2500))))
    questions: list[int] = []
    get = app.backend.get  # type: ignore[union-attr]

    def counted(ids: Any) -> Any:
        questions.append(len(ids))
        return get(ids)

    monkeypatch.setattr(app.backend, "get", counted)
    root = read_tree(app, "a")
    assert root is not None
    assert root.children[0].count() == {"PENDING": 2500}
    assert questions == [1, 1, 1000, 1000, 500]
