"""Celery: the tasks of the benchmarks. BENCH_BROKER and BENCH_RESULTS say where; without the latter results are ignored."""

from __future__ import annotations

import os

from benchmarks.peers.counting import burn, ran
from celery import Celery

RESULTS = os.environ.get("BENCH_RESULTS")

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend=RESULTS)
app.conf.task_ignore_result = not RESULTS


@app.task(name="noop")
def noop():
    return ran()


@app.task(name="millisecond")
def millisecond():
    return burn(0.001)


def enqueue():
    noop.delay()


def fill_milliseconds(count):
    for _ in range(count):
        millisecond.delay()


def ask():
    noop.delay().get(timeout=10)
