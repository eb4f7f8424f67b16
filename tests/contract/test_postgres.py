"""The PostgreSQL drivers keep the contracts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured
from celeriac.message import Settlement
from celeriac.results.sql import PostgresStore
from celeriac.testing.results import ResultStoreSuite
from celeriac.testing.transports import PATIENCE, TransportSuite, make_message
from celeriac.transport.base import QueueSize
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


# --- sending inside the user's transaction


@contextmanager
def users_connection(server: PostgresServer, kind: str) -> Iterator[Any]:
    """A connection of the user's, of that kind."""
    if kind == "psycopg":
        with closing(psycopg.connect(server.url)) as connection:
            yield connection
        return
    engine = sqlalchemy.create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
    with Session(engine) if kind == "session" else engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.mark.parametrize("kind", ["session", "core", "psycopg"])
def test_a_task_exists_if_and_only_if_the_transaction_commits(server: PostgresServer, kind: str) -> None:
    transport = PostgresTransport(server.url)
    queue = f"tx-{kind}"
    with users_connection(server, kind) as connection:
        transport.publish_in(connection, [make_message("undone", queue)])
        assert transport.size(queue).ready == 0
        connection.rollback()
        assert transport.fetch([queue], 10, 0.05, 60) == []
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(transport.fetch, [queue], 10, PATIENCE, 60)
            transport.publish_in(connection, [make_message("done", queue, body=bytes(range(256)))])
            connection.commit()
            [delivery] = waiting.result(PATIENCE)
    assert (delivery.message.id, delivery.message.body) == ("done", bytes(range(256)))
    assert transport.settle([Settlement(delivery)]) == []
    assert transport.size(queue) == QueueSize(0, 0, 0)
    transport.close()


def test_a_task_of_a_users_transaction(server: PostgresServer) -> None:
    app = Celeriac("tx", broker=server.url, backend=f"db+{server.url}", set_as_current=False)
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE orders (id int)")
        connection.execute("INSERT INTO orders VALUES (1)")
        app.send_task("ship", [1], queue="orders", connection=connection, countdown=0)
        connection.rollback()
        assert app.transport.size("orders").ready == 0
        app.send_task("ship", [2], queue="orders", connection=connection)
        app.send_task("ship", [3], queue="orders", connection=connection, countdown=3600)
    size = app.transport.size("orders")
    assert (size.ready, size.delayed) == (1, 1)
    app.close()


@pytest.mark.parametrize(
    "what", [object(), "postgresql://", sqlite3.connect(":memory:")], ids=["object", "str", "sqlite3"]
)
def test_what_is_no_connection_of_the_broker_is_refused(server: PostgresServer, what: object) -> None:
    transport = PostgresTransport(server.url)
    with pytest.raises(ImproperlyConfigured, match=r"DB-API connection, to PostgreSQL \(postgresql://celeriac:\*\*@"):
        transport.publish_in(what, [make_message("m", "q")])
    transport.close()


def test_a_broker_that_is_no_database_takes_no_connection(server: PostgresServer) -> None:
    app = Celeriac("tx", broker="memory://tx", backend=None, set_as_current=False)
    with psycopg.connect(server.url) as connection, pytest.raises(ImproperlyConfigured, match="memory://tx is none"):
        app.send_task("ship", connection=connection)
