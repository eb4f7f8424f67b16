"""Long chains that travel on as they came: to whoever looks they are what they would be if each step were decoded."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac import Celeriac, chain, codec
from celeriac.errors import CeleriacError, EncodeError
from celeriac.message import Message
from celeriac.wire import bodies
from celeriac.wire.bodies import SealedSteps, TaskBody, decode_body
from celeriac.wire.messages import TaskCall, encode_call
from tests.support.apps import memory_app, run_all, sent

JSON = frozenset({"application/json"})
LIMIT = 10_000_000
PADDING = "x" * bodies.LONG

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_steps = st.lists(
    st.fixed_dictionaries({"task": st.text(max_size=5), "args": st.lists(_values, max_size=3)}), max_size=4
)


def _message(body: bytes) -> Message:
    return Message(id="1", headers={"task": "t", "id": "1"}, body=body, queue="celery")


def _opened(body: bytes, monkeypatch: pytest.MonkeyPatch) -> list[TaskBody | str]:
    """What a body holds with its chain sealed, if that is possible, and without; or why it is refused."""
    found: list[TaskBody | str] = []
    for longest in (0, LIMIT):
        with monkeypatch.context() as patch:
            patch.setattr(bodies, "LONG", longest)
            try:
                found.append(decode_body(_message(body), JSON, LIMIT))
            except CeleriacError as exc:
                found.append(str(exc))
    return found


@given(_steps, st.lists(_values, max_size=2), st.booleans())
@settings(max_examples=200, deadline=None)
def test_it_holds_what_it_would_hold_opened(steps: list[Any], args: list[Any], spaced: bool) -> None:
    embed = {"callbacks": None, "errbacks": [{"task": "e"}], "chain": steps, "chord": None}
    body = json.dumps([args, {}, embed], separators=None if spaced else (",", ":")).encode()
    with pytest.MonkeyPatch.context() as patch:
        sealed, opened = _opened(body, patch)
    assert isinstance(sealed, TaskBody) and isinstance(opened, TaskBody)
    assert repr(sealed) == repr(opened)
    assert list(sealed.chain or ()) == list(opened.chain or ()) or "nan" in repr(opened)


@pytest.mark.parametrize(
    "steps",
    [
        '[{"task": "a"}, 5]', '[{"task": "a"}, {"args": []}]', '[{"task": 5}]', '["task"]', '"task"', '{"task": "a"}',
        '[{"task": "a", "args": [{"__type__": "uuid", "__value__": {"hex": "0123456789abcdef0123456789abcdef"}}]}]',
        '[{"task": "a", "args": [{"\\u005f_type__": "datetime", "__value__": "2030-01-01T00:00:00"}]}]',
        '[{"task": "a", "args": [NaN]}]', '[{"task": "a", "args": [01]}]', '[{"task": "a"]', "[]", "null", "0",
        '[{"task": "\\ud800"}]',
    ],
)  # fmt: skip
def test_whatever_stands_there_is_judged_alike(steps: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = f'[[], {{}}, {{"callbacks": null, "errbacks": null, "chain": {steps}, "chord": null}}]'.encode()
    sealed, opened = _opened(body, monkeypatch)
    assert repr(sealed) == repr(opened)


def test_bytes_that_are_no_text_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'[[], {}, {"chain": [{"task": "a", "args": ["\xff"]}]}]'
    sealed, opened = _opened(body, monkeypatch)
    assert isinstance(sealed, str)
    assert sealed == opened


def _long_chain() -> tuple[SealedSteps, list[dict[str, Any]]]:
    steps = [{"task": f"t{n}", "args": [PADDING], "kwargs": {"ü": n}, "options": {"task_id": str(n)}} for n in range(3)]
    body = decode_body(_message(codec.dumps([[], {}, {"chain": steps}])[2]), JSON, LIMIT)
    assert isinstance(body.chain, SealedSteps)
    return body.chain, steps


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml", "pickle"])
@pytest.mark.parametrize("protocol", [1, 2])
def test_the_next_message_is_the_same_to_the_byte(serializer: str, protocol: int) -> None:
    sealed, steps = _long_chain()
    call = TaskCall(task="t", id="1", serializer=serializer, errbacks=[{"task": "e"}], chord={"task": "body"})
    messages = [
        encode_call(TaskCall(**{**_fields(call), "chain": each}), now=0.0, protocol=protocol)
        for each in (sealed[:-1], steps[:-1])
    ]
    found, expected = (each.body if serializer != "pickle" else pickle.loads(each.body) for each in messages)
    assert found == expected  # what is pickled names objects by where it met them first
    assert messages[0].content_type == messages[1].content_type


def test_what_can_not_be_encoded_beside_it_is_named() -> None:
    sealed, _ = _long_chain()
    with pytest.raises(EncodeError, match="Object"):
        encode_call(TaskCall(task="t", id="1", chain=sealed, chord={"task": "c", "args": [_Object()]}), now=0.0)


class _Object:
    pass


def _fields(call: TaskCall) -> dict[str, Any]:
    return {name: getattr(call, name) for name in call.__struct_fields__}


def test_it_is_a_sequence_and_a_list_to_others() -> None:
    sealed, steps = _long_chain()
    assert (len(sealed), sealed[-1], sealed == steps, repr(sealed)) == (3, steps[-1], True, repr(steps))
    assert list(reversed(sealed)) == steps[::-1]
    assert pickle.loads(pickle.dumps(sealed)) == steps
    assert json.loads(codec.json_dumps({"chain": sealed})) == {"chain": steps}


@pytest.fixture
def app() -> Celeriac:
    app = memory_app()

    @app.task(name="add", bind=True, max_retries=1)
    def add(self: Any, x: int, y: str, *, adds: bool = False, retries: bool = False) -> int:
        if retries and not self.request.retries:
            raise self.retry(countdown=0)
        if adds:  # to what follows, as some programs do
            self.request.chain.insert(0, self.app.signature("add", args=("a",), app=self.app))
        return x + len(y)

    return app


def test_a_long_chain_runs_and_a_step_that_is_tried_again_keeps_its_place(app: Celeriac) -> None:
    add = app.tasks["add"]
    result = chain(add.s(0, PADDING), add.s(PADDING), add.s(PADDING, retries=True), add.s("ab")).apply_async()
    outcomes = run_all(app)
    assert [outcome.state for outcome in outcomes] == ["SUCCESS", "SUCCESS", "RETRY", "SUCCESS", "SUCCESS"]
    assert result.get(timeout=5) == 3 * len(PADDING) + 2


def test_a_task_sees_a_list_and_can_change_it(app: Celeriac) -> None:
    add = app.tasks["add"]
    chain(add.s(0, PADDING, adds=True), add.s(PADDING), add.s("ab")).apply_async()
    values = [outcome.record.result for outcome in run_all(app) if outcome.record is not None]
    assert [json.loads(value) for value in values] == [
        len(PADDING), 2 * len(PADDING), 2 * len(PADDING) + 2, 2 * len(PADDING) + 3,
    ]  # fmt: skip


def test_a_step_brings_the_bytes_that_came(app: Celeriac) -> None:
    add = app.tasks["add"]
    chain(add.s(0, "a"), *(add.s(PADDING) for _ in range(3))).apply_async()
    (first,) = sent(app)
    app.transport.publish([first])
    (second, *_) = [outcome.messages[0] for outcome in run_all(app) if outcome.messages]
    rest = first.body.decode().partition('"chain": [')[2].rpartition("]")[0]
    assert second.body.decode().partition('"chain": ')[2].rpartition(', "chord"')[0].strip("[]") in rest
