"""What may be spent, in things that can be counted: calls, files, modules, SQL statements, round trips.

Seconds are in benchmarks/. A count that rises here is a layer that crept in; a test that fails shows where.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.message import Delivery, Message, Settlement
from celeriac.results.base import Record
from celeriac.timing import iso_now
from celeriac.transport.base import Commit
from celeriac.transport.memory import MemoryTransport
from celeriac.transport.sqlite import SqliteTransport
from celeriac.worker.committer import Committer, Entry
from celeriac.worker.consuming import Consuming
from celeriac.worker.intake import Intake
from celeriac.worker.leases import Leases
from tests.support.apps import memory_app
from tests.support.calls import CallCount, count_calls

ROOT = Path(__file__).resolve().parents[2]
#: What a worker has in hand at once under load.
BATCH = 128


# --- a call


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celeriac]:
    url = f"sqlite:///{tmp_path}/celeriac.db" if request.param == "sqlite" else f"memory://{tmp_path.name}"
    with Celeriac("budget", broker=url, backend=url, set_as_current=False) as app:
        yield app


def counted(call: Callable[[], Any]) -> CallCount:
    """The calls of the third time: what is done once has been done."""
    call()
    call()
    return count_calls(call)


def test_a_delay_is_25_calls_in_7_files(app: Celeriac) -> None:
    add = app.task(lambda x, y: x + y, name="add")
    count = counted(lambda: add.delay(2, 3))
    print(count.listing)
    assert count.package_calls <= 25, count.listing
    assert len(count.files) <= 7, count.files


def test_a_call_with_options_is_45_calls(app: Celeriac) -> None:
    add = app.task(lambda x, y: x + y, name="add")
    count = counted(lambda: add.apply_async((2, 3), countdown=60, queue="other", priority=3))
    assert count.package_calls <= 45, count.listing


def test_arguments_are_walked_only_where_their_text_would_be_long(app: Celeriac) -> None:
    take = app.task(lambda values: None, name="take")
    few, many = ([1] * size for size in (5, 10_000))
    assert counted(lambda: take.delay(few)).calls * 200 > counted(lambda: take.delay(many)).calls


# --- an import


def modules_after(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


def test_an_import_takes_nothing_heavy_along() -> None:
    added = modules_after("import celeriac") - modules_after("import msgspec, logging, socket, zoneinfo")
    ours = {name for name in added if name.partition(".")[0] == "celeriac"}
    heavy = {"asyncio", "dataclasses", "email", "importlib.metadata", "multiprocessing", "random", "sqlite3", "ssl"}
    assert added & heavy == set()
    assert len(ours) <= 80, sorted(ours)
    assert len(added - ours) <= 30, sorted(added - ours)


# --- a batch at the broker


def messages(count: int) -> list[Message]:
    return [Message(id=f"task-{number}", headers={"task": "t"}, body=b"[]", queue="q") for number in range(count)]


def record(task_id: str) -> Record:
    return Record(id=task_id, state="SUCCESS", result=b"1", date_done=iso_now(), fence=(0, 1))


def statements(transport: SqliteTransport, work: Callable[[], Any]) -> list[str]:
    """The SQL that some work of this thread makes."""
    made: list[str] = []
    connection = transport._database.handle().connection
    assert connection is not None
    connection.set_trace_callback(made.append)
    try:
        work()
    finally:
        connection.set_trace_callback(None)
    return made


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SqliteTransport]:
    transport = SqliteTransport(f"sqlite:///{tmp_path}/celeriac.db")
    transport.publish(messages(1))
    transport.settle([Settlement(delivery) for delivery in transport.fetch(["q"], 1, 0, 30)])
    yield transport
    transport.close()


def test_a_publish_is_4_statements(sqlite: SqliteTransport) -> None:
    made = statements(sqlite, lambda: sqlite.publish(messages(1)))
    assert len(made) <= 4, made


def test_a_batch_is_fetched_by_10_statements(sqlite: SqliteTransport) -> None:
    sqlite.publish(messages(BATCH))
    made = statements(sqlite, lambda: sqlite.fetch(["q"], BATCH, 0, 30))
    assert len(made) <= 10, made


def test_a_batch_of_outcomes_is_committed_by_16_statements(sqlite: SqliteTransport) -> None:
    sqlite.publish(messages(BATCH))
    deliveries = sqlite.fetch(["q"], BATCH, 0, 30)
    commits = [Commit(Settlement(delivery), record(delivery.message.id)) for delivery in deliveries]
    made = statements(sqlite, lambda: sqlite.commit(commits))
    assert len(made) <= 16, [statement[:80] for statement in made]
    assert sqlite.size("q").leased == 0


# --- a batch in the worker


class Counting(MemoryTransport):
    """The memory transport, with a count of the round trips that a worker makes."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.fetches = 0
        self.commits = 0

    def fetch(self, queues: Sequence[str], limit: int, wait: float, lease: float) -> list[Delivery]:
        self.fetches += 1
        return super().fetch(queues, limit, wait, lease)

    def commit(self, commits: Sequence[Commit]) -> list[Delivery]:
        self.commits += 1
        return super().commit(commits)


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Counting]:
    transport = Counting(f"memory://{tmp_path.name}")
    yield transport
    transport.clear()


def test_what_the_pool_wants_comes_in_one_round_trip(counting: Counting) -> None:
    counting.publish(messages(BATCH))
    came: list[Delivery] = []
    done = threading.Event()

    def take(deliveries: list[Delivery], stored: dict[str, Record]) -> None:
        came.extend(deliveries)
        done.set()

    leases = Leases(counting, 30, lambda lost: None)
    consuming = Consuming(counting, memory_app().conf, leases.__len__)
    intake = Intake(counting, None, leases, ["q"], 30, take, consuming, lambda error: None)
    intake.want(BATCH)
    intake.start()
    assert done.wait(30)
    intake.stop()
    assert intake.join(30)
    assert (len(came), counting.fetches) == (BATCH, 1)


def test_outcomes_that_have_gathered_are_committed_in_one_round_trip(counting: Counting) -> None:
    counting.publish(messages(BATCH))
    deliveries = counting.fetch(["q"], BATCH, 0, 30)
    store = counting._store
    committer = Committer(counting, store, Leases(counting, 30, lambda lost: None), lambda entries, refused: None)
    committer.add([Entry(Settlement(delivery), record(delivery.message.id)) for delivery in deliveries])
    committer.start()
    assert committer.drain(30)
    assert counting.commits == 1
    assert all(each is not None for each in store.get([delivery.message.id for delivery in deliveries]))
    store.clear()
