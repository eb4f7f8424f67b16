"""What type checkers make of the public interface. Never run: mypy --strict has to find nothing here.

`assert_type` says what an expression must be; an ignored error must be one, since an unused ignore is an error itself.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

from celeriac import AsyncResult, Call, Celeriac, Context, EagerResult, Retry, Signature, Task, shared_task

app = Celeriac("typed")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(bind=True, max_retries=5)
def bound(self: Task[..., Any], name: str, *, loud: bool = False) -> list[str]:
    assert_type(self.request, Context)
    assert_type(self.request.retries, int)
    assert_type(self.retry(countdown=5, throw=False), Retry)
    return [name]


@app.task
async def coroutine(x: int) -> str:
    return str(x)


@app.task(name="named", queue="q")
async def named(x: int) -> bytes:
    return bytes(x)


@app.task(bind=True)
async def bound_coroutine(self: Task[..., Any], x: int) -> float:
    return float(x)


@shared_task
def shared(x: int) -> str:
    return str(x)


@shared_task(bind=True, rate_limit="5/s")
def shared_bound(self: Task[..., Any], x: int) -> bytes:
    return bytes(x)


@shared_task
async def shared_coroutine(x: int) -> int:
    return x


@app.task(batch=100, batch_wait=2.0)
def batch(calls: list[Call[[int, str]]]) -> list[float]:
    assert_type(calls[0].request, Context)
    assert_type(calls[0].id, str)
    return [1.0 for _ in calls]


@app.task(bind=True, batch=10)
def bound_batch(self: Task[..., Any], calls: list[Call[[int]]]) -> None:
    calls[0].retry(countdown=5)


@app.task(batch=10)
async def batch_coroutine(calls: list[Call[...]]) -> list[bytes | BaseException]:
    return [b""]


@shared_task(batch=10)
def shared_batch(calls: list[Call[[int]]]) -> list[int]:
    return [1]


by_hand = app.task(len, name="by_hand")


class Summing(Task[[int, int], int]):
    def run(self, x: int, y: int) -> int:
        return x + y


def what_things_are() -> None:
    assert_type(add(1, 2), int)
    assert_type(add.delay(1, y=2), AsyncResult[int])
    assert_type(add.delay(1).get(timeout=5), int)
    assert_type(add.apply_async((1, 2), countdown=5, queue="q"), AsyncResult[int])
    assert_type(add.apply((1, 2)), EagerResult[int])
    assert_type(add.apply((1, 2)).get(), int)
    assert_type(add.s(1), Signature)
    assert_type(add.si(1), Signature)
    assert_type(add.name, str)
    assert_type(add.max_retries, int | None)
    assert_type(add.delay(1).id, str)
    assert_type(add.delay(1).state, str)
    assert_type(add.delay(1).ready(), bool)
    assert_type(add.AsyncResult("id"), AsyncResult[int])
    assert_type(bound("a", loud=True), list[str])
    assert_type(bound.delay("a"), AsyncResult[list[str]])
    assert_type(shared.delay(1), AsyncResult[str])
    assert_type(shared_bound.delay(1), AsyncResult[bytes])
    assert_type(coroutine.delay(1), AsyncResult[str])
    assert_type(named.delay(1), AsyncResult[bytes])
    assert_type(bound_coroutine.delay(1), AsyncResult[float])
    assert_type(shared_coroutine.delay(1), AsyncResult[int])
    assert_type(batch.delay(1, "a"), AsyncResult[float])
    assert_type(batch(1, "a"), float)
    assert_type(bound_batch.delay(1), AsyncResult[None])
    assert_type(batch_coroutine.delay(1, x=2), AsyncResult[bytes | BaseException])
    assert_type(shared_batch.delay(1), AsyncResult[int])
    _pending: Coroutine[Any, Any, str] = coroutine(1)
    assert_type(by_hand.delay("text"), AsyncResult[int])
    assert_type(app.send_task("t"), AsyncResult[Any])
    assert_type(app.AsyncResult("id"), AsyncResult[Any])
    assert_type(Summing().delay(1, 2), AsyncResult[int])


async def what_coroutines_see() -> None:
    assert_type(await add.adelay(1), AsyncResult[int])
    assert_type(await (await add.adelay(1)).aget(timeout=5), int)
    assert_type(await add.aapply_async((1, 2), countdown=5), AsyncResult[int])
    assert_type(await (await coroutine.adelay(1)).aget(), str)
    assert_type(await coroutine(1), str)
    assert_type(await bound_coroutine(1), float)


def what_is_an_error() -> None:
    add.delay("x")  # type: ignore[arg-type]
    add.delay()  # type: ignore[call-arg]
    add.delay(1, 2, 3)  # type: ignore[call-arg]
    add.delay(1, z=2)  # type: ignore[call-arg]
    add("x")  # type: ignore[arg-type]
    bound.delay(5)  # type: ignore[arg-type]
    bound.delay("a", True)  # type: ignore[call-arg]
    coroutine.delay("x")  # type: ignore[arg-type]
    named.delay("x")  # type: ignore[arg-type]
    bound_coroutine.delay()  # type: ignore[call-arg]
    shared.delay("x")  # type: ignore[arg-type]
    shared_bound.delay("x")  # type: ignore[arg-type]
    batch.delay("x", "y")  # type: ignore[arg-type]
    batch.delay(1)  # type: ignore[call-arg]
    bound_batch.delay("x")  # type: ignore[arg-type]
    Summing().delay("x", 2)  # type: ignore[arg-type]
    text: str = add.delay(1).get()  # type: ignore[assignment]
    del text
    add.apply_async(5)  # type: ignore[arg-type]
    app.conf.task_serialiser = "json"  # type: ignore[attr-defined]
    app.conf.task_acks_late = "yes"  # type: ignore[assignment]


async def what_coroutines_get_wrong() -> None:
    await add.adelay("x")  # type: ignore[arg-type]
    number: int = await coroutine(1)  # type: ignore[assignment]
    del number
