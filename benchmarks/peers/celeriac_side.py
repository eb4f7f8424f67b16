"""Celeriac: the tasks of the benchmarks, with its leases, acknowledgements and confirms as they come."""

from __future__ import annotations

import os

from benchmarks.peers.counting import burn, ran

from celeriac import Celeriac

RESULTS = os.environ.get("BENCH_RESULTS")

app = Celeriac("bench", broker=os.environ["BENCH_BROKER"], backend=RESULTS or "disabled://")
app.conf.task_ignore_result = not RESULTS


@app.task(name="noop")
def noop() -> int:
    return ran()


@app.task(name="millisecond")
def millisecond() -> int:
    return burn(0.001)


def enqueue() -> None:
    noop.delay()


def fill(count: int) -> None:
    app.publish_many(noop.s() for _ in range(count))


def ask() -> None:
    noop.delay().get(timeout=10)


def fill_milliseconds(count: int) -> None:
    app.publish_many(millisecond.s() for _ in range(count))
