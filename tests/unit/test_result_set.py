"""Sets and groups of results: waiting, order, errors, states in batches, keeping and plain forms."""

from __future__ import annotations

import asyncio
import pickle
import threading
from typing import Any

import pytest

from celeriac import AsyncResult, Celeriac, EagerResult, GroupResult, ResultSet, result_from_tuple
from celeriac.codec import dumps
from celeriac.errors import TimeoutError
from celeriac.result_steps import WINDOW
from celeriac.results.base import Record
from tests.support.apps import memory_app, run_all


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


@pytest.fixture
def add(app: Celeriac) -> Any:
    return app.task(lambda x, y: x + y, name="add")


def _store(app: Celeriac, task_id: str, value: Any = None, state: str = "SUCCESS", **fields: Any) -> None:
    if state != "SUCCESS" and value is None:
        value = {"exc_type": "ValueError", "exc_message": [f"of {task_id}"], "exc_module": "builtins"}
    app.backend.store([Record(id=task_id, state=state, result=dumps(value, "json")[2], **fields)])  # type: ignore[union-attr]


def _group(app: Celeriac, *ids: str, **options: Any) -> GroupResult:
    return app.GroupResult("g", [app.AsyncResult(task_id) for task_id in ids], **options)


@pytest.mark.behaviour("B-RESULT-027", "B-RESULT-006")
def test_values_come_in_the_order_of_the_members(app: Celeriac, add: Any) -> None:
    group = app.GroupResult("g", [add.delay(n, n) for n in range(5)])
    run_all(app)
    seen: list[Any] = []
    assert group.get(timeout=5, callback=lambda *given: seen.append(given)) == [0, 2, 4, 6, 8]
    assert sorted(seen) == sorted((member.id, 2 * n) for n, member in enumerate(group))
    assert group.join(timeout=5) == group.join_native(timeout=5) == asyncio.run(group.aget(timeout=5))
    assert asyncio.run(group.ajoin(timeout=5)) == [0, 2, 4, 6, 8]


def test_callbacks_of_join_are_called_in_order(app: Celeriac) -> None:
    group, seen = _group(app, "a", "b", "c"), []
    _store(app, "c", 3)
    _store(app, "b", 2)

    def store_first() -> None:
        if not app.AsyncResult("a").exists():
            assert seen == []
            _store(app, "a", 1)

    group.join(timeout=20, interval=0.01, on_interval=store_first, callback=lambda task_id, _: seen.append(task_id))
    assert seen == ["a", "b", "c"]


@pytest.mark.behaviour("B-RESULT-028")
def test_the_first_failure_is_raised(app: Celeriac) -> None:
    group = _group(app, "a", "b", "c")
    _store(app, "b", state="FAILURE")
    with pytest.raises(ValueError, match="of b"):  # although a has not ended
        group.get(timeout=20)
    _store(app, "a", 1)
    _store(app, "c", state="FAILURE")
    for get in (group.get, group.join, lambda **options: asyncio.run(group.aget(**options))):
        with pytest.raises(ValueError, match="of b"):
            get(timeout=20)
        first, second, third = get(timeout=20, propagate=False)
        assert (first, repr(second), repr(third)) == (1, "ValueError('of b')", "ValueError('of c')")


@pytest.mark.behaviour("B-RESULT-032")
def test_waiting_for_all_ends_in_time(app: Celeriac) -> None:
    group = _group(app, "a", "b")
    _store(app, "a", 1)
    for get in (group.get, group.join, lambda **options: asyncio.run(group.ajoin(**options))):
        with pytest.raises(TimeoutError, match=r"0 of 1 results|1 of 2 results"):
            get(timeout=0.01)
    with pytest.raises(TimeoutError, match="1 results are missing"):
        list(group.as_completed(timeout=0.01))


@pytest.mark.behaviour("B-RESULT-029", "B-RESULT-030")
def test_states_of_a_group(app: Celeriac) -> None:
    group = _group(app, "a", "b", "c")
    ask = ("waiting", "ready", "successful", "failed", "completed_count")
    assert [getattr(group, name)() for name in ask] == [True, False, False, False, 0]
    _store(app, "a", 1)
    assert [getattr(group, name)() for name in ask] == [True, False, False, False, 1]
    _store(app, "b", state="FAILURE")
    assert [getattr(group, name)() for name in ask] == [True, False, False, True, 1]
    with pytest.raises(ValueError, match="of b"):
        group.maybe_throw()
    group.maybe_throw(propagate=False)
    _store(app, "c", 3)
    assert [getattr(group, name)() for name in ask] == [False, True, False, True, 2]
    other = _group(app, "a", "c")
    seen: list[Any] = []
    other.maybe_reraise(callback=lambda *given: seen.append(given))
    assert (seen, other.successful()) == ([("a", 1), ("c", 3)], True)


@pytest.mark.behaviour("B-RESULT-033")
def test_results_as_they_come(app: Celeriac) -> None:
    group = _group(app, "a", "b")
    _store(app, "b", 2, date_done="2024-01-01T00:00:00+00:00")
    found = group.iter_native(timeout=20)
    task_id, meta = next(found)
    assert (task_id, meta["status"], meta["result"], meta["task_id"]) == ("b", "SUCCESS", 2, "b")
    _store(app, "a", state="FAILURE")
    task_id, meta = next(found)
    assert (task_id, repr(meta["result"])) == ("a", "ValueError('of a')")
    assert list(found) == []
    assert [each.id for each in group.as_completed()] == ["a", "b"]
    assert list(_group(app, "b").iterate()) == [2]


def test_results_as_they_come_in_coroutines(app: Celeriac) -> None:
    async def collect() -> list[Any]:
        group, seen = _group(app, "a", "b"), []
        _store(app, "b", 2)
        async for result in group.as_completed(timeout=20):
            seen.append((result.id, await result.aget()))
            if result.id == "b":
                _store(app, "a", 1)
        return seen + [task_id async for task_id, _ in group.aiter_native()]

    assert asyncio.run(collect()) == [("b", 2), ("a", 1), "a", "b"]


@pytest.mark.behaviour("B-RESULT-031")
def test_a_group_is_kept_under_its_id(app: Celeriac) -> None:
    group = _group(app, "a", "b", parent=app.AsyncResult("p"))
    assert app.GroupResult.restore("g") is None
    group.save()
    found = app.GroupResult.restore("g")
    assert found == group == GroupResult.restore("g", backend=app.backend, app=app)
    assert found is not None
    assert (found.id, found.children, found.parent, found.app) == ("g", ["a", "b"], "p", app)
    found.delete()
    assert app.GroupResult.restore("g") is None
    with pytest.raises(ValueError, match="a group without an id can't be kept"):
        app.GroupResult(None, []).save()
    with pytest.raises(NotImplementedError, match="No result backend"):
        memory_app(backend="disabled://").GroupResult("g", []).save()


@pytest.mark.parametrize("serializer", ["json", "pickle", "msgpack", "yaml"])
def test_a_group_is_kept_in_every_format(serializer: str) -> None:
    app = memory_app(result_serializer=serializer, result_expires=None)
    inner = app.GroupResult("inner", [app.AsyncResult("b")])
    app.GroupResult("g", [app.AsyncResult("a"), inner]).save()
    found = app.GroupResult.restore("g")
    assert found is not None
    assert [str(each) for each in found] == ["a", "inner"]
    assert list(found[1]) == ["b"]


@pytest.mark.behaviour("B-RESULT-034", "B-RESULT-036")
def test_a_group_is_a_sequence(app: Celeriac) -> None:
    group = _group(app, "a", "b")
    assert (len(group), group[1], list(group), group.children is group.results) == (2, "b", ["a", "b"], True)
    assert bool(group)
    assert bool(app.GroupResult("g", []))
    assert not app.GroupResult(None, [])
    assert app.GroupResult("g", []).get() == []
    assert {group} == {_group(app, "a", "b")}
    assert group != _group(app, "a")
    assert (str(group), repr(group)) == ("g", "<GroupResult: g [a, b]>")
    assert pickle.loads(pickle.dumps(GroupResult("g", [AsyncResult("a")]))).results == ["a"]


@pytest.mark.behaviour("B-RESULT-035")
def test_members_come_and_go(app: Celeriac) -> None:
    a, b, c = (app.AsyncResult(name) for name in "abc")
    members = app.ResultSet([a])
    members.add(b)
    members.add(app.AsyncResult("b"))
    members.update([b, c, app.AsyncResult("c")])
    assert members.results == [a, b, c]
    members.remove("a")
    members.discard(b)
    members.discard(b)
    assert members == ResultSet([c])
    with pytest.raises(KeyError):
        members.remove(a)
    members.clear()
    assert len(members) == 0
    assert members.app is app


@pytest.mark.behaviour("B-RESULT-016")
def test_a_group_has_a_plain_form(app: Celeriac) -> None:
    group = _group(app, "a", "b", parent=app.AsyncResult("p"))
    form = group.as_tuple()
    assert form == (("g", (("p", None), None)), [(("a", None), None), (("b", None), None)])
    assert result_from_tuple(form, app) == group
    assert group.as_list() == ["a", "b"]
    child = app.AsyncResult("c", parent=group)
    again = result_from_tuple(child.as_tuple(), app)
    assert again.parent == group
    assert child.as_list() == ["c", "a", "b"]


@pytest.mark.behaviour("B-RESULT-014")
def test_a_group_is_forgotten_with_its_members(app: Celeriac) -> None:
    group = _group(app, "a", "b")
    _store(app, "a", 1)
    _store(app, "b", 2)
    assert group.get(timeout=5) == [1, 2]
    group.forget()
    assert app.backend.get(["a", "b"]) == [None, None]  # type: ignore[union-attr]
    assert not group.ready()


def test_a_group_is_revoked_at_once(app: Celeriac, add: Any) -> None:
    here = EagerResult("e", 5, "SUCCESS")
    group = app.GroupResult("g", [add.delay(1, 1), app.GroupResult("h", [add.delay(2, 2)]), here])
    group.revoke()
    assert (group[0].state, group[1][0].state, here.state) == ("REVOKED", "REVOKED", "REVOKED")


def test_groups_in_groups(app: Celeriac) -> None:
    inner = app.GroupResult("inner", [app.AsyncResult("b"), EagerResult("e", 5, "SUCCESS")])
    ignored = app.AsyncResult("i")
    ignored.ignored = True
    group = app.GroupResult("g", [app.AsyncResult("a"), inner, ignored, app.AsyncResult("a")])
    _store(app, "b", 2)
    assert (group.ready(), group.completed_count()) == (False, 1)
    _store(app, "a", 1)
    assert group.get(timeout=5) == [1, [2, 5], None, 1]
    assert asyncio.run(group.ajoin(timeout=5)) == [1, [2, 5], None, 1]


@pytest.mark.behaviour("B-RESULT-017")
def test_a_callback_is_called_once_all_have_ended(app: Celeriac, add: Any) -> None:
    group, called = app.GroupResult("g", [add.delay(n, n) for n in range(3)]), threading.Event()
    got: list[Any] = []

    def tell(found: GroupResult) -> None:
        got.extend(found.get())
        called.set()

    assert group.then(tell) is group
    run_all(app)
    assert called.wait(20)
    assert got == [0, 2, 4]
    app.ResultSet([]).then(lambda found: got.append(len(found)))
    assert got[-1] == 0


def test_a_failed_parent_ends_the_wait_for_a_group(app: Celeriac) -> None:
    _store(app, "p", state="FAILURE")
    group = _group(app, "a", "b", parent=app.AsyncResult("p"))
    for get in (group.get, lambda **options: asyncio.run(group.aget(**options))):
        with pytest.raises(ValueError, match="of p"):
            get(timeout=20)


def test_a_failed_header_is_raised_by_the_body(app: Celeriac) -> None:
    """The body's own error only says that a part has failed."""
    header = _group(app, "a", "b")
    body = app.AsyncResult("body", parent=header)
    _store(app, "b", state="FAILURE", date_done="2024-01-01T00:00:01+00:00")
    with pytest.raises(ValueError, match="of b"):  # the body's end is not waited for
        body.get(timeout=20)
    _store(app, "body", state="FAILURE", date_done="2024-01-01T00:00:02+00:00")
    with pytest.raises(ValueError, match="of b"):
        app.AsyncResult("body", parent=_group(app, "a", "b")).get(timeout=20)
    with pytest.raises(ValueError, match="of body"):
        app.AsyncResult("body", parent=header).get(timeout=20, follow_parents=False)


def test_a_parent_whose_result_is_not_kept_is_not_waited_for(app: Celeriac) -> None:
    _store(app, "c", 3)
    assert app.AsyncResult("c", parent=app.AsyncResult("ignored")).get(timeout=20) == 3


@pytest.mark.behaviour("B-RESULT-007")
def test_the_meta_of_each_member_is_told(app: Celeriac) -> None:
    _store(app, "a", 1)
    seen: list[Any] = []
    _group(app, "a").get(timeout=5, on_message=seen.append)
    assert [(meta["task_id"], meta["status"], meta["result"]) for meta in seen] == [("a", "SUCCESS", 1)]


class _Counting:
    """A store that notes how many ids each question names."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.sizes: list[int] = []

    def get(self, ids: Any) -> Any:
        self.sizes.append(len(ids))
        return self._store.get(ids)

    def wait(self, ids: Any, timeout: float | None) -> Any:
        self.sizes.append(len(ids))
        return self._store.wait(ids, timeout)


def test_large_groups_are_read_in_batches(app: Celeriac) -> None:
    count = 5 * WINDOW // 2
    app.backend.store(  # type: ignore[union-attr]
        [Record(id=f"t{n}", state="SUCCESS", result=b"%d" % n) for n in range(count)]
    )
    for ask in (GroupResult.get, GroupResult.ready, lambda group: list(group.as_completed())):
        store = _Counting(app.backend)
        group = app.GroupResult("g", [app.AsyncResult(f"t{n}", backend=store) for n in range(count)])
        ask(group)
        assert (max(store.sizes), len(store.sizes)) == (WINDOW, 3)


def test_a_silent_window_does_not_hold_up_the_others(app: Celeriac) -> None:
    ids = [f"t{n}" for n in range(WINDOW + 1)]
    _store(app, ids[-1], 5)
    found = next(iter(_group(app, *ids).as_completed(timeout=20)))
    assert (found.id, found.get()) == (ids[-1], 5)
