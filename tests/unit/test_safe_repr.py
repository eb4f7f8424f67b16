"""Texts of values: like `repr` where that is short, bounded where it is not, and never an exception."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.safe_repr import saferepr
from tests.support.apps import memory_app, sent
from tests.support.calls import count_calls


@pytest.mark.parametrize(
    "value",
    [
        (),
        {},
        [],
        (1,),
        (2, 3),
        ["a"],
        {"b": 1},
        ([1],),
        {"k": (4,)},
        ("naïve ☃ 😀",),
        (float("nan"), float("inf")),
        (1, "two", [3.0, None, True]),
        {1: "c", None: "b", 1.5: "d"},
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), decimal.Decimal("1.50"), uuid.UUID(int=5)),
        set(),
        frozenset(),
        {1},
        frozenset({1}),
        (b"text", b""),
        "it's",
        5,
        None,
        (set(), {"a": []}),
        collections.OrderedDict(a=1),
        (2**64, -(10**30)),
        "x" * 500,
        {("a", 1): "key"},
    ],
    ids=repr,
)
def test_small_values_look_as_in_python(value: Any) -> None:
    assert saferepr(value) == repr(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (([[[[[[1]]]]]], {"a": {"b": {"c": {"d": 1}}}}), "([[[...]]], {'a': {'b': {...}}})"),
        (([[[]]],), "([[[]]],)"),
        ((b"\xff\x00", b"caf\xc3\xa9"), "(b'ff00', b'café')"),
        ("x" * 2000, "'" + "x" * 1024 + "...'"),
        (("x" * 3000, list(range(2000))), "('" + "x" * 1023 + "...', ...)"),
        ("\ud800", r"'\ud800'"),
        ("line\nbreak", r"'line\nbreak'"),
        ((1, (2, (3, (4,)))), "(1, (2, (3, (...))))"),
    ],
)
def test_celerys_forms(value: Any, text: str) -> None:
    assert saferepr(value) == text


def test_levels_can_be_chosen() -> None:
    assert saferepr([[[1]]], maxlevels=1) == "[[...]]"


@pytest.mark.parametrize(
    "value",
    [
        list(range(10**6)),
        {number: number for number in range(10**5)},
        set(range(10**5)),
        ["x" * 10**6] * 100,
        [[0] * 1000] * 1000,
        b"\xff" * 10**6,
        b"x" * 10**6,
        [object()] * 10**4,
        (10**100_000,),
        [{"k": "v"}] * 10**4,
    ],
    ids=range(10),
)
def test_huge_values_are_cut_with_little_work(value: Any) -> None:
    counted = count_calls(lambda: saferepr(value))
    assert len(counted.result) < 1200
    assert counted.calls < 3000, "in proportion to the text, not to the value"


def test_half_a_character_at_the_cut_is_no_reason_for_hex() -> None:
    assert saferepr("é".encode() * 1000, maxlen=10).startswith("b'ééé")
    assert saferepr(b"\xff" + b"x" * 1000, maxlen=10).startswith("b'ff78")


def test_a_value_that_contains_itself() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert saferepr(loop) == "[1, [1, [1, [...]]]]"


class RaisingRepr:
    def __repr__(self) -> str:
        raise ValueError("no")


class NoRepr:
    __repr__ = None  # type: ignore[assignment]


class UnhashableRepr:
    __repr__: Any = []


class SurrogateRepr:
    def __repr__(self) -> str:
        return "\ud800"


class LongRepr:
    def __repr__(self) -> str:
        return "y" * 5000


class RaisingList(list[int]):
    def __len__(self) -> int:
        raise RuntimeError

    def __bool__(self) -> bool:
        raise RuntimeError


class RaisingDict(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError


Named = collections.namedtuple("Named", "x")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (RaisingRepr(), "<RaisingRepr object, its __repr__ raised ValueError>"),
        (NoRepr(), "<NoRepr object, its __repr__ raised TypeError>"),
        (SurrogateRepr(), r"\ud800"),
        (LongRepr(), "y" * 1024 + "..."),
        (RaisingList([1]), "<RaisingList object, reading it raised RuntimeError>"),
        (RaisingDict(a=1), "{<RaisingDict object, reading it raised RuntimeError>"),
        (Named(1), "Named(x=1)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_strange_objects(value: Any, text: str) -> None:
    assert saferepr(value) == text
    assert text in saferepr([value], maxlen=2000)


def test_an_object_whose_repr_is_no_method() -> None:
    assert "UnhashableRepr" in saferepr(UnhashableRepr())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner) | st.frozensets(st.integers()),
    max_leaves=30,
)


@settings(deadline=None)
@given(values, st.integers(0, 200), st.integers(0, 4))
def test_any_value_has_a_bounded_text(value: Any, maxlen: int, maxlevels: int) -> None:
    text = saferepr(value, maxlen, maxlevels)
    text.encode()
    assert len(text) <= 10 * maxlen + 60


def test_a_setting_says_how_deep_the_texts_of_calls_go() -> None:
    deep = [[[[["x"]]]]]
    for levels, expected, named in (
        (3, "([[[...]]],)", "[[[...]]]"), (2, "([[...]],)", "[[...]]"), (9, "([[[[['x']]]]],)", "[[[[['x']]]]]"),
    ):  # fmt: skip
        app = memory_app(task_repr_maxlevels=levels)
        for task in (app.task(lambda value, key=None: None, name="t"), app.signature("unknown")):
            task.apply_async((deep,), {"key": deep})
            [message] = sent(app)
            assert message.headers["argsrepr"] == expected
            assert message.headers["kwargsrepr"] == f"{{'key': {named}}}"
