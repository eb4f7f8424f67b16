"""One set of tasks for both sides of a mixed fleet: FLEET=celery makes it a stock Celery app, else it is ours.

FLEET_SETTINGS is a JSON object of further settings; its `task_queues` is a list of [name, exchange, type, key].
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

if os.environ.get("FLEET") == "celery":
    from celery import Celery as App
    from kombu import Exchange, Queue
else:
    from celeriac import Celeriac as App
    from celeriac.routing import Exchange, Queue

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


@app.task(name="fleet.hold")
def hold(word: str, seconds: float) -> None:
    note(word)
    time.sleep(seconds)


@app.task(name="fleet.again", bind=True, max_retries=3, default_retry_delay=0.2)
def again(self: Any, until: int) -> list[Any]:
    if self.request.retries < until:
        raise self.retry(countdown=0.2)
    return [self.request.id, self.request.retries]
