"""The drivers that keep everything in folders keep the contracts, and what they do when a process is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import msgspec
import pytest

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.message import Action, Settlement
from celeriac.results.filesystem import LEFTOVER, FilesystemStore
from celeriac.results.meta_value import record_from, value_of
from celeriac.results.open import open_store
from celeriac.testing.results import ResultStoreSuite, make_record
from celeriac.testing.transports import PATIENCE, TransportSuite, make_message
from celeriac.testing.worker import start_worker
from celeriac.transport.base import QueueSize
from celeriac.transport.filesystem import FilesystemTransport
from celeriac.transport.open import open_transport
from tests.support.files import Ledger

VECTORS = Path(__file__).parents[1] / "wire" / "vectors"


class TestFilesystemStore(ResultStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> FilesystemStore:
        return FilesystemStore(f"file://{tmp_path}/results?synchronous=NORMAL")

    @pytest.fixture
    def other(self, tmp_path: Path) -> FilesystemStore:
        return FilesystemStore(f"file://localhost{tmp_path}/results", {"compression": "zlib", "synchronous": "NORMAL"})


class TestFilesystemTransport(TransportSuite):
    lacks = frozenset({"commit"})

    @pytest.fixture
    def transport(self, tmp_path: Path) -> FilesystemTransport:
        return FilesystemTransport(f"filesystem://{tmp_path}/queue?synchronous=NORMAL")

    @pytest.fixture
    def other(self, tmp_path: Path) -> FilesystemTransport:
        folders = {"data_folder_in": f"{tmp_path}/queue", "data_folder_out": f"{tmp_path}/queue"}
        return FilesystemTransport("filesystem://", folders)


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    return FilesystemStore(f"file://{tmp_path}/results")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results"


def test_files_that_stock_celery_wrote_are_read(store: FilesystemStore, folder: Path) -> None:
    folder.mkdir()
    files = json.loads((VECTORS / "results" / "filesystem_backend.json").read_text())["files"]
    for name, content in files.items():
        (folder / name).write_text(content)
    [record] = store.get(["fs-1"])
    assert record is not None
    assert (record.state, record.result, record.date_done) == ("SUCCESS", b"5", "2026-11-20T22:43:49.266178+00:00")
    assert store.get_group("fs-g") == b'[["fs-g", null], [[["fs-1", null], null]]]'
    assert store.store([make_record("fs-1", "FAILURE", fence=(9, 9))]) == ["fs-1"]
    assert store.cleanup(time.time() + 1e9) == 0


def test_stock_celery_reads_what_we_write(store: FilesystemStore, folder: Path) -> None:
    """Same file name, and a superset of the recorded keys with the same meanings."""
    recorded = json.loads((VECTORS / "results" / "filesystem_backend.json").read_text())["files"]
    stock = json.loads(recorded["celery-task-meta-fs-1"])
    store.store([make_record("fs-1", result=b"5", date_done=stock["date_done"], fence=(1, 1))])
    store.save_group("fs-g", b'[["fs-g", null], [[["fs-1", null], null]]]', time.time() + 60)
    ours = json.loads((folder / "celery-task-meta-fs-1").read_text())
    assert {key: ours[key] for key in stock} == stock
    group = json.loads((folder / "celery-taskset-meta-fs-g").read_text())
    assert group["result"] == json.loads(recorded["celery-taskset-meta-fs-g"])["result"]


RECORD = {
    "date_done": "2026-11-20T22:44:12+00:00",
    "fence": (3, 2),
    "expires_at": 4e9,
    "children": [[["c", None], None]],
}


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("kind", "encoding", "result"),
    [
        ("application/json", "utf-8", b'{"a": [1, null]}'),
        ("application/json", "utf-8", b"NaN"),
        ("application/json", "utf-8", b"no JSON"),
        ("application/x-msgpack", "binary", msgspec.msgpack.encode({"a": [1, None]})),
        ("application/x-msgpack", "binary", b"\xc1"),
        ("application/x-yaml", "utf-8", b"a: [1, null]\n"),
        ("application/x-python-serialize", "binary", pickle.dumps({1, 2})),
        ("application/x-of-my-own", "binary", b"\x00\xff"),
    ],
)
def test_records_of_every_format_come_back(
    store: FilesystemStore, kind: str, encoding: str, result: bytes, compression: str | None
) -> None:
    extended = {"name": "t", "args": result, "kwargs": result, "worker": "w", "retries": 3, "queue": "q"}
    for fields in ({}, extended, {"stamps": {"stamped_headers": ["s"], "stamps": {"s": 1}}, **extended}):
        record = make_record("x", result=result, content_type=kind, content_encoding=encoding, **RECORD, **fields)
        assert record_from(value_of(record, compression)) == record
    store.store([record])
    assert store.get(["x"]) == [record]


class Bomb:
    """Goes off when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os._exit, (9,)  # type: ignore[return-value]


def test_no_pickle_is_loaded_to_compare_fences(store: FilesystemStore, folder: Path) -> None:
    kind = {"content_type": "application/x-python-serialize", "content_encoding": "binary"}
    store.store([make_record("b", "FAILURE", result=pickle.dumps(Bomb()), fence=(0, 2), **kind)])
    assert store.store([make_record("b", "FAILURE", fence=(0, 1))]) == ["b"]
    assert store.get(["b"]) != [None]
    (folder / "celery-task-meta-s").write_bytes(pickle.dumps({"status": "SUCCESS", "result": Bomb(), "task_id": "s"}))
    assert store.get(["s"]) == [None]
    store.cleanup(time.time())


def test_what_stock_celery_unpickles(store: FilesystemStore, folder: Path) -> None:
    kind = {"content_type": "application/x-python-serialize", "content_encoding": "binary"}
    store.store([make_record("p", result=pickle.dumps({1, 2}), **kind)])
    with (folder / "celery-task-meta-p").open("rb") as file:
        assert pickle.load(file)["result"] == {1, 2}


def test_nothing_but_results_is_left_in_the_folder(store: FilesystemStore, folder: Path) -> None:
    store.store([make_record("a")])
    assert store.store([make_record("a"), make_record("b")]) == ["a"]
    assert sorted(os.listdir(folder)) == [".celeriac.lock", "celery-task-meta-a", "celery-task-meta-b"]


def test_a_damaged_file_counts_as_missing(
    store: FilesystemStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.store([make_record("good"), make_record("bad")])
    (folder / "celery-task-meta-bad").write_bytes(b'{"status": "SUCC')
    assert [record is not None for record in store.get(["good", "bad", "bad"])] == [True, False, False]
    assert caplog.text.count("celery-task-meta-bad can't be read") == 1
    assert store.store([make_record("bad")]) == []


def test_what_a_killed_process_left_is_deleted_in_time(store: FilesystemStore, folder: Path) -> None:
    store.store([make_record("a")])
    leftover = folder / ".celeriac-tmp-1-2-3"
    leftover.write_bytes(b"half")
    store.cleanup(time.time())
    assert leftover.exists(), "it may just be written"
    store.cleanup(time.time() + LEFTOVER + 1)
    assert not leftover.exists()
    assert store.get(["a"]) != [None]


def hold_lock(path: str, held: multiprocessing.synchronize.Event) -> None:
    with FilesystemStore(f"file://{path}")._locked():
        held.set()
        time.sleep(600)


def test_the_lock_of_a_killed_process_is_free(store: FilesystemStore, folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=hold_lock, args=(str(folder), held), daemon=True)
    process.start()
    assert held.wait(20)
    with pytest.raises(OperationalError, match=r"was locked by another process for 0\.1 s"):
        FilesystemStore(f"file://{folder}?lock_timeout=0.1").store([make_record("a")])
    process.kill()
    process.join()
    assert store.store([make_record("a")]) == []


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperationalError, match="can't be kept in .*file/results"):
        FilesystemStore(f"file://{tmp_path}/file/results").store([make_record("a")])


def test_opening_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = open_store("file://results")
    monkeypatch.chdir("/")
    assert isinstance(relative, FilesystemStore)
    assert relative.path == str(tmp_path / "results")
    assert not list(tmp_path.iterdir()), "opening makes nothing"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file://", "names no folder, as in 'file:///var/lib/results'"),
        ("file:///tmp/x?synchronous=OFF", "synchronous is FULL or NORMAL, not 'OFF'"),
        ("file:///tmp/x?lock_timeout=-1", "lock_timeout is a number of seconds above 0"),
        ("file:///tmp/x?compresion=zlib", "Did you mean 'compression'?"),
    ],
)
def test_what_is_wrong_is_said(url: str, message: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        open_store(url)
    assert message in str(caught.value)


# --- the transport


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    return tmp_path / "queue"


@pytest.fixture
def transport(queue: Path) -> FilesystemTransport:
    return FilesystemTransport(f"filesystem://{queue}")


def stock_envelope(task_id: str) -> str:
    """A message as kombu writes it, with a plain body."""
    return json.dumps({
        "body": "W1tdLCB7fSwge31d", "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"lang": "py", "task": "t", "id": task_id, "retries": 0},
        "properties": {"correlation_id": task_id, "reply_to": "", "delivery_mode": 2, "priority": 0,
                       "delivery_info": {"exchange": "", "routing_key": "celery"}, "body_encoding": "base64",
                       "delivery_tag": "6e4a9bd5-35a1-4a52-9d7f-0c5c6e2b7d11"},
    })  # fmt: skip


def test_messages_of_stock_clients_are_delivered(transport: FilesystemTransport, queue: Path) -> None:
    queue.mkdir()
    (queue / "81234567_6e4a9bd5-35a1-4a52-9d7f-0c5c6e2b7d11.celery.msg").write_text(stock_envelope("s1"))
    (queue / "81234568_6e4a9bd5-35a1-4a52-9d7f-0c5c6e2b7d12.other.msg").write_text(stock_envelope("s2"))
    (queue / "notes.txt").write_text("not a message")
    [delivery] = transport.fetch(["celery"], 10, PATIENCE, 60)
    assert (delivery.message.id, delivery.message.task, delivery.message.body) == ("s1", "t", b"[[], {}, {}]")
    assert transport.settle([Settlement(delivery, Action.REQUEUE)]) == []
    assert transport.fetch(["celery"], 10, PATIENCE, 60)[0].deliveries == 2


def test_stock_workers_find_our_messages(transport: FilesystemTransport, queue: Path) -> None:
    transport.publish([make_message("m1", "celery"), make_message("m2", "celery")])
    names = sorted(name for name in os.listdir(queue) if ".celery.msg" in name)
    envelopes = [json.loads((queue / name).read_text()) for name in names]
    assert [envelope["headers"]["id"] for envelope in envelopes] == ["m1", "m2"]
    assert set(json.loads(stock_envelope("x"))) <= set(envelopes[0])


def test_a_message_that_cannot_be_read_is_delivered_with_its_defect(
    transport: FilesystemTransport, queue: Path
) -> None:
    queue.mkdir()
    (queue / "81234567_6e4a9bd5-35a1-4a52-9d7f-0c5c6e2b7d11.celery.msg").write_bytes(b"{broken")
    [delivery] = transport.fetch(["celery"], 10, PATIENCE, 60)
    assert "no JSON" in delivery.message.defect
    transport.settle([Settlement(delivery, Action.DEAD_LETTER, "can't be read")])
    [letter] = transport.dead_letters()
    assert (letter.reason, letter.message.body) == ("can't be read", b"{broken")


def test_no_lease_outlives_the_machine(transport: FilesystemTransport, queue: Path) -> None:
    transport.publish([make_message("m", "q")])
    transport.fetch(["q"], 1, PATIENCE, 3600)
    folder = queue / ".celeriac" / "leased"
    [name] = os.listdir(folder)
    until, _, rest = name.split(".", 2)
    (folder / name).rename(folder / f"{until}.0ldb007.{rest}")
    assert [delivery.message.id for delivery in transport.fetch(["q"], 1, PATIENCE, 60)] == ["m"]


def test_a_queue_name_may_hold_anything(transport: FilesystemTransport) -> None:
    for name in ("a/b", "../x", "100%.d1s1.msg", "größe", "a b"):
        transport.publish([make_message("m", name)])
        [delivery] = transport.fetch([name], 10, PATIENCE, 60)
        assert (delivery.queue, delivery.deliveries) == (name, 1)
        assert transport.size(name) == QueueSize(0, 0, 1)


def test_processed_messages_are_kept_where_that_is_wanted(queue: Path, tmp_path: Path) -> None:
    options = {"store_processed": True, "processed_folder": str(tmp_path / "processed")}
    transport = FilesystemTransport(f"filesystem://{queue}", options)
    transport.publish([make_message("m", "q")])
    transport.settle([Settlement(delivery) for delivery in transport.fetch(["q"], 1, PATIENCE, 60)])
    [kept] = (tmp_path / "processed").iterdir()
    assert json.loads(kept.read_text())["headers"]["id"] == "m"
    assert transport.size("q") == QueueSize(0, 0, 0)


def test_two_folders_join_two_programs(tmp_path: Path) -> None:
    control = {"control_folder": f"{tmp_path}/control"}
    near = FilesystemTransport(
        "filesystem://", {"data_folder_in": tmp_path / "a", "data_folder_out": tmp_path / "b", **control}
    )
    far = FilesystemTransport(
        "filesystem://", {"data_folder_in": tmp_path / "b", "data_folder_out": tmp_path / "a", **control}
    )
    due = time.time() + 0.3
    near.publish([make_message("now", "q"), make_message("later", "q", eta=due)])
    assert near.fetch(["q"], 10, 0, 60) == []
    assert [delivery.message.id for delivery in far.fetch(["q"], 10, PATIENCE, 60)] == ["now"]
    [later] = far.fetch(["q"], 10, PATIENCE, 60)
    assert (later.message.id, time.time() >= due, later.deliveries) == ("later", True, 1)
    assert any("another worker must read there" in line for line in near.durability_report())


def send_and_note(url: str, ledger: str) -> None:
    transport = FilesystemTransport(url)
    for number in range(100_000):
        transport.publish([make_message(f"{os.getpid()}-{number}", "q")])
        Ledger(ledger).append(f"{os.getpid()}-{number}")


def take_and_note(url: str, ledger: str) -> None:
    transport = FilesystemTransport(url)
    while True:
        for delivery in transport.fetch(["q"], 5, 1.0, 0.3):
            Ledger(ledger).append(delivery.message.id)
            transport.settle([Settlement(delivery)])


def test_killed_processes_lose_nothing(queue: Path, tmp_path: Path) -> None:
    """What a sender was told is sent comes out, whoever is killed at whatever moment."""
    context = multiprocessing.get_context("spawn")
    url = f"filesystem://{queue}?synchronous=NORMAL"
    sent, seen = Ledger(tmp_path / "sent"), Ledger(tmp_path / "seen")
    senders = [context.Process(target=send_and_note, args=(url, str(sent.path)), daemon=True) for _ in range(2)]
    takers = [context.Process(target=take_and_note, args=(url, str(seen.path)), daemon=True) for _ in range(2)]
    for process in senders + takers:
        process.start()
    sent.wait_for(60)
    seen.wait_for(30)
    for process in senders + takers:
        process.kill()
        process.join()
    transport = FilesystemTransport(url)
    while deliveries := transport.fetch(["q"], 100, 0.5, 60):
        for delivery in deliveries:
            seen.append(delivery.message.id)
        transport.settle([Settlement(delivery) for delivery in deliveries])
    assert set(sent.lines()) <= set(seen.lines())
    assert transport.size("q") == QueueSize(0, 0, 0)


def test_a_worker_on_folders(queue: Path, tmp_path: Path) -> None:
    app = Celeriac("f", broker=f"filesystem://{queue}", backend=f"file://{tmp_path}/results", set_as_current=False)

    @app.task
    def double(x: int) -> int:
        return 2 * x

    with app, start_worker(app, pool="threads", concurrency=2):
        results = [double.delay(number) for number in range(10)]
        assert [result.get(timeout=PATIENCE) for result in results] == [2 * number for number in range(10)]
    assert app.transport.size("celery") == QueueSize(0, 0, 0)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("filesystem://", {}, "names no folder: write 'filesystem:///var/lib/queue'"),
        ("filesystem://", {"data_folder_in": "/tmp/x"}, "names no folder"),
        ("filesystem:///tmp/x", {"polling_interval": 0}, "polling_interval is a number of seconds above 0, not 0"),
        ("filesystem:///tmp/x", {"store_processed": "maybe"}, "store_processed is true or false, not 'maybe'"),
        ("filesystem:///tmp/x", {"data_folderin": "/tmp/x"}, "Did you mean 'data_folder_in'?"),
    ],
)
def test_what_is_wrong_with_a_broker_is_said(url: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        open_transport(url, options)
    assert message in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    transport = FilesystemTransport(f"filesystem://{tmp_path}/file")
    with pytest.raises(OperationalError, match="Not a directory"):
        transport.publish([make_message("m", "q")])
