"""What a client sends for a workflow is what stock Celery sends for the same expression, but for ids."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celeriac import Celeriac, chain, chord, group
from celeriac.canvas import StampingVisitor
from tests.support.apps import memory_app, sent
from tests.wire import golden

#: Recordings whose messages have to be equal. Those with a group inside a header are left out: stock turns its members
#: round and numbers them twice, and ours keep their order; and those whose body is a group, to which stock gives the id
#: of the header's.
EQUAL = [
    "chain3", "chain_group_task", "chain_immutable", "chain_link", "chain_link_error",
    "chain_task_group", "chain_task_group_task", "chord", "chord_chain_body", "chord_error", "chord_header_chain",
    "chord_immutable_body", "chord_nested_body", "chord_nested_header", "chord_single", "chunks", "group3",
    "group_of_chains", "group_single", "stamped", "stamped_link", "stamped_visitor", "xmap", "xstarmap",
]  # fmt: skip
#: Here the parents of stock's result skip the first steps of the body.
RICHER = ["chord_chain_body", "chord_nested_body"]
#: Keys that say nothing: where rpc results go, what sizes the chord, and what only the sender reads.
_SKIPPED = ("reply_to", "chord_size", "add_to_parent")
#: Headers that a workflow decides. Those of single calls have tests of their own.
HEADERS = ("task", "group", "group_index", "parent_id", "retries", "stamped_headers", "stamps")


class V(StampingVisitor):
    def on_signature(self, sig: Any, **headers: Any) -> Any:
        return {"trace": "T-1"}


@pytest.fixture
def app() -> Celeriac:
    return memory_app()


class Ids:
    """Ids by the order in which they are met, so that two runs can be compared."""

    def __init__(self, ids: set[str]) -> None:
        self._ids = ids
        self._seen: dict[str, str] = {}

    def replaced(self, value: Any) -> Any:
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if k not in _SKIPPED and v not in (None, [], {})}
            return {key: self.replaced(kept[key]) for key in sorted(kept)}
        if isinstance(value, (list, tuple)):
            return [self.replaced(each) for each in value]
        if isinstance(value, str) and value in self._ids:
            return self._seen.setdefault(value, f"id{len(self._seen)}")
        return value


def ids_in(value: Any) -> set[str]:
    """Every text that an option or header calls an id."""
    if isinstance(value, dict):
        own = {each for key, each in value.items() if key in ("task_id", "group_id", "id", "group") and each}
        return own.union(*map(ids_in, value.values()))
    return set().union(*map(ids_in, value)) if isinstance(value, (list, tuple)) else set()


def comparable(messages: list[tuple[dict[str, Any], Any]]) -> Any:
    """Messages without what differs from run to run."""
    plain = [
        {"id": headers["id"], **{name: headers.get(name) for name in HEADERS}, "body": body}
        for headers, body in messages
    ]
    ids = Ids(ids_in(plain))
    for message in plain:
        for header in message["body"][2].get("chord") or {}, *(message["body"][2].get("chain") or ()):
            _drop_order(header)
    return [ids.replaced(message) for message in plain]


def _drop_order(signature: Any) -> None:
    """Names of stamps are a set."""
    if isinstance(signature, dict) and signature.get("options", {}).get("stamped_headers"):
        signature["options"]["stamped_headers"].sort()


@pytest.mark.parametrize("name", EQUAL)
def test_messages_are_stock_celerys(app: Celeriac, name: str) -> None:
    """[B-CANVAS-003, B-CANVAS-089]"""
    recorded = golden.load("messages", name)
    for key, value in (recorded.get("conf") or {}).items():
        setattr(app.conf, key, value)
    tasks = {each: app.task(_nothing, name=f"wire.{each}", typing=False) for each in NAMES}
    result = eval(recorded["call"], {**tasks, "chain": chain, "group": group, "chord": chord, "V": V, "app": app})
    ours = [(message.headers, json.loads(message.body)) for message in sent(app)]
    stock = [(entry["envelope"]["headers"], entry["payload"]) for entry in recorded["redis"]]
    for headers, _ in (*ours, *stock):
        headers["stamped_headers"] = sorted(headers.get("stamped_headers") or ())
    assert comparable(ours) == comparable(stock)
    if name not in RICHER:
        assert _form(json.loads(json.dumps(result.as_tuple()))) == _form(recorded["result_ids"]["redis"])


def _form(result: Any) -> Any:
    """A result's tuple without its ids."""
    if isinstance(result, list):
        return [_form(each) for each in result]
    return "id" if isinstance(result, str) else result


def _nothing(*args: Any) -> None:
    return None


NAMES = ("add", "mul", "xsum", "echo", "errback_new", "errback_old")
