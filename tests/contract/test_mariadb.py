"""The MySQL drivers keep the contracts, on MariaDB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("pymysql")

from celeriac.results.sql_core import CoreStore
from celeriac.testing.transports import TransportSuite
from celeriac.transport.sql_mysql import MysqlTransport
from tests.support.mariadb_server import MariadbServer
from tests.support.postgres_server import open_folder


@pytest.fixture(scope="module")
def server() -> Iterator[MariadbServer]:
    with open_folder() as folder, MariadbServer(folder / "mariadb") as server:
        yield server


class TestMysqlTransport(TransportSuite):
    @pytest.fixture
    def transport(self, server: MariadbServer) -> Iterator[MysqlTransport]:
        transport = MysqlTransport(server.url)
        yield transport
        transport.close()

    @pytest.fixture
    def other(self, server: MariadbServer) -> Iterator[MysqlTransport]:
        transport = MysqlTransport(f"sqla+{server.url.replace('mysql:', 'mysql+pymysql:')}")
        yield transport
        transport.close()

    @pytest.fixture
    def store(self, server: MariadbServer) -> Iterator[CoreStore]:
        store = CoreStore(f"db+{server.url}")
        yield store
        store.close()
