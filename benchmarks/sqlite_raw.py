"""What the SQLite transport and store cost by themselves, in CPU microseconds.

Run it with `python benchmarks/sqlite_raw.py [directory]`. The directory decides which disk is measured. Prints a table
of publishing (one at a time, in batches), fetching and committing, Python calls of one publish, the time from publish to
fetch, the cost of an idle fetch, and of fetching beside 100,000 delayed messages.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from celeriac.message import Message, Settlement
from celeriac.results.base import Record
from celeriac.results.sqlite import SqliteStore
from celeriac.timing import iso_now
from celeriac.transport.base import Commit
from celeriac.transport.sqlite import SqliteTransport

HEADERS = {
    "lang": "py", "task": "bench.add", "id": "", "shadow": None, "eta": None, "expires": None, "group": None,
    "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": "", "parent_id": None,
    "argsrepr": "(2, 3)", "kwargsrepr": "{}", "origin": "gen1234@bench", "ignore_result": False,
    "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
}  # fmt: skip
BODY = json.dumps([[2, 3], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode() * 2


def message(**fields: Any) -> Message:
    """A message of usual size."""
    task_id = str(uuid.uuid4())
    return Message(id=task_id, headers={**HEADERS, "id": task_id, "root_id": task_id}, body=BODY, queue="q", **fields)


def make_record(task_id: str) -> Record:
    """What a worker stores for a short task."""
    now = time.time()
    return Record(
        id=task_id, state="SUCCESS", result=b"5", date_done=iso_now(), fence=(0, 1), expires_at=now + 86_400
    )  # fmt: skip


def measure(title: str, count: int, work: Callable[[], None]) -> None:
    """Print CPU and wall time of `work`, divided by `count`."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{title:52} {cpu / count * 1e6:8.1f} {wall / count * 1e6:8.1f}")


def publish_all(transport: SqliteTransport, batches: list[list[Message]]) -> None:
    """Publish batch by batch."""
    for batch in batches:
        transport.publish(batch)


def batches(count: int, size: int) -> list[list[Message]]:
    """Messages, made beforehand."""
    return [[message() for _ in range(size)] for _ in range(count // size)]


def consume(transport: SqliteTransport, size: int, with_record: bool) -> None:
    """Fetch and commit until the queue is empty."""
    while deliveries := transport.fetch(["q"], size, 0, 30):
        transport.commit([
            Commit(Settlement(each), make_record(each.message.id) if with_record else None)
            for each in deliveries
        ])  # fmt: skip


def count_calls(transport: SqliteTransport) -> int:
    """Python-level calls of one warm publish."""
    calls = 0

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event == "call"

    ready = [message()]
    sys.setprofile(profile)
    transport.publish(ready)
    sys.setprofile(None)
    return calls


def latencies(publisher: SqliteTransport, worker: SqliteTransport, count: int) -> list[float]:
    """Milliseconds from before the publish until a waiting fetch has the message."""
    times: list[float] = []
    for _ in range(count):
        got = threading.Event()
        arrived = []

        def receive(got: threading.Event = got, arrived: list[float] = arrived) -> None:
            deliveries = worker.fetch(["q"], 1, 10, 30)
            arrived.append(time.perf_counter())
            worker.settle([Settlement(each) for each in deliveries])
            got.set()

        thread = threading.Thread(target=receive)
        thread.start()
        time.sleep(0.01)  # the worker sleeps now
        sent = time.perf_counter()
        publisher.publish([message()])
        got.wait(10)
        thread.join()
        times.append((arrived[0] - sent) * 1000)
    return sorted(times)


def run(directory: str, synchronous: str) -> None:
    """Measure one setting."""
    url = f"sqlite:///{directory}/{synchronous}.db?synchronous={synchronous}"
    transport, worker = SqliteTransport(url), SqliteTransport(url)
    store = SqliteStore(url)
    transport.publish([message()])
    consume(worker, 64, True)
    print(f"\nsynchronous={synchronous:36} {'CPU us':>8} {'wall us':>8}")
    for size in (1, 16, 100):
        ready = batches(9600, size)
        measure(f"publish in batches of {size}", 9600, lambda ready=ready: publish_all(transport, ready))
    measure("fetch 64 + settle", 28800, lambda: consume(worker, 64, False))
    publish_all(transport, batches(9600, 100))
    measure("fetch 64 + commit with record", 9600, lambda: consume(worker, 64, True))
    publish_all(transport, batches(960, 96))
    measure("fetch 1 + commit with record", 960, lambda: consume(worker, 1, True))
    print(f"Python calls of one publish: {count_calls(transport)}")
    consume(worker, 64, False)
    times = latencies(transport, worker, 200)
    print(f"publish to waiting fetch, ms: p50 {statistics.median(times):.2f}, p99 {times[-2]:.2f}")
    measure("idle fetch for 3 s (per second)", 3, lambda: worker.fetch(["q"], 64, 3, 30) and None)
    later = time.time() + 86_400
    transport.publish([message(eta=later) for _ in range(100_000)])
    publish_all(transport, batches(9600, 100))
    measure("fetch 64 + settle beside 100,000 delayed", 9600, lambda: consume(worker, 64, False))
    measure("size() beside 100,000 delayed", 1, lambda: worker.size("q") and None)
    for each in (transport, worker, store):
        each.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as where:
        run(where, "NORMAL")
        run(where, "FULL")
