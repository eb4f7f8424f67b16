"""The PostgreSQL drivers keep the contracts."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.message import Settlement
from celeriac.results.sql import PostgresStore
from celeriac.testing.results import ResultStoreSuite, make_record
from celeriac.testing.transports import PATIENCE, TransportSuite, make_message
from celeriac.transport.base import Commit, QueueSize
from celeriac.transport.sql_postgres import PostgresTransport
from tests.support.postgres_server import PostgresServer, open_folder
from tests.support.server import free_port


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


# --- addresses and options


def test_a_dead_host_is_passed_over(server: PostgresServer) -> None:
    transport = PostgresTransport(server.url.replace("127.0.0.1", "127.0.0.1:9,127.0.0.1", 1))
    transport.publish([make_message("m", "failover")])
    assert len(transport.fetch(["failover"], 1, PATIENCE, 60)) == 1
    transport.close()


def test_tables_in_a_schema_of_their_own(server: PostgresServer) -> None:
    url = f"{server.url}?schema=jobs"
    transport, store = PostgresTransport(url), PostgresStore(url)
    assert transport.commits_with(store)
    assert not transport.commits_with(PostgresStore(server.url))
    transport.publish([make_message("m", "apart")])
    [delivery] = transport.fetch(["apart"], 1, PATIENCE, 60)
    assert transport.commit([Commit(Settlement(delivery), make_record("apart"))]) == []
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT status FROM jobs.celery_taskmeta").fetchall() == [("SUCCESS",)]
    plain = PostgresTransport(server.url)
    assert plain.size("apart") == QueueSize(0, 0, 0)
    transport.publish_in(connection := psycopg.connect(server.url), [make_message("n", "apart")])
    connection.commit()
    connection.close()
    assert transport.size("apart").ready == 1
    for each in (transport, store, plain):
        each.close()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("timeout=soon", "timeout is a number from 0.05 to 3600, not 'soon'"),
        ("schema=a'b", "no quotes"),
        ("sslmod=require", 'invalid URI query parameter: "sslmod"'),
    ],
)
def test_mistakes_in_a_url_are_named(query: str, message: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        PostgresTransport(f"postgresql://u:hidden@127.0.0.1:9/d?{query}").size("q")
    assert message in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="has no option 'timout'.* Did you mean 'timeout'?"):
        PostgresTransport("postgresql://127.0.0.1:9/d", {"timout": 3})


def test_nobody_there(server: PostgresServer) -> None:
    transport = PostgresTransport(f"postgresql://u:hidden@127.0.0.1:{free_port()}/d?timeout=2")
    with pytest.raises(OperationalError, match=r"postgresql://u:\*\*@127.*onnection refused"):
        transport.publish([make_message("m", "q")])
    wrong = PostgresTransport(server.url.replace("secret", "wrong"))
    with pytest.raises(OperationalError, match="password authentication failed"):
        wrong.publish([make_message("m", "q")])


# --- the tables


def test_claims_read_no_more_than_they_take(server: PostgresServer) -> None:
    transport = PostgresTransport(server.url)
    later = time.time() + 3600
    transport.publish([make_message(f"later-{i}", "plan", eta=later) for i in range(2000)])
    transport.publish([make_message(f"ready-{i}", "plan") for i in range(2000)])
    messages = transport._messages

    def plans(cursor: Any) -> str:
        texts = []
        for name, parameters in (
            ("claim_one", ("plan", later, 10, 1, 30.0)),
            ("claim", (["plan"], [10], later, 10, 1, 30.0)),
            ("promote", (9, 9)),
        ):
            cursor.execute("EXPLAIN " + messages._sql[name], parameters)
            texts += [line for (line,) in cursor.fetchall()]
        return "\n".join(texts)

    plan = transport._run(plans)
    assert "Seq Scan" not in plan, plan
    assert "Sort" not in plan, plan
    assert plan.count("celeriac_messages_ready") >= 2, plan
    transport.delete("plan")
    transport.close()


def make_stock_tables(connection: Any) -> None:
    """What stock Celery makes: sequences that the client asks, ids without a default."""
    connection.execute("CREATE SEQUENCE task_id_sequence; CREATE SEQUENCE taskset_id_sequence")
    connection.execute(
        "CREATE TABLE celery_taskmeta (id INTEGER NOT NULL PRIMARY KEY, task_id VARCHAR(155) UNIQUE, status VARCHAR(50),"
        " result BYTEA, date_done TIMESTAMP, traceback TEXT, name VARCHAR(155), args BYTEA, kwargs BYTEA,"
        " worker VARCHAR(155), retries INTEGER, queue VARCHAR(155))"
    )
    connection.execute(
        "CREATE TABLE celery_tasksetmeta (id INTEGER NOT NULL PRIMARY KEY, taskset_id VARCHAR(155) UNIQUE, result BYTEA,"
        " date_done TIMESTAMP)"
    )


@pytest.fixture(params=["may alter", "may not alter"])
def stock_url(server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with the tables of an older Celery, whose owner lets us add columns or not."""
    with closing(server.connect()) as connection:
        connection.execute("DROP DATABASE IF EXISTS stock")
        connection.execute("CREATE DATABASE stock")
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'secret'")
    with closing(server.connect("stock")) as connection:
        make_stock_tables(connection)
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO guest; GRANT ALL ON SCHEMA public TO guest")
        connection.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO guest")
    user = "celeriac" if request.param == "may alter" else "guest"
    yield f"postgresql://{user}:secret@127.0.0.1:{server.port}/stock"
    with closing(server.connect()) as connection:
        connection.execute("DROP DATABASE stock WITH (FORCE)")


class TestStockTables(ResultStoreSuite):
    """The whole contract in tables that stock Celery has made."""

    @pytest.fixture
    def store(self, stock_url: str) -> Iterator[PostgresStore]:
        store = PostgresStore(stock_url)
        yield store
        store.close()

    @pytest.fixture
    def other(self, stock_url: str) -> Iterator[PostgresStore]:
        store = PostgresStore(stock_url)
        yield store
        store.close()


def test_stock_celery_reads_what_we_store(stock_url: str) -> None:
    store = PostgresStore(stock_url)
    store.store(
        [make_record("t1", result=b"[5]", date_done="2026-11-20T22:44:12.747806+00:00", children=[[["c", None], None]])]
    )
    with psycopg.connect(stock_url) as connection:
        [(status, result, date_done)] = connection.execute(
            "SELECT status, result, date_done FROM celery_taskmeta WHERE task_id = 't1'"
        ).fetchall()
        assert (status, bytes(result), date_done) == ("SUCCESS", b"[5]", datetime(2026, 11, 20, 22, 44, 12, 747806))
        # And it keeps to our row: the next id comes from the same sequence.
        connection.execute(
            "INSERT INTO celery_taskmeta (id, task_id, status, result) VALUES (nextval('task_id_sequence'), 't2', 'FAILURE', '1')"
        )
    [theirs] = store.get(["t2"])
    assert theirs is not None
    assert (theirs.state, theirs.result, theirs.content_type, theirs.fence) == (
        "FAILURE",
        b"1",
        "application/json",
        (0, 0),
    )
    store.close()


def test_a_text_with_a_nul_is_stored(server: PostgresServer) -> None:
    store = PostgresStore(server.url)
    record = make_record("nul", "FAILURE", traceback="a\0b \ud800", name="n" * 300)
    assert store.store([record]) == []
    [found] = store.get(["nul"])
    assert found is not None
    assert (found.traceback, found.name) == ("a\\x00b \\ud800", "n" * 155)
    store.close()


def test_a_simple_commit_is_one_statement_and_refuses_as_any(server: PostgresServer) -> None:
    transport, other, store = PostgresTransport(server.url), PostgresTransport(server.url), PostgresStore(server.url)
    assert transport.commits_with(store)
    assert transport.commit([]) == []
    names = [f"simple-{number}" for number in range(4)]
    transport.publish([make_message(name, "simple") for name in names])
    lost, refused, fails, *rest = transport.fetch(["simple"], 4, PATIENCE, 60)
    assert other.settle([Settlement(lost)]) == []
    store.store([make_record(names[1], "SUCCESS", result=b"newer", fence=(5, 5))])
    commits = [Commit(Settlement(each), make_record(each.message.id, fence=(0, 1))) for each in (lost, refused, *rest)]
    commits.append(Commit(Settlement(fails), make_record(names[2], "FAILURE", fence=(0, 1))))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait, [names[2]], PATIENCE)
        assert transport.commit(commits) == [lost]
        assert [record.state for record in waiting.result(PATIENCE)] == ["FAILURE"]
    found = [(record.state, record.result) if record else None for record in store.get(names)]
    assert found == [None, ("SUCCESS", b"newer"), ("FAILURE", b'"done"'), ("SUCCESS", b'"done"')]
    assert transport.size("simple") == QueueSize(0, 0, 0)
    for each in (transport, other, store):
        each.close()
