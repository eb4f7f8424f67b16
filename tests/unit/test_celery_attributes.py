"""Objects have every attribute that Celery documents for them, except for those that are listed here with the reason."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, canvas, states
from celeriac.errors import CeleriacError
from celeriac.message import Delivery
from celeriac.testing.transport_case import make_message
from celeriac.worker.request import Request
from tests.support.apps import memory_app

#: What Celery documents: kind of object → names of its attributes.
DATA = Path(__file__).parent / "data"
DOCUMENTED: dict[str, list[str]] = json.loads((DATA / "celery_attributes.json").read_text())
#: Kind of object → names of its methods → names of their parameters.
PARAMETERS: dict[str, dict[str, list[str]]] = json.loads((DATA / "celery_parameters.json").read_text())
#: What this version does not have yet, by what it comes with.
LATER = {
    "periodic tasks": {"app": "Beat add_periodic_task"},
    "events": {"app": "events events_cls", "Task": "send_event", "Request": "eventer send_event"},
    "bootsteps, and workers as objects": {
        "app": "WorkController Worker steps", "Task": "Strategy start_strategy",
    },
}  # fmt: skip
#: What there is not on purpose: docs/differences.md says so of requests, which decide nothing and open no body.
NEVER = {
    "Request": (
        "acknowledge acknowledged cancel chord connection_errors errbacks execute execute_using_pool maybe_expire "
        "on_accepted on_ack on_reject on_success reject revoked terminate time_start tzlocal worker_pid"
    ),
}


@pytest.fixture(scope="module")
def objects() -> Iterator[dict[str, Any]]:
    """One of each kind."""
    with memory_app() as app:
        task = app.task(lambda *args: None, name="t")
        done = task.apply()
        result = app.AsyncResult("1")
        headers = {"task": "t", "id": "1", **dict.fromkeys(["eta", "expires", "group", "group_index", "root_id"])}
        more = {"parent_id": None, "stamps": {}, "stamped_headers": None, "timelimit": [None, None]}
        message = make_message("1", headers={**headers, **more, "replaced_task_nesting": 0})
        sig = task.s(1)
        yield {
            "app": app, "Settings": app.conf, "TaskRegistry": app.tasks, "AMQP": app.amqp, "Queues": app.amqp.queues,
            "Logging": app.log, "loader": app.loader, "Task": task, "Context": task.request, "states": states,
            "Request": Request(Delivery(message=message, queue="celery", token=1), "n@h", task, app),
            "canvas.Signature": sig, "canvas.chain": canvas.chain(sig, sig), "canvas.group": canvas.group(sig, sig),
            "canvas.chord": canvas.chord([sig], sig), "canvas.chunks": task.chunks([(1,)], 1),
            "canvas.xmap": task.map([1]), "canvas.xstarmap": task.starmap([(1,)]),
            "canvas.StampingVisitor": canvas.StampingVisitor,
            "result.ResultBase": result, "result.AsyncResult": result, "result.EagerResult": done,
            "result.ResultSet": app.ResultSet([result]), "result.GroupResult": app.GroupResult("2", [result]),
        }  # fmt: skip


def has(thing: Any, name: str) -> bool:
    try:
        getattr(thing, name)
    except AttributeError:
        return False
    except CeleriacError:  # it is there, and can't say anything now
        return True
    return True


@pytest.mark.parametrize("kind", DOCUMENTED)
def test_every_documented_attribute_is_there(kind: str, objects: dict[str, Any]) -> None:
    missing = {name for name in DOCUMENTED[kind] if not has(objects[kind], name)}
    later = {name for kinds in LATER.values() for name in kinds.get(kind, "").split()}
    assert missing == later | set(NEVER.get(kind, "").split())


@pytest.mark.parametrize("kind", PARAMETERS)
def test_methods_take_their_documented_parameters_by_name(kind: str, objects: dict[str, Any]) -> None:
    missing = []
    for name, parameters in PARAMETERS[kind].items():
        method = getattr(objects[kind], name, None)
        if method is None:
            continue
        takes = inspect.signature(method).parameters
        if not any(each.kind is each.VAR_KEYWORD for each in takes.values()):
            missing += [f"{name}({parameter}=)" for parameter in parameters if parameter not in takes]
    # A group's links have the names that those of other signatures have.
    assert missing == (["link(sig=)", "link_error(sig=)"] if kind == "canvas.group" else [])


def test_each_kind_is_looked_at(objects: dict[str, Any]) -> None:
    assert set(objects) == set(DOCUMENTED)
    assert isinstance(objects["app"], Celeriac)
