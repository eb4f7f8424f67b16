"""Waiting for results of a running worker: each option of `get` takes part, and each wait has a twin for coroutines."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from celeriac import Celeriac, chord, group
from celeriac.errors import ChordError
from celeriac.testing.worker import start_worker
from celeriac.workflow_tree import read_tree


def told(app: Celeriac) -> tuple[Any, threading.Event]:
    """A task that tells a state and ends when it may."""
    go_on = threading.Event()

    @app.task(bind=True)
    def tell(self: Any) -> str:
        self.update_state(state="PROGRESS", meta={"current": 1, "total": 2})
        go_on.wait(20)
        return "done"

    return tell, go_on


@pytest.mark.behaviour("B-RESULT-007")
def test_get_tells_of_states_and_of_intervals_at_once(each_app: Celeriac) -> None:
    tell, go_on = told(each_app)
    seen: list[str] = []

    def on_interval() -> None:
        seen.append("interval")
        if "PROGRESS" in seen:
            go_on.set()

    with start_worker(each_app, pool="threads", concurrency=1):
        result = tell.delay()
        value = result.get(
            timeout=20, interval=0.01, on_interval=on_interval, on_message=lambda meta: seen.append(meta["status"])
        )
    assert value == "done"
    assert [state for state in seen if state != "interval"] == ["PROGRESS", "SUCCESS"]
    assert "interval" in seen[seen.index("PROGRESS") : seen.index("SUCCESS")]


def test_a_coroutine_is_told_of_states_and_of_intervals_too(app: Celeriac) -> None:
    tell, go_on = told(app)
    seen: list[str] = []

    def on_message(meta: dict[str, Any]) -> None:
        seen.append(meta["status"])
        go_on.set()

    with start_worker(app, pool="threads", concurrency=1):
        result = tell.delay()
        assert asyncio.run(result.aget(timeout=20, on_message=on_message)) == "done"
    assert seen[-1] == "SUCCESS"


def test_the_states_that_raise_can_be_chosen(app: Celeriac) -> None:
    @app.task
    def fail() -> None:
        raise LookupError("no")

    with start_worker(app, pool="threads", concurrency=1):
        result = fail.delay()
        with pytest.raises(LookupError):
            result.get(timeout=20)
        assert isinstance(result.get(timeout=20, PROPAGATE_STATES=["REVOKED"]), LookupError)


def test_whatever_asks_store_or_broker_has_a_twin_for_coroutines(each_app: Celeriac) -> None:
    add = each_app.task(lambda x, y: x + y, name="add")

    @each_app.task
    def spread(count: int) -> int:
        group(add.s(number, number) for number in range(count)).apply_async()
        return count

    async def twins() -> None:
        first = await spread.adelay(3)
        assert await first.aget(timeout=20) == 3
        assert await first.aready()
        members = first.children[0]
        assert await members.aget(timeout=20) == await members.ajoin_native(timeout=20) == [0, 2, 4]
        assert [node.id async for _, node in first.aiterdeps()] == [node.id for _, node in first.iterdeps()]
        assert await first.aget_leaf() == 4
        assert (await first.abuild_graph()).to_dot is not None
        await members.asave()
        assert await each_app.GroupResult.arestore(members.id) == members
        assert await members.arefresh() == []
        await members.adelete()
        assert await each_app.GroupResult.arestore(members.id) is None
        await members.aforget()
        await first.aforget()
        assert not first.exists()
        waits = add.apply_async((1, 1), countdown=3600)
        await waits.arevoke()
        assert waits.state == "REVOKED"

    with start_worker(each_app, pool="threads", concurrency=2):
        asyncio.run(twins())


def test_a_group_grows_for_coroutines(app: Celeriac) -> None:
    @app.task(bind=True)
    def spread(self: Any, count: int) -> int:
        for number in range(count):
            self.add_to_group(spread.s(number))
        return count

    async def all_of(result: Any) -> list[int]:
        await result.aget(timeout=20)
        while await result.arefresh():
            await result.aget(timeout=20)
        return sorted(await result.aget(timeout=20))

    with start_worker(app, pool="threads", concurrency=2):
        result = group(spread.s(3)).apply_async()
        assert asyncio.run(all_of(result)) == [0, 0, 0, 0, 1, 1, 2, 3]
        result.save()
        assert len(app.GroupResult.restore(result.id)) == 8


def test_the_header_of_a_chord_stays_visible_when_it_is_over(each_app: Celeriac) -> None:
    each_app.conf.result_extended = True
    add = each_app.task(lambda x, y: x + y, name="add")
    total = each_app.task(lambda values: sum(values), name="total")
    with start_worker(each_app, pool="threads", concurrency=2):
        body = chord([add.s(number, 1) for number in range(3)])(total.s())
        assert body.get(timeout=20) == 6
        failed = chord([add.s(1, 1), add.s(1, "x")])(total.s())
        assert isinstance(failed.get(timeout=20, propagate=False), ChordError)
    for result, states in ((body, ["SUCCESS"] * 3), (failed, ["SUCCESS", "FAILURE"])):
        for asked in (result.id, result.parent.id, result.parent.results[0].id):
            root = read_tree(each_app, asked)
            assert root is not None
            assert [member.state for member in root.children] == states
        root = read_tree(each_app, result.id)
        assert root is not None
        assert (root.id, root.is_group, [node.id for node in root.after]) == (result.parent.id, True, [result.id])
