"""Several brokers for one setting: the contract behind a dead one, the order, what is declared anew, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.message import Delivery
from celeriac.routing import Exchange, Queue
from celeriac.testing.transport_case import make_message
from celeriac.testing.transports import TransportSuite
from celeriac.testing.worker import start_worker
from celeriac.transport.base import Transport
from celeriac.transport.failover import FailoverTransport
from celeriac.transport.memory import MemoryTransport
from celeriac.transport.open import broker_urls, open_transport
from tests.support.redis_server import RedisServer
from tests.support.server import free_port


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(RedisServer(tmp_path_factory.mktemp("redis"))) for _ in range(2)]


@pytest.fixture
def urls(servers: list[RedisServer]) -> list[str]:
    for server in servers:
        server.call("FLUSHALL")
    return [server.url() for server in servers]


@pytest.mark.server("redis")
class TestBehindADeadBroker(TransportSuite):
    lacks = frozenset({"commit"})

    @pytest.fixture
    def dead(self) -> str:
        return f"redis://127.0.0.1:{free_port()}/0"

    @pytest.fixture
    def transport(self, dead: str, urls: list[str]) -> Iterator[Transport]:
        transport = open_transport([dead, urls[0]], {"delay_at_publish": True})
        yield transport
        transport.close()

    @pytest.fixture
    def other(self, dead: str, urls: list[str]) -> Iterator[Transport]:
        other = open_transport(f"{dead};{urls[0]}", {"delay_at_publish": True})
        yield other
        other.close()

    @pytest.fixture
    def store(self) -> None:
        return None


def opened(urls: Any, **settings: Any) -> Transport:
    return open_transport(urls, {}, {"broker_use_ssl": False, "broker_failover_strategy": "round-robin", **settings})


def fetched(transport: Transport, queue: str = "q") -> list[Delivery]:
    return transport.fetch([queue], 10, 0.0, 30.0)


@pytest.mark.server("redis")
def test_a_lost_broker_is_left_for_the_next_and_that_one_for_the_first(
    servers: list[RedisServer], urls: list[str]
) -> None:
    transport = opened(urls)
    transport.declare([Queue("q"), Queue("topical", Exchange("t", "topic"), "a.#")])
    transport.publish([make_message("id", "q")])
    assert servers[0].call("LLEN", "q") == 1
    servers[0].kill()
    transport.publish([make_message("id", "q")])
    assert servers[1].call("LLEN", "q") == 1
    assert len(fetched(transport)) == 1
    assert servers[1].call("SCARD", "_kombu.binding.t") == 1
    servers[0].start()
    servers[1].kill()
    transport.publish([make_message("id", "q")])
    assert servers[0].call("LLEN", "q") >= 1
    servers[1].start()
    transport.close()


@pytest.mark.server("redis")
def test_a_frozen_broker_costs_its_share_of_the_time(servers: list[RedisServer], urls: list[str]) -> None:
    transport = opened([f"{urls[0]}?timeout=0.3", f"{urls[1]}?timeout=0.3"])
    transport.publish([make_message("id", "q")])
    servers[0].freeze()
    try:
        transport.publish([make_message("id", "q")])
        assert servers[1].call("LLEN", "q") == 1
    finally:
        servers[0].thaw()
        transport.close()


def test_when_none_is_left_the_error_is_that_of_the_last() -> None:
    ports = [free_port(), free_port()]
    transport = opened([f"redis://:secret@127.0.0.1:{port}/0" for port in ports])
    with pytest.raises(OperationalError, match=str(ports[1])) as caught:
        transport.publish([make_message("id", "q")])
    assert "secret" not in str(caught.value)


def test_a_function_chooses_the_order() -> None:
    asked: list[list[str]] = []

    def backwards(urls: list[str]) -> Iterator[str]:
        asked.append(urls)
        return cycle(reversed(urls))

    transport = opened(["redis://a/0", "redis://b/0"], broker_failover_strategy=backwards)
    assert asked == [["redis://a/0", "redis://b/0"]]
    assert transport.url == "redis://b/0"


def test_a_shuffled_order_has_all_of_them() -> None:
    transport = opened(["redis://a/0", "redis://b/0"], broker_failover_strategy="shuffle")
    assert isinstance(transport, FailoverTransport)
    assert sorted(each.url for each in transport.brokers) == ["redis://a/0", "redis://b/0"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("redis://a;redis://b", ["redis://a", "redis://b"]),
        ("redis://a/1;b/2", ["redis://a/1", "redis://b/2"]),
        (["redis://a", "redis://a", "redis://b;redis://c"], ["redis://a", "redis://b", "redis://c"]),
        (["amqp://a", "amqp://b;c"], ["amqp://a;amqp://b;c"]),
        ("sentinel://a;sentinel://b", ["sentinel://a;sentinel://b"]),
        ("sqlite:///with;semicolon.db", ["sqlite:///with;semicolon.db"]),
        (["memory://"], ["memory://"]),
    ],
)
def test_what_a_setting_names(given: Any, expected: list[str]) -> None:
    assert broker_urls(given) == expected


def test_one_of_a_list_is_that_one() -> None:
    assert isinstance(open_transport(["memory://"]), MemoryTransport)


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        ([], {}, "broker_url names no broker"),
        (["redis://a", "amqp://u:secret@b"], {}, "must be of one kind, unlike redis://a, amqp://u:\\*\\*@b"),
        (["redis://a", "redis://b"], {"broker_failover_strategy": "shufle"}, "Did you mean 'shuffle'"),
    ],
)
def test_mistakes_are_named(given: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        opened(given, **settings)


def test_a_list_of_databases_is_one_broker_for_the_worker(tmp_path: Path) -> None:
    transport = opened([f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"])
    transport.publish([make_message("id", "q")])
    assert len(fetched(transport)) == 1
    transport.close()


def test_an_app_goes_on_with_the_next_broker(tmp_path: Path) -> None:
    """[B-ROUTE-027] Clients and workers alike, whether the setting is a list or one text."""
    dead = f"redis://127.0.0.1:{free_port()}/0"
    name = f"memory://{tmp_path.name}"
    for number, brokers in enumerate(
        ([f"redis://127.0.0.1:{free_port()}/0", dead], f"{dead};127.0.0.1:{free_port()}/1")
    ):
        app = Celeriac("away", broker=brokers, backend=f"{name}{number}", publish_timeout=0.5, set_as_current=False)
        with pytest.raises(OperationalError, match="127.0.0.1"):
            app.send_task("t")
        app.close()


@pytest.mark.server("redis")
@pytest.mark.parametrize("form", ["list", "text"])
def test_a_task_runs_although_the_first_broker_is_away(urls: list[str], tmp_path: Path, form: str) -> None:
    """[B-ROUTE-027]"""
    brokers = [f"redis://127.0.0.1:{free_port()}/0", urls[0]]
    app = Celeriac(
        "split", broker=brokers if form == "list" else ";".join(brokers), backend=f"sqlite:///{tmp_path}/results.db",
        set_as_current=False,
    )  # fmt: skip
    app.task(lambda: "done", name="t")
    with start_worker(app):
        assert app.send_task("t").get(timeout=20) == "done"
    app.close()
