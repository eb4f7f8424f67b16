"""The coordination drivers keep the contract."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.coordination.base import Claim, Coordination
from celeriac.coordination.memory import MemoryCoordination
from celeriac.coordination.open import open_coordination
from celeriac.coordination.pauses import pause, resume
from celeriac.coordination.redis import RedisCoordination
from celeriac.coordination.sql_core import CoreCoordination
from celeriac.coordination.sql_postgres import PostgresCoordination
from celeriac.coordination.sqlite import SqliteCoordination
from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.testing.coordination import CoordinationSuite
from celeriac.testing.worker import start_worker
from tests.support.mariadb_server import MariadbServer
from tests.support.postgres_server import PostgresServer, open_folder
from tests.support.redis_server import RedisServer
from tests.support.server import free_port


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with open_folder() as folder, PostgresServer(folder / "postgres") as server:
        yield server


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariadbServer]:
    with open_folder() as folder, MariadbServer(folder / "mariadb") as server:
        yield server


class TestMemory(CoordinationSuite):
    @pytest.fixture
    def place(self) -> MemoryCoordination:
        return MemoryCoordination("memory://")

    @pytest.fixture
    def other(self) -> MemoryCoordination:
        return MemoryCoordination("memory://")


class TestSqlite(CoordinationSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[SqliteCoordination]:
        place = SqliteCoordination(f"sqlite:///{tmp_path}/celeriac.db")
        yield place
        place.close()

    @pytest.fixture
    def other(self, tmp_path: Path) -> Iterator[SqliteCoordination]:
        place = SqliteCoordination(f"sqla+sqlite:///{tmp_path}/celeriac.db", {"visibility_timeout": 10})
        yield place
        place.close()

    def test_a_file_that_was_deleted_is_made_anew(self, place: SqliteCoordination, tmp_path: Path) -> None:
        place.acquire([Claim(name="n", holder="a", seconds=30)])
        for path in tmp_path.glob("celeriac.db*"):
            path.unlink()
        assert place.acquire([Claim(name="n", holder="b", seconds=30)]) == [""]


@pytest.mark.server("redis")
class TestRedis(CoordinationSuite):
    @pytest.fixture
    def place(self, redis: RedisServer) -> Iterator[RedisCoordination]:
        place = RedisCoordination(redis.url(), {"global_keyprefix": "app:"})
        yield place
        place.close()

    @pytest.fixture
    def other(self, redis: RedisServer) -> Iterator[RedisCoordination]:
        place = RedisCoordination(redis.url() + "?socket_timeout=3", {"global_keyprefix": "app:", "queue": "x"})
        yield place
        place.close()

    def test_what_nobody_holds_leaves_no_key(self, place: RedisCoordination, redis: RedisServer) -> None:
        redis.call("FLUSHALL")
        place.acquire([Claim(name="n", holder="a", seconds=30)])
        place.release([Claim(name="n", holder="a", seconds=30)])
        assert redis.call("KEYS", "*") == []
        place.acquire([Claim(name="n", holder="a", seconds=30)])
        place.take("b", 0.5, 1)
        assert all(redis.call("PTTL", key) > 0 for key in redis.call("KEYS", "*"))


@pytest.mark.server("postgres")
class TestPostgres(CoordinationSuite):
    @pytest.fixture
    def place(self, postgres: PostgresServer) -> Iterator[PostgresCoordination]:
        place = PostgresCoordination(postgres.url)
        yield place
        place.close()

    @pytest.fixture
    def other(self, postgres: PostgresServer) -> Iterator[PostgresCoordination]:
        place = PostgresCoordination(f"sqla+{postgres.url}")
        yield place
        place.close()


@pytest.mark.server("mariadb")
class TestMariadb(CoordinationSuite):
    @pytest.fixture
    def place(self, mariadb: MariadbServer) -> Iterator[CoreCoordination]:
        place = CoreCoordination(mariadb.url)
        yield place
        place.close()

    @pytest.fixture
    def other(self, mariadb: MariadbServer) -> Iterator[CoreCoordination]:
        place = CoreCoordination(f"db+{mariadb.url}")
        yield place
        place.close()


class TestSqliteBehindSqlalchemy(CoordinationSuite):
    """Any database of SQLAlchemy will do."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[CoreCoordination]:
        place = CoreCoordination(f"sqlite:///{tmp_path}/core.db")
        yield place
        place.close()

    @pytest.fixture
    def other(self, tmp_path: Path) -> Iterator[CoreCoordination]:
        place = CoreCoordination(f"sqlite:///{tmp_path}/core.db")
        yield place
        place.close()


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.server(kind)) for kind in ("redis", "postgres", "mariadb")]
)
def test_a_pause_holds_on_this_broker_whatever_restarts(request: pytest.FixtureRequest, kind: str) -> None:
    server = request.getfixturevalue(kind)
    url = server.url() if kind == "redis" else server.url
    name = uuid.uuid4().hex
    app = Celeriac("pauses", broker=url, backend=url, set_as_current=False)
    app.task(lambda word: word, name="say")
    place = app.coordination
    assert place is not None
    pause(place, [name])
    waits = app.send_task("say", ("waits",), queue=name)
    for _ in range(2):
        with start_worker(app, queues=[name, f"{name}-other"]):
            assert app.send_task("say", ("other",), queue=f"{name}-other").get(timeout=30) == "other"
            assert app.transport.size(name).ready == 1
        app.close()  # and all its connections
    with start_worker(app, queues=[name]):
        place = app.coordination
        assert place is not None
        resume(place, [name])
        assert waits.get(timeout=30) == "waits"
    app.close()


def settings(broker: Any, backend: Any = None, coordination: str | None = None) -> dict[str, Any]:
    """As far as they matter here."""
    return {
        "broker_write_url": broker, "result_backend": backend, "coordination_url": coordination, "broker_use_ssl": None,
        "broker_transport_options": {}, "result_backend_transport_options": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("broker", "backend", "coordination", "url"),
    [
        ("redis://h:1/2", "postgresql://h/d", None, "redis://h:1/2"),
        (["sentinel://h:1?master_name=m"], None, None, "sentinel://h:1?master_name=m"),
        ("amqp://h", "db+postgresql+psycopg2://u:secret@h/d", None, "db+postgresql+psycopg2://u:**@h/d"),
        ("amqp://h", "db+mysql://u:secret@h/d", None, "db+mysql://u:**@h/d"),
        ("amqp://h", "rpc://", "memory://x", "memory://x"),
        ("redis://h:1/2", None, "memory://x", "memory://x"),
        ("redis://a:1/0;redis://b:2/0", "postgresql://h/d", None, "postgresql://h/d"),
        (["redis://a:1/0", "redis://b:2/0"], None, None, "redis://a:1/0"),
        ("sentinel://a:1;sentinel://b:2?master_name=m", None, None, "sentinel://a:1;sentinel://b:2?master_name=m"),
    ],
)
def test_the_broker_comes_first_then_the_result_store(broker: Any, backend: Any, coordination: Any, url: str) -> None:
    place: Coordination | None = open_coordination(settings(broker, backend, coordination))
    assert place is not None
    assert place.url == url
    place.close()


@pytest.mark.parametrize(("broker", "backend"), [("amqp://h", "rpc://"), ("amqp://h", None), ("filesystem:///x", None)])
def test_there_may_be_no_place(broker: str, backend: Any) -> None:
    assert open_coordination(settings(broker, backend)) is None


def test_a_wrong_url_is_named() -> None:
    with pytest.raises(ImproperlyConfigured, match="No coordination driver for 'reddis'.*Did you mean"):
        open_coordination(settings("amqp://h", None, "reddis://h"))


@pytest.mark.parametrize("scheme", ["redis", "postgresql", "mysql"])
def test_a_server_that_is_away_is_an_operational_error_without_the_password(scheme: str) -> None:
    place = open_coordination(settings(f"{scheme}://me:{uuid.uuid4().hex}@127.0.0.1:{free_port()}/0"))
    assert place is not None
    with pytest.raises(OperationalError) as caught:
        place.acquire([Claim(name="n", holder="a", seconds=1)])
    assert f"{scheme}://" in str(caught.value)
    assert "me:**" in str(caught.value) or "me:" not in str(caught.value)
