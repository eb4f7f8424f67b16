"""The MySQL drivers keep the contracts, on MariaDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pymysql
import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from celeriac.errors import MessageTooLarge
from celeriac.message import Settlement
from celeriac.results.sql_core import CoreStore
from celeriac.testing.transports import PATIENCE, TransportSuite, make_message
from celeriac.transport.base import QueueSize
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


@contextmanager
def users_connection(server: MariadbServer, kind: str) -> Iterator[Any]:
    """A connection of the user's, of that kind."""
    if kind == "pymysql":
        with closing(pymysql.connect(
            host="127.0.0.1", port=server.port, user="celeriac", password="secret", database="celeriac"
        )) as connection:  # fmt: skip
            yield connection
        return
    engine = sqlalchemy.create_engine(server.url.replace("mysql:", "mysql+pymysql:"))
    with Session(engine) if kind == "session" else engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.mark.parametrize("kind", ["session", "core", "pymysql"])
def test_a_task_exists_if_and_only_if_the_transaction_commits(server: MariadbServer, kind: str) -> None:
    transport = MysqlTransport(server.url)
    queue = f"tx-{kind}"
    with users_connection(server, kind) as connection:
        transport.publish_in(connection, [make_message("undone", queue)])
        assert transport.size(queue).ready == 0
        connection.rollback()
        assert transport.fetch([queue], 10, 0.05, 60) == []
        transport.publish_in(connection, [make_message("done", queue, body=bytes(range(256)), priority=3)])
        connection.commit()
    [delivery] = transport.fetch([queue], 10, PATIENCE, 60)
    assert (delivery.message.id, delivery.message.body) == ("done", bytes(range(256)))
    assert transport.settle([Settlement(delivery)]) == []
    assert transport.size(queue) == QueueSize(0, 0, 0)
    transport.close()


def test_a_body_larger_than_the_server_takes_is_refused(server: MariadbServer) -> None:
    transport = MysqlTransport(server.url)
    with pytest.raises(MessageTooLarge, match="max_allowed_packet = 16777216"):
        transport.publish([make_message("small", "large"), make_message("large", "large", body=b"x" * 9_000_000)])
    assert transport.fetch(["large"], 10, 0, 60) == []
    transport.close()
