"""The SQLite drivers keep the contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.results.sqlite import SqliteStore
from celeriac.testing.results import ResultStoreSuite
from celeriac.testing.transports import TransportSuite
from celeriac.transport.sqlite import SqliteTransport


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


class TestSqliteTransport(TransportSuite):
    @pytest.fixture
    def transport(self, url: str) -> Iterator[SqliteTransport]:
        transport = SqliteTransport(url)
        yield transport
        transport.close()

    @pytest.fixture
    def other(self, url: str) -> Iterator[SqliteTransport]:
        other = SqliteTransport(f"{url}?synchronous=NORMAL")
        yield other
        other.close()

    @pytest.fixture
    def store(self, url: str) -> Iterator[SqliteStore]:
        store = SqliteStore(f"db+{url}")
        yield store
        store.close()


class TestSqliteStore(ResultStoreSuite):
    @pytest.fixture
    def store(self, url: str) -> Iterator[SqliteStore]:
        store = SqliteStore(url)
        yield store
        store.close()

    @pytest.fixture
    def other(self, url: str) -> Iterator[SqliteStore]:
        other = SqliteStore(url)
        yield other
        other.close()
