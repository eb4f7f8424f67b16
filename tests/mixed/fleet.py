"""One set of tasks for both sides of a mixed fleet: FLEET=celery makes it a stock Celery app, else it is ours."""

from __future__ import annotations

import os
import time
from typing import Any

if os.environ.get("FLEET") == "celery":
    from celery import Celery as App
else:
    from celeriac import Celeriac as App

app: Any = App("fleet", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": int(os.environ["FLEET_VISIBILITY"])},
    worker_prefetch_multiplier=1,
    task_track_started=True,
)


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


@app.task(name="fleet.again", bind=True, max_retries=3, default_retry_delay=0.2)
def again(self: Any, until: int) -> list[Any]:
    if self.request.retries < until:
        raise self.retry(countdown=0.2)
    return [self.request.id, self.request.retries]
