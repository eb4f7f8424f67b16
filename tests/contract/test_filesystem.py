"""The drivers that keep everything in folders keep the contracts, and what they do when a process is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.results.filesystem import LEFTOVER, FilesystemStore
from celeriac.results.open import open_store
from celeriac.testing.results import ResultStoreSuite, make_record

VECTORS = Path(__file__).parents[1] / "wire" / "vectors"


class TestFilesystemStore(ResultStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> FilesystemStore:
        return FilesystemStore(f"file://{tmp_path}/results?synchronous=NORMAL")

    @pytest.fixture
    def other(self, tmp_path: Path) -> FilesystemStore:
        return FilesystemStore(f"file://localhost{tmp_path}/results", {"compression": "zlib", "synchronous": "NORMAL"})


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


def test_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
