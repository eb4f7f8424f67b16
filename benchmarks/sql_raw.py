"""What the PostgreSQL and MySQL transports and stores cost by themselves, in CPU microseconds of the client.

Run it with `python benchmarks/sql_raw.py [postgres] [mariadb]`; it starts private servers, with fsync on.
Prints a table of publishing (one at a time, in batches), fetching, settling and committing; the same beside 100,000 delayed and
100,000 other ready messages; the time from publish to a waiting fetch; the cost of an idle worker; and, for comparison,
claim and delete one by one with plain psycopg, which is what most queues on PostgreSQL do.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from celeriac.message import Message, Settlement
from celeriac.results.base import Record
from celeriac.results.open import open_store
from celeriac.timing import iso_now
from celeriac.transport.base import Commit, Transport
from celeriac.transport.open import open_transport
from tests.support.mariadb_server import MariadbServer
from tests.support.postgres_server import PostgresServer, open_folder

HEADERS = {
    "lang": "py", "task": "bench.add", "id": "", "shadow": None, "eta": None, "expires": None, "group": None,
    "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": "", "parent_id": None,
    "argsrepr": "(2, 3)", "kwargsrepr": "{}", "origin": "gen1234@bench", "ignore_result": False,
    "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
}  # fmt: skip
BODY = json.dumps([[2, 3], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode() * 2


def message(queue: str = "q", **fields: Any) -> Message:
    """A message of usual size."""
    task_id = str(uuid.uuid4())
    return Message(id=task_id, headers={**HEADERS, "id": task_id, "root_id": task_id}, body=BODY, queue=queue, **fields)


def make_record(task_id: str) -> Record:
    """What a worker stores for a short task."""
    return Record(
        id=task_id, state="SUCCESS", result=b"5", date_done=iso_now(), fence=(0, 1), expires_at=time.time() + 86_400
    )


def measure(title: str, count: int, work: Callable[[], object]) -> None:
    """Print CPU and wall time of `work`, divided by `count`."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{title:60} {cpu / count * 1e6:8.1f} {wall / count * 1e6:8.1f}", flush=True)


def batches(count: int, size: int) -> list[list[Message]]:
    """Messages, made beforehand."""
    return [[message() for _ in range(size)] for _ in range(count // size)]


def publish_all(transport: Transport, ready: list[list[Message]]) -> None:
    """Publish batch by batch."""
    for batch in ready:
        transport.publish(batch)


def consume(transport: Transport, size: int, with_record: bool) -> None:
    """Fetch and settle, or commit, until the queue is empty."""
    while deliveries := transport.fetch(["q"], size, 0, 30):
        if with_record:
            transport.commit([Commit(Settlement(each), make_record(each.message.id)) for each in deliveries])
        else:
            transport.settle([Settlement(each) for each in deliveries])


def latencies(publisher: Transport, worker: Transport, count: int) -> list[float]:
    """Milliseconds from before the publish until a waiting fetch has the message."""
    times: list[float] = []
    for _ in range(count):
        arrived: list[float] = []

        def receive(arrived: list[float] = arrived) -> None:
            deliveries = worker.fetch(["q"], 1, 10, 30)
            arrived.append(time.perf_counter())
            worker.settle([Settlement(each) for each in deliveries])

        thread = threading.Thread(target=receive)
        thread.start()
        time.sleep(0.02)  # the worker waits now
        sent = time.perf_counter()
        publisher.publish([message()])
        thread.join()
        times.append((arrived[0] - sent) * 1000)
    return sorted(times)


def one_by_one(url: str, count: int) -> None:
    """What a queue does that claims a job, runs it and deletes it, each by a statement of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(count):
            found = connection.execute(
                "UPDATE celeriac_messages SET state = 1 WHERE id = (SELECT id FROM celeriac_messages WHERE queue = %s"
                " AND state = 0 ORDER BY priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, head, body",
                ("q",),
            ).fetchone()
            assert found is not None
            connection.execute("DELETE FROM celeriac_messages WHERE id = %s", (found[0],))


def run(name: str, url: str) -> None:
    """Measure one server."""
    transport, worker, store = open_transport(url), open_transport(url), open_store(f"db+{url}")
    assert worker.commits_with(store)
    publish_all(transport, batches(640, 64))
    consume(worker, 64, True)
    print(f"\n{name:60} {'CPU us':>8} {'wall us':>8}")
    for size in (1, 16, 100):
        ready = batches(4800, size)
        measure(f"publish in batches of {size}", 4800, lambda ready=ready: publish_all(transport, ready))
    measure("fetch 64 + settle 64", 14_400, lambda: consume(worker, 64, False))
    publish_all(transport, batches(9600, 100))
    measure("fetch 64 + commit 64 with records", 9600, lambda: consume(worker, 64, True))
    publish_all(transport, batches(960, 96))
    measure("fetch 1 + settle 1", 960, lambda: consume(worker, 1, False))
    publish_all(transport, batches(960, 96))
    measure("fetch 1 + commit 1 with record", 960, lambda: consume(worker, 1, True))
    if name == "PostgreSQL":
        publish_all(transport, batches(960, 96))
        measure("plain psycopg: claim 1 + delete 1", 960, lambda: one_by_one(url, 960))
    times = latencies(transport, worker, 100)
    print(f"publish to waiting fetch, ms: p50 {statistics.median(times):.2f}, p99 {times[-2]:.2f}")
    measure("idle fetch for 3 s (per second)", 3, lambda: worker.fetch(["q"], 64, 3, 30))
    later = time.time() + 86_400
    for _ in range(100):
        transport.publish([message(eta=later) for _ in range(1000)])
        transport.publish([message("another") for _ in range(1000)])
    publish_all(transport, batches(9600, 100))
    measure("fetch 64 + settle 64 beside 100,000 delayed, 100,000 ready", 9600, lambda: consume(worker, 64, False))
    measure("size() beside 100,000 delayed", 1, lambda: worker.size("q"))
    for each in (transport, worker, store):
        each.close()


def main(names: list[str]) -> None:
    """Start servers and measure."""
    with open_folder() as folder:
        if not names or "postgres" in names:
            with PostgresServer(folder / "postgres", fsync="on") as server:
                run("PostgreSQL", server.url)
        if not names or "mariadb" in names:
            with MariadbServer(folder / "mariadb", innodb_flush_log_at_trx_commit="1") as maria:
                run("MariaDB", maria.url)


if __name__ == "__main__":
    main(sys.argv[1:])
