"""One set of tasks for both sides of a mixed fleet: FLEET=celery makes it a stock Celery app, else it is ours.

FLEET_SETTINGS is a JSON object of further settings; its `task_queues` is a list of [name, exchange, type, key]; its
`broadcast` is the name of a broadcast queue.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

if os.environ.get("FLEET") == "celery":
    from celery import Celery as App
    from celery import chain, chord, group
    from celery.utils.nodenames import worker_direct
    from kombu import Exchange, Queue
    from kombu.common import Broadcast
else:
    from celeriac import Celeriac as App
    from celeriac import chain, chord, group  # noqa: F401
    from celeriac.routing import Broadcast, Exchange, Queue, worker_direct  # noqa: F401

app: Any = App("fleet", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": int(os.environ["FLEET_VISIBILITY"])},
    worker_prefetch_multiplier=1,
    task_track_started=True,
)
settings: dict[str, Any] = json.loads(os.environ["FLEET_SETTINGS"])
if "task_queues" in settings:
    arguments = {"x-queue-type": settings["task_default_queue_type"]} if "task_default_queue_type" in settings else {}
    settings["task_queues"] = [
        Queue(name, Exchange(exchange, type=kind), routing_key=key, queue_arguments=arguments)
        for name, exchange, kind, key in settings["task_queues"]
    ]
if "broadcast" in settings:
    settings["task_queues"] = [Queue("celery", Exchange("celery"), "celery"), Broadcast(settings.pop("broadcast"))]
app.conf.update(settings)


class Trouble(Exception):
    """An error of the user's own."""


@app.task(name="fleet.add")
def add(x: float, y: float) -> float:
    return x + y


@app.task(name="fleet.fail")
def fail(text: str) -> None:
    raise Trouble(text, 42)


@app.task(name="fleet.nap")
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return time.time()


@app.task(name="fleet.now")
def now() -> float:
    return time.time()


@app.task(name="fleet.note")
def note(word: str) -> str:
    with open(os.environ["FLEET_LEDGER"], "a") as file:
        file.write(word + "\n")
    return word


@app.task(name="fleet.here", bind=True, ignore_result=True)
def here(self: Any, word: str) -> None:
    note(f"{word}:{self.request.hostname.partition('@')[0]}")


@app.task(name="fleet.side")
def side(number: int) -> list[Any]:
    time.sleep(0.01)
    return [number, os.environ["FLEET"]]


@app.task(name="fleet.gathered")
def gathered(values: list[Any]) -> list[Any]:
    note("body")
    return values


@app.task(name="fleet.hold")
def hold(word: str, seconds: float) -> None:
    note(word)
    time.sleep(seconds)


@app.task(name="fleet.again", bind=True, max_retries=3, default_retry_delay=0.2)
def again(self: Any, until: int) -> list[Any]:
    if self.request.retries < until:
        raise self.retry(countdown=0.2)
    return [self.request.id, self.request.retries]


@app.task(name="fleet.echo")
def echo(value: Any = None) -> Any:
    return value


@app.task(name="fleet.total")
def total(values: Any) -> float:
    return sum(map(total, values)) if isinstance(values, list) else values


@app.task(name="fleet.body")
def body(values: Any, word: str) -> Any:
    note(word)
    return values


@app.task(name="fleet.instead", bind=True)
def instead(self: Any, x: float) -> Any:
    return self.replace(add.s(x, 1))


@app.task(name="fleet.on_error")
def on_error(request: Any, exc: Any, traceback: Any) -> None:
    note(f"{request.id}-{type(exc).__name__}")
