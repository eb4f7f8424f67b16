"""The result store for any database of SQLAlchemy keeps the contract, here on MariaDB, PostgreSQL and SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.results.sql_core import CoreStore
from celeriac.testing.results import ResultStoreSuite
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
