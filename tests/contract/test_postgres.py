"""The PostgreSQL drivers keep the contracts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("psycopg")

from celeriac.results.sql import PostgresStore
from celeriac.testing.results import ResultStoreSuite
from celeriac.testing.transports import TransportSuite
from celeriac.transport.sql_postgres import PostgresTransport
from tests.support.postgres_server import PostgresServer, open_folder


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with open_folder() as folder, PostgresServer(folder / "postgres") as server:
        yield server


class TestPostgresStore(ResultStoreSuite):
    @pytest.fixture
    def store(self, server: PostgresServer) -> Iterator[PostgresStore]:
        store = PostgresStore(f"db+{server.url}")
        yield store
        store.close()

    @pytest.fixture
    def other(self, server: PostgresServer) -> Iterator[PostgresStore]:
        store = PostgresStore(server.url)
        yield store
        store.close()


class TestPostgresTransport(TransportSuite):
    @pytest.fixture
    def transport(self, server: PostgresServer) -> Iterator[PostgresTransport]:
        transport = PostgresTransport(server.url)
        yield transport
        transport.close()

    @pytest.fixture
    def other(self, server: PostgresServer) -> Iterator[PostgresTransport]:
        transport = PostgresTransport(f"sqla+{server.url}")
        yield transport
        transport.close()

    @pytest.fixture
    def store(self, server: PostgresServer) -> Iterator[PostgresStore]:
        store = PostgresStore(f"db+{server.url}")
        yield store
        store.close()
