"""What the Redis transport and store cost by themselves, in CPU microseconds of this process.

Run it with `python benchmarks/redis_raw.py [redis://127.0.0.1:6379/9]`; it empties that database. Without a URL it
starts a `redis-server` without persistence. Prints publishing (one at a time, in batches), fetching, settling and
committing in batches of 64, the server's own CPU time for each, Python calls of one publish, the time from a stock
client's push to the fetched message, and the cost of an idle wait and of fetching beside 100,000 delayed messages.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from celeriac.errors import OperationalError
from celeriac.message import Message, Settlement
from celeriac.results.base import Record
from celeriac.results.redis import RedisStore
from celeriac.results.redis_connection import Server
from celeriac.transport.base import Commit
from celeriac.transport.redis import RedisTransport

HEADERS = {
    "lang": "py", "task": "bench.add", "id": "", "shadow": None, "eta": None, "expires": None, "group": None,
    "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": "", "parent_id": None,
    "argsrepr": "(2, 3)", "kwargsrepr": "{}", "origin": "gen1234@bench", "ignore_result": False,
    "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
}  # fmt: skip
BODY = json.dumps([[2, 3], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()
BATCH = 64
PORT = 7399
_numbers = itertools.count()


def message(**fields: Any) -> Message:
    """A message of usual size."""
    task_id = f"8f0bc764-f408-4731-8cdf-{next(_numbers):012d}"
    fields.setdefault("queue", "q")
    return Message(id=task_id, headers={**HEADERS, "id": task_id, "root_id": task_id}, body=BODY, **fields)


def record(task_id: str) -> Record:
    """The record of a task that returned a number."""
    return Record(
        id=task_id, state="SUCCESS", result=b"5", children=[], date_done="2026-11-20T22:42:47.831332+00:00",
        fence=(0, 1), expires_at=float(int(time.time()) + 86400),
    )  # fmt: skip


class Bench:
    """One run."""

    def __init__(self, url: str) -> None:
        self.transport = RedisTransport(url, {"delay_at_publish": True})
        self.other = RedisTransport(url, {"delay_at_publish": True})
        self.store = RedisStore(url)
        self.server = Server(self.transport.settings)
        assert self.transport.commits_with(self.store)

    def server_cpu(self) -> float:
        """CPU seconds of the server's main thread."""
        info = self.server.call("INFO", "cpu").decode()
        values = dict(line.split(":") for line in info.split() if ":" in line)
        return float(values["used_cpu_sys_main_thread"]) + float(values["used_cpu_user_main_thread"])

    def measure(self, title: str, count: int, work: Callable[[], object]) -> None:
        """Print CPU here, CPU of the server and wall time of `work`, divided by `count`."""
        server, cpu, wall = self.server_cpu(), time.process_time(), time.perf_counter()
        work()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        server = self.server_cpu() - server
        print(f"{title:56} {cpu / count * 1e6:8.1f} {server / count * 1e6:8.1f} {wall / count * 1e6:8.1f}")

    def run(self) -> None:
        """Everything."""
        print(f"{'µs':56} {'CPU':>8} {'server':>8} {'wall':>8}")
        self.publishing()
        self.consuming()
        self.latency()
        self.waiting()
        self.delayed()

    def publishing(self) -> None:
        """One at a time and in batches."""
        self.server.call("FLUSHDB")
        count = 10_000
        for size in (1, 10, BATCH):
            batches = [[message() for _ in range(size)] for _ in range(count // size)]
            title = f"publish, {size} at a time"
            self.measure(title, count, lambda batches=batches: [self.transport.publish(batch) for batch in batches])  # type: ignore[misc]
        calls = 0

        def profile(_frame: Any, event: str, _arg: Any) -> None:
            nonlocal calls
            calls += event == "call"

        one = [message()]
        sys.setprofile(profile)
        self.transport.publish(one)
        sys.setprofile(None)
        print(f"{'Python calls of one publish':56} {calls:8}")

    def fill(self, count: int) -> None:
        """Publish."""
        self.server.call("FLUSHDB")
        for _ in range(count // BATCH):
            self.transport.publish([message() for _ in range(BATCH)])

    def consuming(self) -> None:
        """Fetch, renew, then acknowledge or commit, in batches."""
        count = BATCH * 150
        self.fill(count)
        held: list[Any] = []
        fetch = self.transport.fetch
        self.measure(
            f"fetch, {BATCH} at a time", count, lambda: [held.extend(fetch(["q"], BATCH, 1, 30)) for _ in range(150)]
        )
        chunks = [held[start : start + BATCH] for start in range(0, count, BATCH)]
        self.measure("extend", count, lambda: [self.transport.extend(chunk, 30) for chunk in chunks])
        settlements = [[Settlement(delivery) for delivery in chunk] for chunk in chunks]
        self.measure("settle by ack", count, lambda: [self.transport.settle(each) for each in settlements])
        self.fill(count)
        chunks = [fetch(["q"], BATCH, 1, 30) for _ in range(150)]
        commits = [[Commit(Settlement(d), record(d.message.id)) for d in chunk] for chunk in chunks]
        self.measure("commit: store and ack", count, lambda: [self.transport.commit(each) for each in commits])
        ids = [delivery.message.id for chunk in chunks for delivery in chunk]
        self.measure("get results", count, lambda: self.store.get(ids))
        records = [[record(f"more-{each}-{n}") for n in range(BATCH)] for each in range(150)]
        self.measure("store by itself", count, lambda: [self.store.store(each) for each in records])

    def latency(self) -> None:
        """From a push, as a stock client does it, to the fetched message."""
        self.server.call("FLUSHDB")
        self.transport.publish([message(queue="template")])
        element = self.server.call("RPOP", "template")
        took: list[float] = []
        pushed = [0.0]
        turn = threading.Event()

        def push() -> None:
            for _ in range(500):
                turn.wait()
                turn.clear()
                time.sleep(0.002)
                pushed[0] = time.perf_counter()
                self.server.call("LPUSH", "q", element)

        pusher = threading.Thread(target=push)
        pusher.start()
        for _ in range(500):
            turn.set()
            deliveries = self.transport.fetch(["q"], BATCH, 5, 30)
            took.append(time.perf_counter() - pushed[0])
            self.transport.settle([Settlement(delivery) for delivery in deliveries])
        pusher.join()
        took.sort()
        print(f"push to fetched message, µs: p50 {statistics.median(took) * 1e6:.0f}, p95 {took[475] * 1e6:.0f}")

    def waiting(self) -> None:
        """A fetch that finds nothing, and one that waits a second."""
        self.server.call("FLUSHDB")
        self.measure(
            "fetch of nothing, without waiting",
            2000,
            lambda: [self.transport.fetch(["q"], 1, 0, 30) for _ in range(2000)],
        )
        self.measure("fetch of nothing that waits 1 s", 1, lambda: self.transport.fetch(["q"], 1, 1, 30))

    def delayed(self) -> None:
        """Beside many messages that are not due."""
        soon = time.time() + 3600
        batches = [[message(eta=soon + n) for n in range(1000)] for _ in range(100)]
        self.measure(
            "publish delayed, 1000 at a time", 100_000, lambda: [self.transport.publish(batch) for batch in batches]
        )
        for _ in range(50):
            self.transport.publish([message() for _ in range(BATCH)])
        self.measure(
            "fetch beside 100,000 delayed",
            BATCH * 50,
            lambda: [self.transport.fetch(["q"], BATCH, 1, 30) for _ in range(50)],
        )
        self.measure("purge of 100,000 delayed", 1, lambda: self.transport.purge("q"))


def main() -> None:
    """Run against the given server, or a private one."""
    if len(sys.argv) > 1:
        Bench(sys.argv[1]).run()
        return
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            ["redis-server", "--port", str(PORT), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for(f"redis://127.0.0.1:{PORT}/0")
            Bench(f"redis://127.0.0.1:{PORT}/0").run()
        finally:
            process.kill()
            process.wait()


def wait_for(url: str) -> None:
    """Until the server answers."""
    for _ in range(200):
        try:
            RedisStore(url).get(["x"])
            return
        except OperationalError:
            time.sleep(0.02)


if __name__ == "__main__":
    main()
