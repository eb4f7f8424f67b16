"""Huey on Redis: the tasks of the benchmarks. Huey acknowledges nothing: a task whose worker dies is gone."""

from __future__ import annotations

import os

from benchmarks.peers.counting import ran
from huey import RedisHuey

huey = RedisHuey("bench", url=os.environ["BENCH_BROKER"], results=bool(os.environ.get("BENCH_RESULTS")))


@huey.task()
def noop():
    return ran()


def enqueue():
    noop()
