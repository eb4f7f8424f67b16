"""The result tables are those of Celery's SQLAlchemy backend, in both directions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.results.base import Record
from celeriac.results.sqlite import SqliteStore
from celeriac.testing.transports import make_message
from celeriac.transport.sqlite import SqliteTransport

STOCK_TASKMETA = [
    ("id", "INTEGER"), ("task_id", "VARCHAR(155)"), ("status", "VARCHAR(50)"), ("result", "BLOB"),
    ("date_done", "DATETIME"), ("traceback", "TEXT"), ("children", "BLOB"), ("name", "VARCHAR(155)"), ("args", "BLOB"),
    ("kwargs", "BLOB"), ("worker", "VARCHAR(155)"), ("retries", "INTEGER"), ("queue", "VARCHAR(155)"),
    ("stamps", "BLOB"),
]  # fmt: skip
STOCK_TASKSETMETA = [("id", "INTEGER"), ("taskset_id", "VARCHAR(155)"), ("result", "BLOB"), ("date_done", "DATETIME")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(f"db+sqlite:///{path}")
    yield store
    store.close()


def rows(path: Path, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def columns(path: Path, table: str) -> list[tuple[str, str]]:
    return [(str(row[1]), str(row[2])) for row in rows(path, f"PRAGMA table_info({table})")]


def test_columns_and_indexes(store: SqliteStore, path: Path) -> None:
    store.get([])
    assert columns(path, "celery_taskmeta")[: len(STOCK_TASKMETA)] == STOCK_TASKMETA
    assert columns(path, "celery_tasksetmeta")[: len(STOCK_TASKSETMETA)] == STOCK_TASKSETMETA
    for table, unique in (("celery_taskmeta", "task_id"), ("celery_tasksetmeta", "taskset_id")):
        assert all(row[3] == 0 for row in rows(path, f"PRAGMA table_info({table})") if row[1] != "id"), "nullable"
        found = {
            (str(rows(path, f"PRAGMA index_info({name})")[0][2]), is_unique)
            for _, name, is_unique, *_ in rows(path, f"PRAGMA index_list({table})")
        }
        assert found == {(unique, 1), ("date_done", 0)}
        names = {row[0] for row in rows(path, "SELECT name FROM sqlite_master WHERE type = 'index'")}
        assert f"ix_{table}_date_done" in names


def test_what_we_write_is_what_stock_celery_writes(store: SqliteStore, path: Path) -> None:
    store.store([
        Record(
            id="t1", state="SUCCESS", result=b"5", children=[[["c", None], None]], name="wire.add", args=b"[2, 3]",
            kwargs=b"{}", worker="w1@wire", retries=0, queue="celery", date_done="2026-11-20T22:44:12.747806+00:00",
            stamps={"stamped_headers": ["sh"], "stamps": {"sh": "v"}},
        ),
        Record(id="t2", state="STARTED", result=b'{"pid": 1}', children=[]),
        Record(id="t3", state="FAILURE", result=b"{}", date_done="2026-11-21T00:44:12+02:00"),
    ])  # fmt: skip
    first, second, third = rows(path, f"SELECT {', '.join(name for name, _ in STOCK_TASKMETA)} FROM celery_taskmeta")
    assert first == (
        1, "t1", "SUCCESS", b"5", "2026-11-20 22:44:12.747806", None, b'[[["c",null],null]]', "wire.add", b"[2, 3]",
        b"{}", "w1@wire", 0, "celery", b'{"stamped_headers":["sh"],"stamps":{"sh":"v"}}',
    )  # fmt: skip
    assert second == (2, "t2", "STARTED", b'{"pid": 1}', *[None] * 10)
    assert third[4] == "2026-11-20 22:44:12.000000"
    store.save_group("g", b"[1]", None)
    [(group_id, value, saved_at)] = rows(path, "SELECT taskset_id, result, date_done FROM celery_tasksetmeta")
    assert (group_id, value) == ("g", b"[1]")
    assert len(str(saved_at)) == 26


def stock_tables(path: Path, *, old: bool = False) -> None:
    """Tables as stock Celery makes them; `old` ones lack children and stamps."""
    kept = [each for each in STOCK_TASKMETA[1:] if not old or each[0] not in ("children", "stamps")]
    fields = ", ".join(f"{name} {kind}" for name, kind in kept)
    key = "id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT"
    rows(path, f"CREATE TABLE celery_taskmeta ({key}, {fields}, UNIQUE (task_id))")
    rows(path, "CREATE INDEX ix_celery_taskmeta_date_done ON celery_taskmeta (date_done)")
    rows(path, f"CREATE TABLE celery_tasksetmeta ({key}, taskset_id, result, date_done, UNIQUE (taskset_id))")


@pytest.mark.parametrize("old", [False, True])
def test_what_stock_celery_wrote_is_read(store: SqliteStore, path: Path, old: bool) -> None:
    stock_tables(path, old=old)
    insert = "INSERT INTO celery_taskmeta (task_id, status, result, date_done, traceback) VALUES (?, ?, ?, ?, ?)"
    rows(path, insert, "json", "SUCCESS", b'{"a": 1}', "2026-11-20 22:44:12.747806", None)
    rows(path, insert, "pickle", "FAILURE", b"\x80\x04K\x05.", "2026-11-20 22:44:12.000000", "Traceback")
    rows(path, insert, "started", "STARTED", b"{}", None, None)
    rows(path, "INSERT INTO celery_tasksetmeta (taskset_id, result) VALUES ('g', ?)", b"[1]")
    assert store.get(["json", "pickle", "started"]) == [
        Record(id="json", state="SUCCESS", result=b'{"a": 1}', date_done="2026-11-20T22:44:12.747806+00:00"),
        Record(
            id="pickle", state="FAILURE", result=b"\x80\x04K\x05.", date_done="2026-11-20T22:44:12+00:00",
            traceback="Traceback", content_type="application/x-python-serialize", content_encoding="binary",
        ),
        Record(id="started", state="STARTED", result=b"{}"),
    ]  # fmt: skip
    assert store.get_group("g") == b"[1]"
    refused = store.store([
        Record(id="json", state="FAILURE", result=b"{}", fence=(0, 1)),
        Record(id="pickle", state="SUCCESS", result=b"1", children=[[["c", None], None]], fence=(0, 1)),
    ])  # fmt: skip
    assert refused == ["json"]
    assert store.cleanup(1e12) == 0, "rows without our expiry are left to stock Celery"


def test_children_of_another_serializer_are_left_out(store: SqliteStore, path: Path) -> None:
    store.store([Record(id="t", state="SUCCESS", result=b"1", children=[[["c", None], None]])])
    rows(path, "UPDATE celery_taskmeta SET children = x'80045d942e', date_done = 'yesterday'")
    [record] = store.get(["t"])
    assert record == Record(id="t", state="SUCCESS", result=b"1")


def test_one_file_is_broker_and_store(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    store.get([])
    link.symlink_to(path)
    same, another = SqliteTransport(f"sqlite:///{link}"), SqliteTransport(f"sqlite:///{tmp_path}/another.db")
    assert same.commits_with(store)
    assert not another.commits_with(store)
    same.publish([make_message("m", "q")])
    assert rows(path, "SELECT queue FROM celeriac_incoming") == [("q",)]
    same.close()


def test_cleanup_goes_through_all_rows(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celeriac.results.sqlite.CLEANUP_STEP", 7)
    store.store([Record(id=str(i), state="SUCCESS", result=b"", expires_at=2e9 + i % 3) for i in range(60)])
    assert store.cleanup(2e9 + 1) == 40
    assert store.cleanup(2e9 + 1) == 0
    assert [record is not None for record in store.get(["0", "1", "2"])] == [False, False, True]


def test_old_chords_are_forgotten(store: SqliteStore, path: Path) -> None:
    store.join_part("old", 0, 2, Record(id="a", state="SUCCESS", result=b"1"))
    rows(path, "UPDATE celeriac_chords SET touched_at = 0")
    store.join_part("new", 0, 2, Record(id="b", state="SUCCESS", result=b"1"))
    store.cleanup(1e9)
    assert rows(path, "SELECT group_id FROM celeriac_chords") == [("new",)]
    assert rows(path, "SELECT group_id FROM celeriac_chord_parts") == [("new",)]
