"""The result store for any database of SQLAlchemy keeps the contract, here on MariaDB, PostgreSQL and SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured
from celeriac.results.open import open_store
from celeriac.results.sql_core import CoreStore
from celeriac.testing.results import ResultStoreSuite, make_record
from tests.support.mariadb_server import MariadbServer
from tests.support.postgres_server import PostgresServer, open_folder


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariadbServer]:
    with open_folder() as folder, MariadbServer(folder / "mariadb") as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with open_folder() as folder, PostgresServer(folder / "postgres") as server:
        yield server


class CoreSuite(ResultStoreSuite):
    @pytest.fixture
    def url(self) -> str:
        raise AssertionError("said below")

    @pytest.fixture
    def store(self, url: str) -> Iterator[CoreStore]:
        store = CoreStore(url)
        yield store
        store.close()

    @pytest.fixture
    def other(self, url: str) -> Iterator[CoreStore]:
        store = CoreStore(url)
        yield store
        store.close()


class TestMariadb(CoreSuite):
    @pytest.fixture
    def url(self, mariadb: MariadbServer) -> str:
        return f"db+{mariadb.url}"


class TestPostgres(CoreSuite):
    @pytest.fixture
    def url(self, postgres: PostgresServer) -> str:
        return f"db+{postgres.url}"


class TestSqlite(CoreSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"db+sqlite:///{tmp_path}/results.db"


# --- what stock Celery has recorded, and wrote


VECTORS = Path(__file__).parents[1] / "wire" / "vectors" / "sql"


def recorded(path: Path, name: str) -> dict[str, Any]:
    """Make the SQLite file that a stock Celery has left, from its recording; returns the recording."""
    recording: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text())
    with closing(sqlite3.connect(path)) as connection:
        for statement in recording["schema"]:
            if "sqlite_sequence" not in statement:
                connection.execute(statement)
        for table, rows in recording["rows"].items():
            for row in rows:
                values = [value["bytes"].encode() if isinstance(value, dict) else value for value in row.values()]
                signs = ", ".join("?" * len(values))
                connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({signs})", values)
        connection.commit()
    return recording


@pytest.mark.parametrize("name", ["plain", "extended"])
def test_recorded_rows_are_read(tmp_path: Path, name: str) -> None:
    recording = recorded(tmp_path / "stock.db", name)
    store = CoreStore(f"db+sqlite:///{tmp_path}/stock.db")
    for row in recording["rows"]["celery_taskmeta"]:
        [record] = store.get([row["task_id"]])
        assert record is not None
        assert (record.state, record.traceback, record.name, record.worker) == (
            row["status"], row["traceback"], row["name"], row["worker"],
        )  # fmt: skip
        assert record.result == (row["result"]["bytes"].encode() if row["result"] else b"")
        assert record.children == (json.loads(row["children"]["bytes"]) if row["children"] else None)
        assert record.date_done == (row["date_done"].replace(" ", "T") + "+00:00" if row["date_done"] else None)
        if row["stamps"]:
            assert record.stamps == json.loads(row["stamps"]["bytes"])
    for row in recording["rows"].get("celery_tasksetmeta", []):
        assert store.get_group(row["taskset_id"]) == row["result"]["bytes"].encode()
    store.close()


def test_a_stock_success_is_never_overwritten(tmp_path: Path) -> None:
    recording = recorded(tmp_path / "stock.db", "plain")
    ids = [row["task_id"] for row in recording["rows"]["celery_taskmeta"] if row["status"] == "SUCCESS"]
    store = CoreStore(f"db+sqlite:///{tmp_path}/stock.db")
    assert store.store([make_record(task_id, "FAILURE", fence=(9, 9)) for task_id in ids]) == ids
    store.close()


def test_names_and_engine_options_are_settings(tmp_path: Path) -> None:
    app = Celeriac(
        "sql",
        backend=f"db+sqlite:///{tmp_path}/named.db",
        database_table_names={"task": "outcomes", "group": "outcome_groups"},
        database_engine_options={"echo": False},
        set_as_current=False,
    )
    assert app.backend is not None
    app.backend.store([make_record("t")])
    with closing(sqlite3.connect(tmp_path / "named.db")) as connection:
        assert connection.execute("SELECT task_id, status FROM outcomes").fetchall() == [("t", "SUCCESS")]
    app.close()


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("db+oracel://u:hidden@h/d", {}, "no dialect 'oracel' here. Did you mean 'oracle'?"),
        ("db+oracle+oracledb://u:hidden@h/d", {}, "needs the package 'oracledb'"),
        ("db+mysql://u:hidden@h/d", {"table_names": {"tasks": "x"}}, "'tasks'. Did you mean 'task'?"),
        (
            "db+mysql://u:hidden@h/d",
            {"engine_callback": "no.such"},
            "database_engine_callback 'no.such' can't be imported",
        ),
    ],
)
def test_mistakes_are_named(url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        open_store(url, options).get(["x"])
    assert message in str(caught.value)
    assert "hidden" not in str(caught.value)
