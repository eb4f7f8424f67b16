"""What composing signatures makes: the documented rules, and the very forms that stock Celery 5.7 makes of the same."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import Celeriac, Task, chain, chord, chunks, group, maybe_signature, signature, xmap, xstarmap
from celeriac.canvas import _chain, _chord
from celeriac.errors import ChordErrorCallbackWarning
from tests.support.apps import memory_app


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


@pytest.fixture
def a(app: Celeriac) -> Task[..., Any]:
    return app.task(lambda *args: args, name="a", typing=False)


def shape(sig: Any) -> str:
    """A workflow in a line: a1 is the task called with 1."""
    kind, inner = sig["subtask_type"], sig["kwargs"]
    if kind == "chain":
        return f"chain({', '.join(map(shape, inner['tasks']))})"
    if kind == "group":
        return f"group({', '.join(map(shape, inner['tasks']))})"
    if kind == "chord":
        header = inner["header"]
        parts = header if isinstance(header, list) else header["kwargs"]["tasks"]
        return f"chord([{', '.join(map(shape, parts))}], {shape(inner['body'])})"
    return f"{sig['task']}{''.join(map(str, sig['args']))}"


#: An expression, in which A() is the next call of a task, and what stock Celery makes of it.
FORMS = [
    ("chain(A())", "chain(a1)"),
    ("chain([A(), A()])", "chain(a1, a2)"),
    ("chain([A()])", "chain(a1)"),
    ("chain(A() for _ in range(2))", "chain(a1, a2)"),
    ("chain(A(), A())", "chain(a1, a2)"),
    ("chain(chain(A(), A()), A())", "chain(a1, a2, a3)"),
    ("chain() | A()", "chain(a1)"),
    ("chain() | group(A(), A())", "group(a1, a2)"),
    ("A() | A()", "chain(a1, a2)"),
    ("A() | A() | A()", "chain(a1, a2, a3)"),
    ("A() | chain(A(), A())", "chain(a1, a2, a3)"),
    ("chain(A(), A()) | chain(A(), A())", "chain(a1, a2, a3, a4)"),
    ("A() | group(A(), A())", "chain(a1, group(a2, a3))"),
    ("A() | group(A())", "chain(a1, a2)"),
    ("A() | group([])", "chain(a1, group())"),
    ("A() | chord([A()], A())", "chain(a1, chord([a2], a3))"),
    ("group(A(), A()) | A()", "chord([a1, a2], a3)"),
    ("group(A()) | A()", "chord([a1], a2)"),
    ("group(A(), A()) | group(A(), A())", "chord([a1, a2], group(a3, a4))"),
    ("group(A(), A()) | group(A())", "chord([a1, a2], group(a3))"),
    ("group(A(), A()) | group([])", "group(a1, a2)"),
    ("group(A(), A()) | chain(A(), A())", "chord([a1, a2], chain(a3, a4))"),
    ("group(A(), A()) | chord([A(), A()], A())", "chord([a1, a2], chord([a3, a4], a5))"),
    ("chain(A(), group(A(), A())) | A()", "chain(a1, chord([a2, a3], a4))"),
    ("chain(A(), group(A(), A())) | group(A(), A())", "chain(a1, group(a2, a3), group(a4, a5))"),
    ("chain(A(), group(A(), A()), A())", "chain(a1, chord([a2, a3], a4))"),
    ("chain(A(), group(A()), A())", "chain(a1, a2, a3)"),
    ("chain(group(A(), A()), A())", "chord([a1, a2], a3)"),
    ("chain(group(A()), A())", "chain(a1, a2)"),
    ("chain(group(A()), group(A()))", "chain(a1, a2)"),
    ("chain(group(A(), A()), group(A(), A()))", "chord([a1, a2], group(a3, a4))"),
    ("chain(A(), group(A(), A()), group(A(), A()), A())", "chain(a1, group(a2, a3), chord([a4, a5], a6))"),
    ("chain(A(), chain(A(), group(A(), A())), A())", "chain(a1, a2, chord([a3, a4], a5))"),
    ("chord([A(), A()], A()) | A()", "chord([a1, a2], chain(a3, a4))"),
    ("chord([A(), A()], A()) | chain(A(), A())", "chain(chord([a1, a2], a3), a4, a5)"),
    ("chord([A(), A()], A()) | group(A(), A())", "chain(chord([a1, a2], a3), group(a4, a5))"),
    ("chord([A(), A()], A()) | group(A())", "chord([a1, a2], chain(a3, a4))"),
    ("chord([A(), A()], A()) | chord([A(), A()], A())", "chord([a1, a2], chain(a3, chord([a4, a5], a6)))"),
    ("chain(A(), chord([A(), A()], A())) | A()", "chain(a1, chord([a2, a3], chain(a4, a5)))"),
    (
        "chain(A(), chord([A(), A()], A())) | group(A(), A())",
        "chain(a1, chord([a2, a3], chain(a4, group(a5, a6))))",
    ),
    (
        "chain(A(), chord([A(), A()], A()), chord([A(), A()], A()))",
        "chain(a1, chord([a2, a3], a4), chord([a5, a6], a7))",
    ),
    ("chain(A(), A()) | group([])", "chain(a1, a2)"),
    ("group(A(), group(A(), A()))", "group(a1, group(a2, a3))"),
    ("group(group(A(), A()))", "group(a1, a2)"),
    ("chord(group(A(), A()), A())", "chord([a1, a2], a3)"),
    ("chord(A(), A())", "chord([a1], a2)"),
    ("chord([group(A(), A()), A()], A())", "chord([group(a1, a2), a3], a4)"),
]


@pytest.mark.parametrize(("expression", "expected"), FORMS)
def test_forms_are_celerys(a: Task[..., Any], expression: str, expected: str) -> None:
    """[B-CANVAS-015, B-CANVAS-017, B-CANVAS-018, B-CANVAS-019, B-CANVAS-032, B-CANVAS-033, B-CANVAS-034, B-CANVAS-036,
    B-CANVAS-038, B-CANVAS-040, B-CANVAS-041, B-CANVAS-042]"""
    numbers = iter(range(1, 100))
    names = {"A": lambda: a.s(next(numbers)), "chain": chain, "group": group, "chord": chord}
    made = eval(expression, names)
    assert shape(made) == expected
    again = maybe_signature(json.loads(json.dumps(made)), a.app)
    assert type(again) in (_chain, group, _chord, type(made))
    assert json.dumps(again) == json.dumps(made)
    assert json.dumps(pickle.loads(pickle.dumps(made))) == json.dumps(made)


def test_the_dict_forms(a: Task[..., Any]) -> None:
    """[B-CANVAS-003, B-CANVAS-004, B-CANVAS-089]"""
    one = {"task": "a", "args": [1], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    plain = json.loads(json.dumps(chord([a.s(1)], a.s(1))))
    assert plain == {
        "task": "celery.chord", "args": [], "kwargs": {"kwargs": {}, "header": [one], "body": one}, "options": {},
        "subtask_type": "chord", "immutable": False,
    }  # fmt: skip
    plain = json.loads(json.dumps(group(a.s(1))))
    assert plain == {
        "task": "celery.group", "args": [], "kwargs": {"tasks": [one]}, "options": {}, "subtask_type": "group",
        "immutable": False,
    }  # fmt: skip
    assert isinstance(signature(plain, app=a.app), group)
    plain = json.loads(json.dumps(a.s(1) | a.s(1)))
    assert plain == {
        "task": "celery.chain", "args": [], "kwargs": {"tasks": [one, one]}, "options": {}, "subtask_type": "chain",
        "immutable": False,
    }  # fmt: skip
    empty = {**one, "args": []}
    assert json.loads(json.dumps(a.map([1, 2]))) == {
        "task": "celery.map", "args": [], "kwargs": {"task": empty, "it": [1, 2]}, "options": {}, "subtask_type": None,
        "immutable": True,
    }  # fmt: skip
    assert json.loads(json.dumps(a.starmap([(1, 2)]))) == {
        "task": "celery.starmap", "args": [], "kwargs": {"task": empty, "it": [[1, 2]]}, "options": {},
        "subtask_type": None, "immutable": True,
    }  # fmt: skip
    assert json.loads(json.dumps(a.chunks([(1, 2), (3, 4)], 1))) == {
        "task": "celery.chunks", "args": [], "kwargs": {"task": empty, "it": [[1, 2], [3, 4]], "n": 1}, "options": {},
        "subtask_type": None, "immutable": True,
    }  # fmt: skip
    assert (type(a.map([])), type(a.starmap([])), type(a.chunks([], 1))) == (xmap, xstarmap, chunks)


def test_chunks_become_a_group_of_starmaps(a: Task[..., Any]) -> None:
    """[B-CANVAS-079, B-CANVAS-081, B-CANVAS-082]"""
    made = a.chunks(((i, i) for i in range(5)), 2).group()
    assert isinstance(made, group)
    assert [each["task"] for each in made.tasks] == ["celery.starmap"] * 3
    assert [each["kwargs"]["it"] for each in made.tasks] == [[(0, 0), (1, 1)], [(2, 2), (3, 3)], [(4, 4)]]
    assert len(a.chunks(zip(range(1000), range(1000), strict=True), 10).group()) == 100
    for wrong in (0, -1, 1.5, "2", True):
        with pytest.raises(ValueError, match="whole number above 0"):
            a.chunks([], wrong)  # type: ignore[arg-type]


def test_links_of_composites(a: Task[..., Any]) -> None:
    """[B-CANVAS-026, B-CANVAS-027, B-CANVAS-048, B-CANVAS-049, B-CANVAS-092]"""
    steps = chain(a.s(1), a.s(2))
    steps.link(a.s(3))
    steps.link_error(a.s(4))
    first, last = steps.unchain_tasks()
    assert ([shape(s) for s in first.options["link_error"]], "link" in first.options) == (["a4"], False)
    assert [shape(s) for s in last.options["link"] + last.options["link_error"]] == ["a3", "a4"]
    assert [shape(step) for step in steps.tasks] == ["a1", "a2"]
    assert "link" not in steps.tasks[1].options
    many = group(a.s(1), a.s(2))
    many.link(a.s(3))
    many.link_error(a.s(4))
    assert [(shape(s), s.immutable) for s in many.tasks[0].options["link"]] == [("a3", True)]
    assert "link" not in many.tasks[1].options
    assert [[shape(s) for s in member.options["link_error"]] for member in many.tasks] == [["a4"], ["a4"]]


def test_links_of_a_chord(app: Celeriac, a: Task[..., Any]) -> None:
    """[B-CANVAS-061, B-CANVAS-063, B-CANVAS-064]"""
    whole = chord([a.s(1), a.s(2)], a.s(3))
    whole.link(a.s(4))
    with pytest.warns(ChordErrorCallbackWarning, match="task_allow_error_cb_on_chord_header"):
        whole.link_error(a.s(5))
    assert [shape(s) for s in whole.body.options["link"] + whole.body.options["link_error"]] == ["a4", "a5"]
    assert all(part.options == {} for part in whole.tasks)
    app.conf.task_allow_error_cb_on_chord_header = True
    whole.link_error(a.s(6))
    assert [[shape(s) for s in part.options["link_error"]] for part in whole.tasks] == [["a6"], ["a6"]]


def test_members_can_be_changed_together(a: Task[..., Any]) -> None:
    """[B-CANVAS-009, B-CANVAS-051, B-CANVAS-052]"""
    many = group(a.s(1), a.s(2), a.s(3), a.s(4))
    many.set_immutable(True)
    assert all(member.immutable for member in many.tasks)
    assert [member.options["countdown"] for member in many.skew(1, 6, 2).tasks] == [1, 3, 5, 1]
    one = a.s(1)
    assert one.set(immutable=True) is one
    assert one.immutable
    whole = chord([a.s(1)], a.s(2))
    whole.set_immutable(True)
    assert (whole.tasks[0].immutable, whole.body.immutable) == (True, False)


def test_what_can_not_be_composed(a: Task[..., Any]) -> None:
    """[B-CANVAS-090, B-CANVAS-050]"""
    for make in (lambda: a.s(1) | 3, lambda: chain(a.s(1), 3), lambda: group([a]), lambda: a.s(1) | {"task": "a"}):
        with pytest.raises(TypeError, match="signature"):
            make()
    with pytest.raises(TypeError, match=r"pass a\.s\(\)"):
        group([a])
    for option in ("link", "link_error"):
        with pytest.raises(TypeError, match=f"Cannot add {option} to group"):
            group(a.s(1)).apply_async(**{option: a.s(2)})
    with pytest.raises(ValueError, match="a chord needs a body"):
        chord([a.s(1)])()


def test_a_generator_is_not_consumed_before_it_is_needed(a: Task[..., Any]) -> None:
    """[B-CANVAS-046]"""
    made = []

    def members() -> Any:
        for number in range(3):
            made.append(number)
            yield a.s(number)

    many = group(members())
    assert made == []
    assert repr(many) == "group(<generator>)"
    assert shape(many | a.s(9)) == "chord([a0, a1, a2], a9)"
    assert made == [0, 1, 2]


def test_clones_are_independent(a: Task[..., Any]) -> None:
    """[B-CANVAS-007]"""
    for whole in (chain(a.s(1), a.s(2)), group(a.s(1), a.s(2)), chord([a.s(1)], a.s(2))):
        before = json.dumps(whole)
        twin = whole.clone()
        assert type(twin) is type(whole)
        twin.tasks[0].set(countdown=3)
        twin.tasks[0]["args"] = (7,)
        assert json.dumps(whole) == before


@pytest.mark.parametrize("make", [
    lambda a: chain(a.s(1), a.s(2)), lambda a: group(a.s(1), a.s(2)), lambda a: chord([a.s(1), a.s(2)], a.s(3)),
    lambda a: chain(a.s(1), group(a.s(1), a.s(2)), a.s(4)), lambda a: chord([a.s(1)], group(a.s(2), a.s(3))),
])  # fmt: skip
def test_freezing_fixes_the_ids(app: Celeriac, a: Task[..., Any], make: Callable[[Any], Any]) -> None:
    """[B-CANVAS-087, B-CANVAS-021, B-CANVAS-057]"""
    whole = make(a)
    first = whole.freeze()
    assert whole.freeze().as_tuple() == first.as_tuple()
    assert whole.apply_async().as_tuple() == first.as_tuple()
    if isinstance(whole, _chain):
        assert whole.id == first.id


def test_repr_shows_the_calls(a: Task[..., Any]) -> None:
    assert repr(a.s(1) | a.s(2)) == "a(1) | a(2)"
    assert repr(group(a.s(1), a.s(2))) == "group([a(1), a(2)])"
    assert repr(chord([a.s(1)], a.s(2))) == "a(2) of [a(1)]"
    assert repr(chord([a.s(1)])) == "<chord without body: [a(1)]>"
    assert repr(a.map([1])) == "[a(x) for x in [1]]"
    assert repr(a.starmap([(1, 2)])) == "[a(*x) for x in [(1, 2)]]"
    assert repr(a.chunks([(1,)], 1)) == "a.chunks([(1,)], 1)"
    assert repr(chain()) == "<chain of nothing>"
