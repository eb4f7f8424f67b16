"""Procrastinate on PostgreSQL: the tasks of the benchmarks."""

from __future__ import annotations

import asyncio
import os

import procrastinate
from benchmarks.peers.counting import ran

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_BROKER"]))


@app.task(name="noop")
async def noop():
    ran()


async def _fill(count):
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await noop.batch_defer_async(*({} for _ in range(count)))


def fill(count):
    asyncio.run(_fill(count))
