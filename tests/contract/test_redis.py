"""The Redis drivers keep the contracts, on a private server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celeriac import Celeriac, chain
from celeriac.results.redis import RedisStore
from celeriac.testing.results import ResultStoreSuite
from celeriac.testing.transports import AheadTests, FetchingCommitTests, TransportSuite
from celeriac.testing.worker import start_worker
from celeriac.transport.redis import RedisTransport
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.server("redis")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def url(server: RedisServer) -> Iterator[str]:
    yield server.url()
    server.call("FLUSHALL")


class TestRedisTransport(AheadTests, FetchingCommitTests, TransportSuite):
    @pytest.fixture
    def transport(self, url: str) -> Iterator[RedisTransport]:
        transport = RedisTransport(url, {"delay_at_publish": True})
        yield transport
        transport.close()

    @pytest.fixture
    def other(self, url: str) -> Iterator[RedisTransport]:
        other = RedisTransport(url, {"delay_at_publish": True})
        yield other
        other.close()

    @pytest.fixture
    def store(self, url: str) -> Iterator[RedisStore]:
        store = RedisStore(url)
        yield store
        store.close()


class TestRedisStore(ResultStoreSuite):
    @pytest.fixture
    def store(self, url: str) -> Iterator[RedisStore]:
        store = RedisStore(url)
        yield store
        store.close()

    @pytest.fixture
    def other(self, url: str) -> Iterator[RedisStore]:
        other = RedisStore(url)
        yield other
        other.close()


def app_of(url: str, **options: object) -> Celeriac:
    return Celeriac("redis", broker=url, backend=url, broker_transport_options=options, set_as_current=False)


def test_0_comes_first_and_four_steps_are_told_apart(server: RedisServer, url: str) -> None:
    """[B-ROUTE-020] Of two queues the more urgent message comes first, then that of the queue that is named first."""
    app = app_of(url, queue_order_strategy="priority")
    for queue in ("second", "first"):
        for priority in (9, 7, 5, 4, 1, 0):
            app.send_task("t", queue=queue, priority=priority)
    assert sorted(key for key in server.call("KEYS", "first*")) == [
        b"first", b"first\x06\x163", b"first\x06\x166", b"first\x06\x169",
    ]  # fmt: skip
    deliveries = app.transport.fetch(["first", "second"], 100, 0, 30)
    assert [(each.message.priority, each.queue) for each in deliveries] == [
        (1, "first"), (0, "first"), (1, "second"), (0, "second"), (5, "first"), (4, "first"), (5, "second"), (4, "second"),
        (7, "first"), (7, "second"), (9, "first"), (9, "second"),
    ]  # fmt: skip
    app.close()


def test_the_steps_and_what_stands_before_them_can_be_others(server: RedisServer, url: str) -> None:
    """[B-ROUTE-020]"""
    app = app_of(url, priority_steps=list(range(10)), sep=":")
    for priority in range(10):
        app.send_task("t", queue="q", priority=priority)
    assert sorted(server.call("KEYS", "q*")) == [b"q", *(b"q:%d" % step for step in range(1, 10))]
    app.close()


def test_a_high_number_can_mean_urgent_here_too(url: str) -> None:
    app = app_of(url, highest_first=True)
    assert app.transport.capabilities.urgent == "high"
    for priority in (0, 9, 4, None):
        app.send_task("t", queue="q", priority=priority)
    deliveries = app.transport.fetch(["q"], 10, 0, 30)
    assert [each.message.priority for each in deliveries] == [9, 4, 0, 0]
    app.close()


def test_each_step_of_a_chain_is_one_script(server: RedisServer, url: str) -> None:
    """What records a step's outcome sends the next one and leases it; no bell rings in vain."""
    app = app_of(url)
    add = app.task(lambda x: x + 1, name="add")
    with start_worker(app):
        assert add.s(0).apply_async().get(timeout=20) == 1
        before, steps = server.scripts_run(), 30
        steps_one_by_one = chain(add.s(0), *[add.s() for _ in range(steps - 1)]).apply_async()
        assert steps_one_by_one.get(timeout=20) == steps
        assert server.scripts_run() - before <= steps + 10  # and what goes on beside: the first fetch, a late look
    app.close()
