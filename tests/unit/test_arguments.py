"""The check of arguments: the same words as Python's own, and no check where a signature can't tell."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from celeriac.arguments import argument_checker


def _both(fun: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[str | None, str | None]:
    """What Python and the checker say about a call; None for nothing."""

    def said(called: Callable[..., Any]) -> str | None:
        try:
            called(*args, **kwargs)
        except TypeError as exc:
            return str(exc).rpartition(".")[2]
        return None

    return said(fun), said(argument_checker(fun))


_SOME = object()


def _plain(x: Any, y: Any) -> None: ...
def _defaults(x: Any, y: Any = _SOME, *, z: Any = "'_default'") -> None: ...
def _positional(x: Any, /, y: Any) -> None: ...
def _keywords(*, x: Any, y: Any = None) -> None: ...
def _rest(x: Any, *args: Any, **kwargs: Any) -> None: ...
def _annotated(x: int = 3, y: "no.such.Class" = None) -> "nothing.here": ...  # type: ignore[name-defined] # noqa: F821, UP037


class _Odd:
    def __call__(self, x: Any) -> None: ...


@pytest.mark.parametrize("fun", [_plain, _defaults, _positional, _keywords, _rest, _annotated])
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1,), {}), ((1, 2), {}), ((1, 2, 3), {}), ((1,), {"y": 2}), ((1,), {"x": 2}), ((), {"x": 1, "z": 2})],
)
def test_the_checker_says_what_python_says(fun: Callable[..., Any], args: Any, kwargs: Any) -> None:
    """[B-TASK-009]"""
    python, ours = _both(fun, *args, **kwargs)
    assert ours == python


def test_the_first_parameter_of_a_bound_task_is_its_own() -> None:
    check = argument_checker(lambda self, x: None, bound=True)
    check(1)
    with pytest.raises(TypeError):
        check(1, 2)


def test_a_decorator_may_take_other_arguments_than_the_function_in_it() -> None:
    def with_session(fun: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fun)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return fun("session", *args, **kwargs)

        return wrapper

    @with_session
    def work(session: str, x: int) -> None: ...

    argument_checker(work)(1)
    argument_checker(work, bound=True)("self is no argument of the caller", 1)


@pytest.mark.parametrize("fun", [functools.partial(_plain, 1), lambda y: None, _Odd()])
def test_callables_without_a_usable_name_are_checked(fun: Callable[..., Any]) -> None:
    check = argument_checker(fun)
    check(2)
    with pytest.raises(TypeError):
        check()


@pytest.mark.parametrize("fun", [print, dict.get, min])
def test_builtins_are_checked_as_far_as_they_tell_their_signature(fun: Callable[..., Any]) -> None:
    argument_checker(fun)({}, "a")


@pytest.mark.parametrize("name", ["<lambda>", "class", "", "two words"])
def test_a_name_that_is_no_name_does_no_harm(name: str) -> None:
    def fun(x: int) -> None: ...

    fun.__name__ = name
    argument_checker(fun)(1)
