"""Pydantic models as arguments and results: `@app.task(pydantic=True)`."""

from __future__ import annotations

import json
from typing import Any, Optional

import pytest
from pydantic import BaseModel, ValidationError, ValidationInfo, field_validator

from celeriac import Celeriac
from celeriac.modeling import pydantic_wrapper
from tests.support.apps import memory_app, run_all, sent


class Order(BaseModel):
    item: str
    count: int = 1


class Receipt(BaseModel):
    total: int
    note: str | None = None


class Tagged(BaseModel):
    tag: str

    @field_validator("tag")
    @classmethod
    def from_context(cls, value: str, info: ValidationInfo) -> str:
        context: Any = info.context
        return f"{value} {context['celery_task_name']} {context.get('shop')} {type(context['celery_app']).__name__}"


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


def test_dicts_become_the_annotated_models_and_a_returned_model_a_dict(app: Celeriac) -> None:
    """[B-TASK-048, B-TASK-049]"""

    @app.task(pydantic=True)
    def sell(order: Order, price: int) -> Receipt:
        assert isinstance(order, Order)
        return Receipt(total=order.count * price)

    result = sell.delay({"item": "leek", "count": 3}, price=2)  # type: ignore[arg-type]
    run_all(app)
    assert result.get(timeout=1) == {"total": 6, "note": None}


def test_models_that_a_caller_passes_travel_as_plain_data(app: Celeriac) -> None:
    """[B-TASK-053]"""

    @app.task(pydantic=True)
    def sell(order: Order, also: Order | None = None) -> str:
        return f"{order.item} {also.item if also else None}"

    result = sell.delay(Order(item="leek"), also=Order(item="beet"))
    (message,) = sent(app)
    assert json.loads(message.body)[:2] == [[{"item": "leek", "count": 1}], {"also": {"item": "beet", "count": 1}}]
    app.transport.publish([message])
    run_all(app)
    assert result.get(timeout=1) == "leek beet"
    assert sell.apply((Order(item="kale"),)).get() == "kale None"
    assert sell(Order(item="leek")) == "leek None"


def test_pickle_carries_models_as_they_are(app: Celeriac) -> None:
    """[B-TASK-053]"""
    app.conf.accept_content = ["pickle"]

    @app.task(pydantic=True, serializer="pickle")
    def sell(order: Any) -> bool:
        return isinstance(order, Order)

    result = sell.delay(Order(item="leek"))
    run_all(app)
    assert result.get(timeout=1) is True


def test_optional_models_are_made_unions_and_lists_are_not(app: Celeriac) -> None:
    """[B-TASK-050]"""
    seen: list[Any] = []

    @app.task(pydantic=True)
    def sell(one: Optional[Order], other: Order | None, either: Order | Receipt, many: list[Order]) -> None:  # noqa: UP045
        seen.append([type(each).__name__ for each in (one, other, either, *many)])

    form = {"item": "leek"}
    sell.apply((form, None, form, [form]))
    sell.apply((None, form, form, []))
    assert seen == [["Order", "NoneType", "dict", "dict"], ["NoneType", "Order", "dict"]]


def test_invalid_input_fails_the_task(app: Celeriac) -> None:
    """[B-TASK-051]"""

    @app.task(pydantic=True)
    def sell(order: Order) -> None:
        raise AssertionError("not reached")

    result = sell.delay({"count": 3})  # type: ignore[arg-type]
    run_all(app)
    assert result.state == "FAILURE"
    assert type(result.result).__name__ == "ValidationError"
    assert "item" in str(result.result)
    with pytest.raises(ValidationError):
        sell.apply(({"count": 3},)).get()


def test_strictness_context_and_the_form_of_the_dump(app: Celeriac) -> None:
    """[B-TASK-052]"""

    @app.task(pydantic=True, pydantic_strict=True, name="strict")
    def strict(order: Order) -> None: ...

    @app.task(
        pydantic=True, name="tagged", pydantic_context={"shop": "acme"}, pydantic_dump_kwargs={"exclude_none": True}
    )
    def tagged(it: Tagged) -> Receipt:
        return (
            Receipt(total=len(it.tag.split()), note=None) if it.tag == "a tagged acme Celeriac" else Receipt(total=-1)
        )

    assert strict.apply(({"item": "leek", "count": "3"},)).state == "FAILURE"
    assert tagged.apply(({"tag": "a"},)).get() == {"total": 4}


def test_a_bound_task_a_coroutine_and_an_annotation_that_comes_later(app: Celeriac) -> None:
    @app.task(pydantic=True, bind=True)
    def bound(self: Any, order: Order) -> str:
        return f"{self.request.id} {order.item}"

    @app.task(pydantic=True)
    async def coroutine(order: Order) -> Receipt:
        return Receipt(total=order.count)

    @app.task(pydantic=True)
    def later(order: Later) -> int:
        return order.number

    form = {"item": "leek", "count": 7}
    assert bound.apply((form,), task_id="i").get() == "i leek"
    assert coroutine.apply((form,)).get() == {"total": 7, "note": None}
    assert later.apply(({"number": 5},)).get() == 5


class Later(BaseModel):
    number: int


def test_arguments_are_checked_when_it_is_called(app: Celeriac) -> None:
    """[B-TASK-009]"""

    @app.task(pydantic=True)
    def sell(order: Order) -> None: ...

    with pytest.raises(TypeError, match="missing 1 required"):
        sell.delay()  # type: ignore[call-arg]


def test_a_returned_value_that_is_no_model_stays_as_it_is(app: Celeriac) -> None:
    @app.task(pydantic=True)
    def sell(order: Order) -> Receipt:
        return {"total": 1}  # type: ignore[return-value]

    assert sell.apply(({"item": "leek"},)).get() == {"total": 1}


def test_a_function_is_wrapped_without_making_a_task_of_it(app: Celeriac) -> None:
    sell = pydantic_wrapper(app, lambda order, times=1: order, "sell")
    assert sell({"item": "leek"}) == {"item": "leek"}  # nothing is annotated

    def double(order: Later) -> Later:
        return Later(number=order.number * 2)

    assert pydantic_wrapper(app, double, "double", strict=False)({"number": "4"}) == {"number": 8}
    with pytest.raises(ValidationError):
        pydantic_wrapper(app, double, "double")({"number": "4"})
