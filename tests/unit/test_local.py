"""Stand-ins for objects that are found when they are used."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from celeriac.local import PromiseProxy, Proxy, maybe_evaluate, try_import


class Thing:
    """Has what Python asks objects for."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, more: int = 0) -> Any:
        return self.value + more

    def __enter__(self) -> str:
        return "entered"

    def __exit__(self, *_: object) -> None:
        self.value = "left"

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return "awaited"


def test_a_proxy_looks_its_object_up_at_each_use() -> None:
    found = [[1, 2]]
    proxy: Any = Proxy(lambda: found[0])
    assert proxy == [1, 2]
    assert len(proxy) == 2
    found[0] = [3]
    assert [*proxy, 4] == [3, 4]
    assert proxy + proxy == [3, 3]
    proxy.append(5)
    proxy[0] = 9
    assert found[0] == [9, 5]
    assert list(proxy) == [9, 5] and 5 in proxy and proxy[-1] == 5
    del proxy[0]
    assert repr(proxy) == str(proxy) == "[5]"
    assert isinstance(proxy, list) and not issubclass(type(proxy), list)
    assert bool(Proxy(lambda: [])) is False


def test_a_proxy_calculates_compares_and_formats_as_its_object() -> None:
    seven: Any = Proxy(lambda: 7)
    assert (seven + 1, 1 + seven, seven - 1, 1 - seven, seven * 2, seven / 2, seven // 2, seven % 4) == (
        8, 8, 6, -6, 14, 3.5, 3, 3,
    )  # fmt: skip
    assert (seven**2, divmod(seven, 2), -seven, abs(-seven), seven & 3, seven | 8, seven ^ 1, seven << 1) == (
        49, (3, 1), -7, 7, 3, 15, 6, 14,
    )  # fmt: skip
    assert seven < 8 and seven >= 7 and seven != 8
    assert (int(seven), float(seven), hash(seven), f"{seven:03}", [0] * seven) == (7, 7.0, hash(7), "007", [0] * 7)


def test_a_proxy_hands_on_attributes_calls_with_and_await() -> None:
    thing = Thing(3)
    proxy: Any = Proxy(lambda: thing)
    proxy.value = 4
    assert thing.value == 4
    assert proxy(more=1) == 5
    with proxy as entered:
        assert entered == "entered"
    assert thing.value == "left"
    del proxy.value
    assert not hasattr(thing, "value")

    async def wait() -> Any:
        return await proxy

    assert asyncio.run(wait()) == "awaited"


def test_a_proxy_takes_arguments_a_name_and_a_docstring() -> None:
    proxy: Any = Proxy(lambda *args, **kwargs: (args, kwargs), (1,), {"a": 2}, name="stand_in", __doc__="What it is.")
    assert proxy == ((1,), {"a": 2})
    assert (proxy.__name__, proxy.__doc__) == ("stand_in", "What it is.")
    assert Proxy(lambda: Thing).__name__ == "Thing"
    assert pickle.loads(pickle.dumps(Proxy(lambda: 7))) == 7


def test_a_proxy_without_an_object_can_be_shown() -> None:
    def nothing() -> None:
        raise RuntimeError("no app")

    assert repr(Proxy(nothing)) == "<Proxy without an object>"
    with pytest.raises(RuntimeError, match="no app"):
        _ = Proxy(nothing).name  # type: ignore[attr-defined]


def test_a_promise_is_kept_once_and_when_it_is_needed() -> None:
    made: list[int] = []
    told: list[str] = []

    def make() -> list[int]:
        made.append(1)
        return [7]

    promise: Any = PromiseProxy(make)
    promise.__then__(told.append, "first")
    assert not promise.__evaluated__() and made == [] and told == []
    assert promise[0] == 7 and promise == [7]
    assert promise.__evaluated__() and made == [1] and told == ["first"]
    promise.__then__(told.append, "second")
    assert told == ["first", "second"]


def test_maybe_evaluate_gives_the_object_itself() -> None:
    thing = Thing(1)
    assert maybe_evaluate(PromiseProxy(lambda: thing)) is thing
    assert maybe_evaluate(thing) is thing


def test_try_import_gives_the_module_or_the_default() -> None:
    assert try_import("json").__name__ == "json"
    assert try_import("there.is.no.such", 3) == 3
