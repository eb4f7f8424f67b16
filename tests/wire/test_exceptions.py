"""Exceptions as data: nothing that a task raises stops a worker or a client, and the client sees what was raised."""

from __future__ import annotations

import asyncio
import pickle
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac import errors
from celeriac.codec import dumps
from celeriac.wire.exceptions import exception_form, exception_from_form


class Plain(Exception):
    class Inner(ValueError):
        pass


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class OwnText(Exception):
    def __init__(self, *, code: int) -> None:
        self.code = code

    def __str__(self) -> str:
        return f"code is {self.code}"


class Wrapping(Exception):
    def __init__(self, user: str) -> None:
        super().__init__(f"no user {user}")


class NoSuper(Exception):
    def __init__(self, first: int, second: int) -> None:
        self.second = second


class RaisingText(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class RaisingInit(Exception):
    armed = False

    def __init__(self, *args: Any) -> None:
        if self.armed:
            raise SystemError
        super().__init__(*args)


class NoSubclasses(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")

    def __init_subclass__(cls) -> None:
        raise TypeError

    def __new__(cls, **kwargs: Any) -> NoSubclasses:
        return super().__new__(cls)


class StrangeArgs(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]
        raise RuntimeError


def round_trip(exc: BaseException) -> Exception:
    form = exception_form(exc)
    dumps(form)
    return exception_from_form(form)


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("boom", 42),
        KeyError("x"),
        Plain(),
        Plain.Inner("nested"),
        OSError(2, "No such file"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        errors.MaxRetriesExceededError("enough"),
        errors.Retry("later", KeyError("x"), 30),
        errors.MessageTooLarge("too large"),
        errors.OperationalError("down"),
        errors.EncodeError("no"),
    ],
    ids=repr,
)
def test_the_same_class_and_text_come_back(exc: Exception) -> None:
    value = round_trip(exc)
    assert type(value) is type(exc)
    assert str(value) == str(exc)


@pytest.mark.parametrize(
    ("exc", "module"),
    [
        (errors.NotRegistered("t"), "celery.exceptions"),
        (errors.TimeLimitExceeded(1), "billiard.exceptions"),
        (errors.EncodeError("x"), "kombu.exceptions"),
        (errors.LeaseLost("x"), "celeriac.errors"),
        (Plain("x"), __name__),
    ],
)
def test_classes_stand_under_the_module_that_a_stock_client_knows(exc: Exception, module: str) -> None:
    assert exception_form(exc)["exc_module"] == module


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (KeywordOnly(code=7), "code 7"),
        (OwnText(code=7), "code is 7"),
        (Wrapping("bob"), "no user bob"),
        (NoSuper(1, 2), "(1, 2)"),
        (NoSubclasses(code=7), "code 7"),
        (ExceptionGroup("several", [ValueError(1)]), "several (1 sub-exception)"),
    ],
)
def test_a_class_that_cannot_be_rebuilt_keeps_its_name_and_text(exc: Exception, text: str) -> None:
    value = round_trip(exc)
    assert type(value).__name__ == type(exc).__name__
    assert type(value).__module__ == type(exc).__module__
    if not isinstance(exc, ExceptionGroup):
        assert str(value) == text


@pytest.mark.parametrize("exc", [KeywordOnly(code=7), OwnText(code=7), Wrapping("bob")])
def test_except_clauses_of_such_a_class_still_work(exc: Exception) -> None:
    with pytest.raises(type(exc)):
        raise round_trip(exc)


@pytest.mark.parametrize("exc", [RaisingText("x"), StrangeArgs("x"), Plain(object()), Plain(10**5000), Plain("\ud800")])
def test_strange_exceptions_do_not_raise(exc: Exception) -> None:
    assert type(round_trip(exc)).__name__ == type(exc).__name__


def test_a_constructor_that_raises_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    form = exception_form(RaisingInit("text"))
    monkeypatch.setattr(RaisingInit, "armed", True)
    value = exception_from_form(form)
    assert isinstance(value, RaisingInit)
    assert str(value) == "text"


def test_arguments_that_do_not_serialize_become_their_repr() -> None:
    form = exception_form(Plain(7, {1}, [object]))
    assert form["exc_message"] == [7, "{1}", "[<class 'object'>]"]
    assert exception_form(Plain({1}), "pickle")["exc_message"] == [{1}]


def test_causes_and_notes_come_along() -> None:
    exc = ValueError("outer")
    exc.add_note("while testing")
    exc.__cause__ = KeyError("inner")
    value = round_trip(exc)
    assert value.__notes__ == ["while testing"]
    assert isinstance(value.__cause__, KeyError)
    assert value.__cause__.args == ("inner",)


def test_causes_in_a_loop_end() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert str(round_trip(first)) == "first"
    first.__cause__ = first
    assert "exc_cause" not in exception_form(first)


@pytest.mark.parametrize("exc", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), errors.WorkerShutdown()])
def test_what_would_end_the_clients_program_comes_as_a_plain_exception(exc: BaseException) -> None:
    value = round_trip(exc)
    assert isinstance(value, Exception)
    assert type(value).__name__ == type(exc).__name__


@pytest.mark.parametrize(
    ("name", "module"),
    [("system", "os"), ("Popen", "subprocess"), ("int", "builtins"), ("__import__", "builtins"), ("path.join", "os")],
)
def test_only_exception_classes_are_called(name: str, module: str) -> None:
    value = exception_from_form({"exc_type": name, "exc_message": ["true"], "exc_module": module})
    assert type(value).__mro__[1] is Exception
    assert value.args == ("true",)


def test_nothing_is_imported() -> None:
    assert "this" not in sys.modules
    exception_from_form({"exc_type": "X", "exc_message": [], "exc_module": "this"})
    assert "this" not in sys.modules


def test_no_code_of_a_module_is_run_to_find_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(name: str) -> Any:
        raise AssertionError(f"asked for {name}")

    module = ModuleType("lazy_module")
    vars(module)["__getattr__"] = lazy
    monkeypatch.setitem(sys.modules, "lazy_module", module)
    value = exception_from_form({"exc_type": "X", "exc_message": ["a"], "exc_module": "lazy_module"})
    assert str(value) == "a"


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"exc_type": "X", "exc_message": "text only", "exc_module": None}, "text only"),
        ({"exc_type": "X"}, ""),
        ({"exc_type": "ValueError", "exc_message": "old form", "exc_module": "builtins"}, "old form"),
        ("a text", "a text"),
        (None, "None"),
        ([1, 2], "[1, 2]"),
        ({"exc_message": "x"}, "{'exc_message': 'x'}"),
    ],
)
def test_other_forms(form: Any, text: str) -> None:
    assert str(exception_from_form(form)) == text


def test_a_stand_in_can_be_pickled() -> None:
    value = exception_from_form({"exc_type": "Gone", "exc_message": ["a", 1], "exc_module": "nowhere"})
    copy = pickle.loads(pickle.dumps(value))
    assert (str(copy), type(copy)) == (str(value), type(value))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
class_names = st.sampled_from(
    ["ValueError", "OSError", "UnicodeDecodeError", "ExceptionGroup", "SystemExit", "int", "a.b", ""]
)
forms = st.fixed_dictionaries(
    {},
    optional={
        "exc_type": class_names | json_values,
        "exc_module": st.sampled_from(["builtins", "celery.exceptions", "asyncio", ""]) | json_values,
        "exc_message": json_values,
        "exc_text": json_values,
        "exc_notes": json_values,
        "exc_cause": json_values,
    },
)


@settings(deadline=None)
@given(forms | json_values)
def test_any_form_gives_an_exception(form: Any) -> None:
    value = exception_from_form(form)
    assert isinstance(value, Exception)
    assert isinstance(str(value), str)
