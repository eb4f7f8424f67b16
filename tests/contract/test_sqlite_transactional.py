"""Tasks sent inside the user's own transaction on a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured
from celeriac.message import Settlement
from celeriac.testing.transports import PATIENCE, make_message
from celeriac.transport.sqlite import SqliteTransport


@contextmanager
def users_connection(path: Path, kind: str) -> Iterator[Any]:
    """A connection of the user's, of that kind."""
    if kind == "sqlite3":
        with closing(sqlite3.connect(path)) as connection:
            yield connection
        return
    sqlalchemy = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with orm.Session(engine) if kind == "session" else engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.mark.parametrize("kind", ["session", "core", "sqlite3"])
def test_a_task_exists_if_and_only_if_the_transaction_commits(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "broker.db"
    transport = SqliteTransport(f"sqlite:///{path}")
    with users_connection(path, kind) as connection:
        transport.publish_in(connection, [make_message("undone", "q")])
        assert transport.size("q").ready == 0
        connection.rollback()
        assert transport.fetch(["q"], 10, 0, 60) == []
        transport.publish_in(connection, [make_message("done", "q", body=bytes(range(256)))])
        connection.commit()
    [delivery] = transport.fetch(["q"], 10, PATIENCE, 60)
    assert (delivery.message.id, delivery.message.body) == ("done", bytes(range(256)))
    assert transport.settle([Settlement(delivery)]) == []
    transport.close()


def test_together_with_what_the_user_writes(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    app = Celeriac("tx", broker=f"sqlite:///{path}", backend=None, set_as_current=False)
    assert app.transport.size("orders").ready == 0
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id int)")
        connection.execute("INSERT INTO orders VALUES (1)")
        app.send_task("ship", [1], queue="orders", connection=connection)
        connection.commit()
    assert app.transport.size("orders").ready == 1
    app.close()


def test_another_file_is_refused(tmp_path: Path) -> None:
    transport = SqliteTransport(f"sqlite:///{tmp_path}/broker.db")
    with (
        closing(sqlite3.connect(tmp_path / "other.db")) as connection,
        pytest.raises(
            ImproperlyConfigured, match=f"on '{tmp_path}/other.db', but the broker is the file '{tmp_path}/broker.db'"
        ),
    ):
        transport.publish_in(connection, [make_message("m", "q")])
    transport.close()
