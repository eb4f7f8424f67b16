"""The commands that ask: what a worker runs, holds, knows and is. Answers have Celery's forms, which its tools read.

Run in the event loop; they change nothing but the set of revoked ids, by `hello`.
"""

from __future__ import annotations

import importlib
import os
import platform
import resource
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from celeriac.routing import Exchange, Queue, binding
from celeriac.transport.base import Transport
from celeriac.worker.assignment import Assignment
from celeriac.worker.control_state import ControlState, boolean, command_table, error, ok
from celeriac.worker.task_info import task_info
from celeriac.worker.termination import running

__all__ = ["COMMANDS"]

#: What `registered` shows of a task when it is not told what.
_USUAL_ITEMS = ("exchange", "routing_key", "rate_limit")
#: Samples of memory that `memdump` can show.
_MAX_SAMPLES = 100


def ping(state: ControlState, **_: Any) -> Any:
    return ok("pong")


def clock(state: ControlState, **_: Any) -> Any:
    return {"clock": state.clock.value}


def hello(state: ControlState, from_node: str, revoked: Any = None, **_: Any) -> Any:
    if from_node == state.hostname:
        return None
    state.merge(revoked)
    return {"revoked": state.revocations.ids(), "clock": state.clock.forward()}


def revoked(state: ControlState, **_: Any) -> Any:
    return state.revocations.ids()


# tasks


def active(state: ControlState, safe: bool | None = False, **_: Any) -> Any:
    return [
        _info(state, member, safe, pid=process.pid, since=since)
        for process, _slot, assignment, since in running(state.worker.pool)
        for member in assignment.members
    ]


def reserved(state: ControlState, safe: bool | None = False, **_: Any) -> Any:
    pool = state.worker.pool
    runs = {id(member) for _, _, assignment, _ in running(pool) for member in assignment.members}
    held = [
        *pool.held_assignments(),
        *pool.waiting(),
        *state.worker.gate.waiting(),
        *state.worker.gathering.assignments(),
    ]
    return [_info(state, each, safe) for each in held if id(each) not in runs]


def _info(state: ControlState, assignment: Assignment, safe: Any, **running: Any) -> dict[str, Any]:
    facts = state.worker.hello.tasks.get(assignment.task)
    return task_info(
        assignment, state.hostname, safe=bool(safe) or (facts is not None and facts.has_secrets), **running
    )


def scheduled(state: ControlState, **_: Any) -> Any:
    return []  # messages that are not due wait at the broker


def query_task(state: ControlState, ids: Any, **_: Any) -> Any:
    wanted = {ids} if isinstance(ids, str) else set(ids)
    answer = {info["id"]: ["reserved", info] for info in reserved(state) if info["id"] in wanted}
    answer.update({info["id"]: ["active", info] for info in active(state) if info["id"] in wanted})
    return answer


def registered(
    state: ControlState, taskinfoitems: Sequence[str] | None = None, builtins: bool = False, **_: Any
) -> Any:
    items = taskinfoitems or _USUAL_ITEMS
    lines = []
    for name, facts in sorted(state.worker.hello.tasks.items()):
        if builtins or not name.startswith("celery."):
            parts = [f"{item}={facts.shown[item]}" for item in items if item in facts.shown]
            lines.append(f"{name} [{' '.join(parts)}]" if parts else name)
    return lines


# the worker


def active_queues(state: ControlState, **_: Any) -> Any:
    queues = state.worker.queues
    return [_queue(queues.definition(name)) for name in queues.names]


def _queue(queue: Queue) -> dict[str, Any]:
    return {
        "name": queue.name, "exchange": _exchange(queue.exchange),
        "routing_key": queue.routing_key, "queue_arguments": queue.queue_arguments or None,
        "binding_arguments": queue.binding_arguments or None, "consumer_arguments": queue.consumer_arguments or None,
        "durable": queue.durable, "exclusive": queue.exclusive, "auto_delete": queue.auto_delete, "no_ack": queue.no_ack,
        "alias": queue.alias, "bindings": [_binding(each) for each in queue.bindings], "no_declare": queue.no_declare or None,
        "expires": queue.expires, "message_ttl": queue.message_ttl, "max_length": queue.max_length,
        "max_length_bytes": queue.max_length_bytes, "max_priority": queue.max_priority,
    }  # fmt: skip


def _exchange(exchange: Exchange) -> dict[str, Any]:
    return {
        "name": exchange.name, "type": exchange.type, "arguments": exchange.arguments or None, "durable": exchange.durable,
        "passive": exchange.passive, "auto_delete": exchange.auto_delete, "delivery_mode": exchange.delivery_mode,
        "no_declare": exchange.no_declare,
    }  # fmt: skip


def _binding(bound: binding) -> dict[str, Any]:
    return {
        "exchange": _exchange(bound.exchange), "routing_key": bound.routing_key, "arguments": bound.arguments or None,
        "unbind_arguments": bound.unbind_arguments or None,
    }  # fmt: skip


def conf(state: ControlState, with_defaults: bool = False, **_: Any) -> Any:
    return {name: _plain(value) for name, value in state.worker.conf.table(with_defaults=bool(with_defaults)).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def report(state: ControlState, **_: Any) -> Any:
    worker = state.worker
    lines = [
        "",
        f"software -> celeriac:{worker.version or 'embedded'} py:{platform.python_version()}",
        f"platform -> system:{platform.system()} arch:{', '.join(platform.architecture())}",
        f"            kernel version:{platform.release()} imp:{platform.python_implementation()}",
        f"settings -> broker:{_url_of(worker.transport)} results:{worker.store.url if worker.store else 'disabled'}",
        "",
        worker.conf.humanize(),
        "",
    ]
    return ok("\n".join(lines))


def _url_of(transport: Transport | None) -> str:
    return transport.url if transport is not None else ""


def stats(state: ControlState, **_: Any) -> Any:
    worker, pool = state.worker, state.worker.pool
    limits = [worker.conf.task_soft_time_limit or 0, worker.conf.task_time_limit or 0]
    return {
        "total": dict(worker.totals),
        "pid": os.getpid(),
        "clock": str(state.clock.value),
        "uptime": int(time.time() - state.started_at),
        "pool": {
            "implementation": f"celeriac.runner.{pool.kind}",
            "max-concurrency": pool.capacity,
            "processes": [process.pid for process in pool.processes if process.pid],
            "max-tasks-per-child": pool.max_tasks or "N/A",
            "put-guarded-by-semaphore": False,
            "timeouts": limits,
            "writes": {"total": pool.done, "strategy": "credit", "inqueues": {"total": pool.size, "active": 0}},
        },
        "broker": _broker(worker.transport, worker.conf),
        "prefetch_count": pool.held + len(pool.ready) + max(0, pool.wanted()),
        "rusage": _rusage(),
    }


def _broker(transport: Transport | None, settings: Any) -> dict[str, Any]:
    """The parts of the broker's URL, without its password."""
    scheme, _, rest = _url_of(transport).partition("://")
    login, at, place = rest.partition("?")[0].rpartition("@")
    host, _, path = place.partition("/")
    name, colon, port = host.rpartition(":")
    return {
        "hostname": (name if colon else host) or None,
        "userid": (login.partition(":")[0] or None) if at else None,
        "virtual_host": path or "/",
        "port": int(port) if colon and port.isdecimal() else None,
        "insist": False,
        "ssl": bool(settings.broker_use_ssl) or scheme in ("rediss", "amqps"),
        "transport": scheme,
        "connect_timeout": settings.broker_connection_timeout,
        "transport_options": {},
        "login_method": settings.broker_login_method,
        "uri_prefix": None,
        "heartbeat": settings.broker_heartbeat,
        "failover_strategy": str(settings.broker_failover_strategy),
        "alternates": [],
    }


def _rusage() -> dict[str, Any]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {name.removeprefix("ru_"): getattr(usage, name) for name in dir(usage) if name.startswith("ru_")}


# memory


def memsample(state: ControlState, **_: Any) -> Any:
    try:
        with open("/proc/self/statm", "rb") as file:
            text = f"{int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20:.2f}MB"
    except (OSError, IndexError, ValueError):
        text = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.2f}MB"
    state.memory_samples = [*state.memory_samples, text][-_MAX_SAMPLES:]
    return text


def memdump(state: ControlState, samples: Any = 10, **_: Any) -> Any:
    memsample(state)
    return "\n".join(state.memory_samples[-max(1, int(samples)) :])


def objgraph(state: ControlState, num: Any = 200, max_depth: Any = 10, type: str = "Assignment", **_: Any) -> Any:
    try:
        drawing = importlib.import_module("objgraph")
    except ImportError:
        return error("the package objgraph is not installed where the worker runs")
    file = tempfile.NamedTemporaryFile(prefix="celeriac-objects-", suffix=".png", delete=False)  # noqa: SIM115 -- kept
    file.close()
    found = drawing.by_type(type)[: int(num)]
    drawing.show_backrefs(found, max_depth=int(max_depth), highlight=lambda each: each in found, filename=file.name)
    return {"filename": file.name}


COMMANDS = command_table(
    "inspect",
    {
        ping: ("Who is there.", {}),
        clock: ("The logical clock.", {}),
        hello: ("What workers tell each other.", {"visible": False}),
        revoked: ("Ids of revoked tasks.", {"alias": "dump_revoked"}),
        active: ("Tasks that run.", {"alias": "dump_active"}),
        reserved: ("Tasks that the worker holds and that don't run yet.", {"alias": "dump_reserved"}),
        scheduled: ("Tasks with an ETA that the worker holds.", {"alias": "dump_schedule"}),
        query_task: (
            "What the worker knows of these tasks.",
            {"args": [("ids", str)], "variadic": "ids", "signature": "[id1 [id2 [… [idN]]]]"},
        ),
        registered: (
            "Names of tasks.",
            {
                "args": [("taskinfoitems", str)], "variadic": "taskinfoitems", "alias": "dump_tasks",
                "signature": "[attr1 [attr2 [… [attrN]]]]",
            },
        ),
        active_queues: ("Queues that are consumed.", {}),
        conf: (
            "Settings, with secrets masked.",
            {"args": [("with_defaults", boolean)], "alias": "dump_conf", "signature": "[include_defaults=False]"},
        ),
        report: ("Versions and settings, for a bug report.", {}),
        stats: ("Figures of the worker.", {}),
        memsample: ("Sample the supervisor's memory.", {}),
        memdump: ("The last samples of memory.", {"args": [("samples", int)], "signature": "[n_samples=10]"}),
        objgraph: (
            "Draw objects in memory.",
            {
                "args": [("type", str), ("num", int), ("max_depth", int)],
                "signature": "[object_type=Assignment] [num=200 [max_depth=10]]",
            },
        ),
    },
)  # fmt: skip
