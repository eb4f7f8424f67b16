"""What the SQLite drivers do when something goes wrong: kills, full disks, broken files, forks, absent sleepers."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import celeriac.results.sqlite_wakeup as wakeup_module
import celeriac.results.sqlite_watch as watch_module
from celeriac.errors import MessageTooLarge, OperationalError
from celeriac.message import Action, Delivery, Settlement
from celeriac.results.sqlite import SqliteStore
from celeriac.testing.results import make_record
from celeriac.testing.transports import PATIENCE, make_message
from celeriac.transport import sqlite as sqlite_module
from celeriac.transport.sqlite import SqliteTransport
from tests.support.clock import ManualClock

Start = Callable[..., "subprocess.Popen[str]"]

PREAMBLE = """
import os, sys, time
from celeriac.message import Message, Settlement
from celeriac.results.base import Record
from celeriac.results.sqlite import SqliteStore
from celeriac.transport.base import Commit
from celeriac.transport.sqlite import SqliteTransport
url = sys.argv[1]
transport = SqliteTransport(url)
def message(name, queue="q"):
    return Message(id=name, headers={"task": "t"}, body=name.encode(), queue=queue)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def transport(url: str) -> Iterator[SqliteTransport]:
    transport = SqliteTransport(url)
    yield transport
    transport.close()


@pytest.fixture
def start(url: str) -> Iterator[Start]:
    """Run a script beside this process: `start(code)`; killed at the end of the test."""
    started: list[subprocess.Popen[str]] = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}

    def run(code: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def names(deliveries: list[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


def drain(transport: SqliteTransport, queue: str) -> list[str]:
    """Ids of all messages that are ready."""
    found: list[str] = []
    while deliveries := transport.fetch([queue], 500, 0, 60):
        found += names(deliveries)
        transport.settle([Settlement(delivery) for delivery in deliveries])
    return found


def is_sound(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


def execute(path: Path, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    """Change the file behind the driver's back."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


# --- several processes, and their deaths


def test_processes_share_a_queue(transport: SqliteTransport, start: Start) -> None:
    publish = "transport.publish([message(f'{os.getpid()}-{i}') for i in range(3)])"
    publishers = [start(f"for i in range(60):\n    {publish.replace('for i', 'for j').replace('{i}', '{i}-{j}')}")]
    consumers = [
        start(
            """
            while deliveries := transport.fetch(["q"], 7, 2.0, 60):
                assert transport.settle([Settlement(each) for each in deliveries]) == []
                print("\\n".join(each.message.id for each in deliveries), flush=True)
            """
        )
        for _ in range(2)
    ]
    assert [publisher.wait(PATIENCE) for publisher in publishers] == [0]
    seen = [name for consumer in consumers for name in consumer.communicate(timeout=PATIENCE)[0].split()]
    assert len(seen) == 180
    assert len(set(seen)) == 180


def test_a_killed_publisher_keeps_exactly_what_was_acknowledged(
    transport: SqliteTransport, path: Path, start: Start
) -> None:
    process = start(
        """
        i = 0
        while True:
            transport.publish([message(str(i))])
            print(i, flush=True)
            i += 1
        """
    )
    assert process.stdout is not None
    for _ in range(100):
        process.stdout.readline()
    process.kill()
    acknowledged = 100 + len(process.stdout.read().split())
    found = [int(name) for name in drain(transport, "q")]
    assert found == list(range(len(found)))
    assert len(found) in (acknowledged, acknowledged + 1)  # the last one may not have been told
    assert is_sound(path)


def test_a_killed_committer_leaves_nothing_half_done(
    transport: SqliteTransport, url: str, path: Path, start: Start
) -> None:
    count = 3000
    transport.publish([make_message(str(i), "q") for i in range(count)])
    process = start(
        """
        print("ready", flush=True)
        while deliveries := transport.fetch(["q"], 5, 0, 0.1):
            transport.commit([
                Commit(Settlement(each), Record(id=each.message.id, state="SUCCESS", result=b"1"),
                       [message("after-" + each.message.id, "after")])
                for each in deliveries
            ])
            print("committed", flush=True)
        """
    )
    assert process.stdout is not None
    for _ in range(10):
        process.stdout.readline()
    process.kill()
    process.wait()
    left = set(drain(transport, "q"))
    while left_on_lease := transport.fetch(["q"], 500, 0.2, 60):
        left |= set(names(left_on_lease))
    store = SqliteStore(url)
    stored = {record.id for record in store.get([str(i) for i in range(count)]) if record is not None}
    store.close()
    followed = drain(transport, "after")
    assert stored
    assert left
    assert not left & stored
    assert len(left) + len(stored) == count
    assert sorted(followed) == sorted(f"after-{task_id}" for task_id in stored)
    assert is_sound(path)


def test_a_file_is_created_by_many_at_once(url: str) -> None:
    together = threading.Barrier(6)

    def use(number: int) -> None:
        transport = SqliteTransport(url)
        together.wait(PATIENCE)
        transport.publish([make_message(str(number), "q")])
        transport.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(use, range(6)))
    transport = SqliteTransport(url)
    assert sorted(drain(transport, "q")) == [str(i) for i in range(6)]
    transport.close()


def test_a_fork_does_not_use_its_parents_connections(transport: SqliteTransport, path: Path, start: Start) -> None:
    process = start(
        """
        import threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside a thread is what is tried here
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                transport.publish([message("thread", "busy")])
        threading.Thread(target=busy, daemon=True).start()
        transport.publish([message("before")])
        subscription = transport.subscribe(["t"])
        for number in range(10):
            pid = os.fork()
            if pid == 0:
                transport.publish([message(f"child-{number}")])
                if number % 2:
                    transport.close()
                    os._exit(0)
                sys.exit(0)
            transport.publish([message(f"parent-{number}")])
            assert os.waitpid(pid, 0)[1] == 0
        transport.broadcast("t", b"x")
        assert subscription.poll(10) == [("t", b"x")]
        stop.set()
        """
    )
    assert process.wait(PATIENCE) == 0
    expected = ["before", *(f"{who}-{i}" for who in ("child", "parent") for i in range(10))]
    assert sorted(drain(transport, "q")) == sorted(expected)
    assert is_sound(path)


# --- disks and files


def test_a_full_disk_loses_nothing(transport: SqliteTransport, url: str, path: Path) -> None:
    transport.publish([make_message("before", "q")])
    connection = transport._database.handle().connection
    assert connection is not None
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(OperationalError, match=f"No space left for {path}: nothing was written"):
        transport.publish([make_message(str(i), "q", body=b"x" * 10_000) for i in range(50)])
    assert is_sound(path)
    connection.execute("PRAGMA max_page_count = 1000000")
    transport.publish([make_message("after", "q")])
    assert drain(transport, "q") == ["before", "after"]


def test_a_file_that_may_not_grow(start: Start, transport: SqliteTransport, path: Path) -> None:
    process = start(
        """
        import resource
        transport.publish([message("before")])
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        accepted = 0
        try:
            while True:
                transport.publish([Message(id=f"n{accepted}", headers={}, body=b"x" * 20_000, queue="q")])
                accepted += 1
        except Exception as exc:
            print(type(exc).__name__, url[10:] in str(exc), accepted, flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        transport.publish([message("after")])
        """
    )
    output, _ = process.communicate(timeout=PATIENCE)
    kind, names_the_file, accepted = output.split()
    assert (process.returncode, kind, names_the_file) == (0, "OperationalError", "True")
    assert drain(transport, "q") == ["before", *(f"n{i}" for i in range(int(accepted))), "after"]
    assert is_sound(path)


def test_not_a_database(transport: SqliteTransport, path: Path) -> None:
    path.write_bytes(b"This is a letter to my aunt.\n" * 100)
    with pytest.raises(OperationalError, match=f"{path} is not an SQLite database"):
        transport.publish([make_message("m", "q")])
    with pytest.raises(OperationalError, match="is not an SQLite database"):
        transport.size("q")
    assert path.read_bytes().startswith(b"This is a letter")


def test_another_programs_database(transport: SqliteTransport, path: Path) -> None:
    execute(path, "PRAGMA user_version = 7")
    with pytest.raises(OperationalError, match=f"{path} is another program's database"):
        transport.publish([make_message("m", "q")])


def test_a_newer_schema(transport: SqliteTransport, path: Path) -> None:
    transport.publish([make_message("m", "q")])
    transport.close()
    execute(path, "PRAGMA user_version = 99")
    with pytest.raises(OperationalError, match="newer release"):
        transport.publish([make_message("m", "q")])


def test_a_missing_directory(tmp_path: Path) -> None:
    transport = SqliteTransport(f"sqlite:///{tmp_path}/missing/broker.db")
    with pytest.raises(OperationalError, match=f"the directory {tmp_path}/missing does not exist"):
        transport.publish([make_message("m", "q")])
    (tmp_path / "missing").mkdir()
    transport.publish([make_message("m", "q")])
    transport.close()


def test_a_path_that_is_a_directory(tmp_path: Path) -> None:
    transport = SqliteTransport(f"sqlite:///{tmp_path}")
    with pytest.raises(OperationalError, match=f"Can't open {tmp_path}: it is a directory"):
        transport.fetch(["q"], 1, 0, 1)


def test_a_read_only_directory() -> None:
    publish = """
import os, sys
from celeriac.errors import OperationalError
from celeriac.message import Message
from celeriac.transport.sqlite import SqliteTransport
if os.geteuid() == 0:
    os.setuid(65534)  # root may write everywhere
try:
    SqliteTransport(f"sqlite:///{sys.argv[1]}/broker.db").publish([Message(id="m", headers={}, body=b"", queue="q")])
except OperationalError as exc:
    print(exc)
"""
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, which only this user can enter
        Path(folder).chmod(0o555)
        done = subprocess.run([sys.executable, "-c", publish, folder], capture_output=True, text=True, check=True)
        assert f"the directory {folder} is not writable" in done.stdout


def test_a_file_that_others_hold_locked(url: str, path: Path) -> None:
    transport = SqliteTransport(f"{url}?busy_timeout=0.05")
    transport.publish([make_message("a", "q")])
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match=f"{path} was locked by another process for more than 0.05 s"):
        transport.publish([make_message("b", "q")])
    assert transport.size("q").ready == 1  # readers don't mind
    holder.execute("COMMIT")
    holder.close()
    transport.publish([make_message("c", "q")])
    assert drain(transport, "q") == ["a", "c"]
    transport.close()


def test_a_file_that_was_deleted_is_made_anew(
    transport: SqliteTransport, url: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = SqliteTransport(url)
    transport.publish([make_message("lost", "q")])
    assert other.size("q").ready == 1
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with caplog.at_level(logging.WARNING):
        transport.publish([make_message("new", "q")])
        assert drain(other, "q") == ["new"]
    assert caplog.text.count(f"{path} was deleted or replaced while in use") == 2
    other.close()


def test_a_deleted_file_does_not_stop_those_who_wait(transport: SqliteTransport, url: str, path: Path) -> None:
    other = SqliteTransport(url)
    transport.publish([make_message("lost", "another")])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.fetch, ["q"], 1, PATIENCE, 60)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        transport.publish([make_message("new", "q")])
        assert names(waiting.result(PATIENCE)) == ["new"]
    other.close()


@pytest.mark.parametrize("damage", ["head = x'c1'", "head = 'text'", "head = x''", "body = 17"])
def test_an_unreadable_row_is_a_defective_delivery(transport: SqliteTransport, path: Path, damage: str) -> None:
    transport.publish([make_message("bad", "q"), make_message("good", "q")])
    execute(path, f"UPDATE celeriac_incoming SET {damage} WHERE id = 1")
    bad, good = transport.fetch(["q"], 10, 0, 60)
    assert bad.message.defect
    assert (good.message.id, good.message.defect) == ("good", "")
    transport.settle([Settlement(bad, Action.DEAD_LETTER, reason=bad.message.defect), Settlement(good)])
    [letter] = transport.dead_letters()
    assert letter.message.defect == letter.reason
    assert transport.replay([letter.key]) == 1
    assert transport.fetch(["q"], 10, 0, 60)[0].message.defect == letter.reason


def test_a_value_that_sqlite_does_not_take(transport: SqliteTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "MAX_BYTES", 100)
    with pytest.raises(MessageTooLarge, match="'large' has 101 bytes"):
        transport.publish([make_message("small", "q"), make_message("large", "q", body=b"x" * 101)])
    assert drain(transport, "q") == []


# --- time


def test_leases_of_an_earlier_boot_are_over(transport: SqliteTransport, url: str, path: Path) -> None:
    transport.publish([make_message("m", "q")])
    [delivery] = transport.fetch(["q"], 1, 0, 1e9)
    execute(path, "UPDATE celeriac_meta SET value = 'an-earlier-boot' WHERE name = 'boot_id'")
    rebooted = SqliteTransport(url)
    [again] = rebooted.fetch(["q"], 1, 0, 60)
    assert again.deliveries == 2
    assert transport.settle([Settlement(delivery)]) == [delivery]
    rebooted.close()


def test_a_jump_of_the_wall_clock_ends_no_lease(url: str, clock: ManualClock) -> None:
    transport = SqliteTransport(url, clock=clock)
    transport.publish([make_message("now", "q"), make_message("later", "q", eta=clock.now() + 3600)])
    [delivery] = transport.fetch(["q"], 10, 0, 30)
    clock.jump_wall_time(86_400)
    assert names(transport.fetch(["q"], 10, 0, 30)) == ["later"]
    clock.jump_wall_time(-200_000)
    assert transport.fetch(["q"], 10, 0, 30) == []
    clock.advance(31)
    assert set(names(transport.fetch(["q"], 10, 0, 30))) == {"now", "later"}
    assert transport.settle([Settlement(delivery)]) == [delivery]
    transport.close()


def test_a_lease_that_is_over_may_still_be_settled_while_nobody_took_it(url: str, clock: ManualClock) -> None:
    transport = SqliteTransport(url, clock=clock)
    transport.publish([make_message("a", "q"), make_message("b", "q")])
    first, second = transport.fetch(["q"], 2, 0, 30)
    clock.advance(60)
    assert transport.fetch(["another"], 1, 0, 30) == []  # this fetch has seen that the leases are over
    assert transport.extend([second], 30) == []
    assert transport.settle([Settlement(first)]) == []
    assert transport.fetch(["q"], 2, 0, 30) == []
    transport.close()


# --- cost


def test_an_idle_fetch_hardly_looks(transport: SqliteTransport) -> None:
    transport.publish([make_message("later", "q", eta=time.time() + 3600)])
    statements: list[str] = []
    connection = transport._database.handle().connection
    assert connection is not None
    connection.set_trace_callback(statements.append)
    assert transport.fetch(["q"], 10, 2.5, 60) == []
    connection.set_trace_callback(None)
    # At the start, after each second and at the end, and one to take its name off the list.
    assert statements.count("BEGIN IMMEDIATE") <= 6


def test_claims_read_no_more_than_they_take(transport: SqliteTransport, path: Path) -> None:
    transport.publish([make_message("m", "q")])
    transport.close()
    for sql in (
        sqlite_module._CLAIM,
        sqlite_module._PROMOTE_DELAYED,
        sqlite_module._PROMOTE_LEASED,
        sqlite_module._NEXT_DUE,
        sqlite_module._NEXT_LEASE_END,
    ):
        connection = sqlite3.connect(path)
        parameters = ["q"] * sql.count("?")
        plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
        connection.close()
        assert not any("TEMP B-TREE" in step for step in plan), plan
        assert all("INDEX" in step or "PRIMARY KEY" in step or "SUBQUERY" in step for step in plan), plan


def test_a_publish_is_few_calls(transport: SqliteTransport) -> None:
    message = [make_message("m", "q")]
    transport.publish(message)
    calls: list[str] = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    transport.publish(message)
    sys.setprofile(None)
    assert len(calls) <= 8, calls


# --- sleepers


def test_sleepers_that_are_gone_are_forgotten(transport: SqliteTransport, path: Path, tmp_path: Path) -> None:
    transport.publish([make_message("a", "q")])
    stale = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
        killed.bind(str(stale))
    for address in (str(stale), str(tmp_path / "never"), "x" * 300):
        execute(path, "INSERT INTO celeriac_waiters (wants, address) VALUES ('queue:q', ?)", address)
    transport.publish([make_message("b", "q")])
    assert execute(path, "SELECT address FROM celeriac_waiters") == [("x" * 300,)]
    assert not stale.exists()


def test_a_killed_subscriber_is_forgotten(transport: SqliteTransport, path: Path, start: Start) -> None:
    process = start("subscription = transport.subscribe(['t'])\nprint('on', flush=True)\ntime.sleep(60)")
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    transport.broadcast("t", b"x")
    assert execute(path, "SELECT count(*) FROM celeriac_waiters") == [(0,)]
    assert execute(path, "SELECT count(*) FROM celeriac_inbox") == [(0,)]


def test_a_subscriber_that_never_reads_costs_bounded_space(
    transport: SqliteTransport, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeup_module, "INBOX_LIMIT", 10)
    subscription = transport.subscribe(["t"])
    for number in range(30):
        transport.broadcast("t", str(number).encode())
    assert [payload for _, payload in subscription.poll(PATIENCE)] == [str(i).encode() for i in range(20, 30)]
    subscription.close()


def test_without_unix_sockets_sleepers_poll(
    url: str, transport: SqliteTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    other, store = SqliteTransport(url), SqliteStore(url)
    subscription = other.subscribe(["t"])
    with ThreadPoolExecutor(4) as pool:
        fetching = pool.submit(other.fetch, ["q"], 1, PATIENCE, 60)
        interrupted = pool.submit(transport.fetch, ["none"], 1, 600, 60)
        polling = pool.submit(subscription.poll, PATIENCE)
        waiting = pool.submit(store.wait, ["task"], PATIENCE)
        transport.publish([make_message("m", "q")])
        transport.broadcast("t", b"x")
        store.store([make_record("task")])
        while not interrupted.done():
            transport.interrupt()
        assert names(fetching.result(PATIENCE)) == ["m"]
        assert polling.result(PATIENCE) == [("t", b"x")]
        assert [record.id for record in waiting.result(PATIENCE)] == ["task"]
    subscription.close()
    other.close()
    store.close()


def test_nobody_stays_on_the_list(transport: SqliteTransport, url: str, path: Path) -> None:
    store = SqliteStore(url)
    assert transport.fetch(["q", "r"], 1, 0.02, 60) == []
    assert store.wait(["a", "b"], 0.02) == []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(transport.fetch, ["q"], 1, PATIENCE, 60)
        transport.publish([make_message("m", "q")])
        waiting.result(PATIENCE)
    assert store.wait([str(i) for i in range(100)], 0.02) == []  # a watch stays for a while, in case of a next call
    assert len(execute(path, "SELECT * FROM celeriac_waiters")) == 1
    store.close()
    assert execute(path, "SELECT * FROM celeriac_waiters") == []


@pytest.mark.parametrize("name", ["KEPT", "FULL_CHECK"])
def test_a_watch_that_lapses_misses_nothing(
    transport: SqliteTransport, url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(watch_module, name, 0.0)
    store, other = SqliteStore(url), SqliteStore(url)
    pending = {str(i) for i in range(300)}
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [other.store([make_record(str(i))]) for i in range(300)])
        while pending:
            found = {record.id for record in store.wait(sorted(pending), PATIENCE)}
            assert found
            pending -= found
        writing.result(PATIENCE)
    store.close()
    other.close()
