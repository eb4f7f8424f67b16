"""Taskiq on a Redis list: the tasks of the benchmarks. Lists acknowledge nothing: a task whose worker dies is gone."""

from __future__ import annotations

import asyncio
import os

from benchmarks.peers.counting import ran
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

RESULTS = os.environ.get("BENCH_RESULTS")

broker = ListQueueBroker(os.environ["BENCH_BROKER"])
if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(RESULTS))

_loop = asyncio.new_event_loop()


@broker.task(task_name="noop")
async def noop():
    return ran()


def enqueue():
    _loop.run_until_complete(noop.kiq())


async def _ask():
    result = await noop.kiq()
    await result.wait_result(check_interval=0.0005, timeout=10)


def ask():
    _loop.run_until_complete(_ask())
