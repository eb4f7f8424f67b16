"""The commands that change a worker: limits, queues, the size of its pool, its end.

Run in the event loop. What needs the broker is awaited in a thread.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import msgspec

from celeriac.queue_forms import as_queue
from celeriac.router import queue_defaults
from celeriac.worker.control_state import NO_ANSWER, ControlState, command_table, error, ok

__all__ = ["COMMANDS"]

#: A pool is not grown by more than this at once.
_MOST = 1000


def rate_limit(state: ControlState, task_name: str, rate_limit: Any, **_: Any) -> Any:
    tasks = state.worker.hello.tasks
    if task_name not in tasks:
        return error("unknown task")
    try:
        state.worker.gate.set_rate_limit(task_name, rate_limit)
    except ValueError as exc:
        return error(f"Invalid rate limit string: {exc!r}")
    shown = {name: value for name, value in tasks[task_name].shown.items() if name != "rate_limit"}
    if rate_limit:
        shown["rate_limit"] = str(rate_limit)
    state.worker.learn({**tasks, task_name: msgspec.structs.replace(tasks[task_name], shown=shown)})
    return ok("new rate limit set successfully" if rate_limit else "rate limit disabled successfully")


def time_limit(state: ControlState, task_name: str | None = None, hard: Any = None, soft: Any = None, **_: Any) -> Any:
    tasks = state.worker.hello.tasks
    if task_name not in tasks:
        return error("unknown task")
    hard, soft = _seconds("hard", hard), _seconds("soft", soft)
    changed = msgspec.structs.replace(tasks[task_name], time_limit=hard, soft_time_limit=soft)
    state.worker.learn({**tasks, task_name: changed})
    return ok("time limits set successfully")


def _seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not 0 < number < 1e10:
        raise ValueError(f"{name} is a number of seconds above 0, not {value!r}")
    return int(number) if number.is_integer() else number


# queues


async def add_consumer(
    state: ControlState,
    queue: str,
    exchange: str | None = None,
    exchange_type: str | None = None,
    routing_key: str | None = None,
    **options: Any,
) -> Any:
    queues = state.worker.queues
    if queues.find(queue) is not None:
        return ok(f"already consuming from {queue!r}")
    found = None if exchange else queues.described(queue)
    if found is None:
        place = {"exchange": exchange or queue, "exchange_type": exchange_type or "direct", "routing_key": routing_key}
        found = as_queue({**_table(options.pop("options", None)), **options, **place}, name=queue)
        found = queue_defaults(state.worker.conf).typed(found)
    await asyncio.to_thread(queues.add, found)
    state.worker.intake.consume(queues.names)
    return ok(f"add consumer {queue}")


def _table(options: Any) -> dict[str, Any]:
    return options if isinstance(options, dict) else {}


async def cancel_consumer(state: ControlState, queue: str, **_: Any) -> Any:
    queues = state.worker.queues
    found = queues.find(queue)
    if found is not None:
        state.worker.intake.consume([name for name in queues.names if name != found.name])
        await asyncio.to_thread(queues.remove, found)
    return ok(f"no longer consuming from {queue}")


# the pool


def pool_grow(state: ControlState, n: Any = 1, **_: Any) -> Any:
    state.worker.pool.grow(_number(n))
    return ok("pool will grow")


def pool_shrink(state: ControlState, n: Any = 1, **_: Any) -> Any:
    state.worker.pool.shrink(_number(n))
    return ok("pool will shrink")


def _number(n: Any) -> int:
    number = int(n)
    if not 1 <= number <= _MOST:
        raise ValueError(f"n is a number from 1 to {_MOST}, not {n!r}")
    return number


def pool_restart(state: ControlState, modules: Any = None, reload: bool = False, **_: Any) -> Any:
    if not state.worker.conf.worker_pool_restarts:
        raise ValueError("Pool restarts not enabled")
    if reload or modules:
        raise ValueError("modules can't be reloaded in a running worker: restart it with the signal HUP")
    pool = state.worker.pool
    for process in list(pool.processes):
        pool.replace(process)
    return ok("reload started")


def autoscale(state: ControlState, max: Any = None, min: Any = None, **_: Any) -> Any:
    raise ValueError("Autoscale not enabled")


# the worker


def enable_events(state: ControlState, **_: Any) -> Any:
    return error("this worker sends no events")


def disable_events(state: ControlState, **_: Any) -> Any:
    return ok("task events already disabled")


def heartbeat(state: ControlState, **_: Any) -> Any:
    return None


def election(state: ControlState, id: Any, topic: Any, action: Any = None, **_: Any) -> Any:
    return None


def shutdown(state: ControlState, msg: str = "Got shutdown from remote", **_: Any) -> Any:
    state.worker.end(signal.SIGTERM)
    return NO_ANSWER


COMMANDS = command_table(
    "control",
    {
        rate_limit: (
            "Set the rate limit of a task.",
            {
                "args": [("task_name", str), ("rate_limit", str)],
                "signature": "<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>",
            },
        ),
        time_limit: (
            "Set the time limits of a task.",
            {
                "args": [("task_name", str), ("soft", float), ("hard", float)],
                "signature": "<task_name> <soft_secs> [hard_secs]",
            },
        ),
        add_consumer: (
            "Consume one more queue.",
            {
                "args": [("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)],
                "signature": "<queue> [exchange [type [routing_key]]]",
            },
        ),
        cancel_consumer: ("Consume a queue no longer.", {"args": [("queue", str)], "signature": "<queue>"}),
        pool_grow: ("Add runners to the pool.", {"args": [("n", int)], "signature": "[N=1]"}),
        pool_shrink: ("Take runners out of the pool.", {"args": [("n", int)], "signature": "[N=1]"}),
        pool_restart: ("Replace all runners.", {}),
        autoscale: (
            "Set the bounds of autoscaling.",
            {"args": [("max", int), ("min", int)], "signature": "[max [min]]"},
        ),
        enable_events: ("Send events about tasks.", {}),
        disable_events: ("Send no events about tasks.", {}),
        heartbeat: ("Send a heartbeat now.", {}),
        election: ("Hold an election.", {"visible": False}),
        shutdown: ("End the worker warmly.", {}),
    },
)
