"""The Redis drivers keep the contracts, on a private server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celeriac.results.redis import RedisStore
from celeriac.testing.results import ResultStoreSuite
from celeriac.testing.transports import TransportSuite
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


class TestRedisTransport(TransportSuite):
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
