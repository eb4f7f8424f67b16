"""Fixtures of the fault tests of network brokers: one server of each kind for the session, one rig for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.apps_brokers.kinds import KINDS, Broker, Kind, need_driver
from tests.faults.apps_brokers.rig import IS_SOAK, BrokerRig
from tests.support.proxy import FaultProxy
from tests.support.redis_server import RedisServer
from tests.support.server import Server
from tests.support.worker import WorkerProcess

_FIGURES: list[str] = []


@pytest.fixture
def figure() -> Callable[[str], None]:
    """Takes a line with something measured; all of them are shown at the end."""
    return _FIGURES.append


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `kinds` (always) and `usually_on` (unless it is a soak) say of other brokers."""
    left_out = [item for item in items if not _is_wanted(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_wanted(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    kind = callspec.params.get("kind_and_server") if callspec is not None else None
    if kind is None:
        return True
    marks = [*item.iter_markers("kinds"), *([] if IS_SOAK else item.iter_markers("usually_on"))]
    return all(kind.name in mark.args for mark in marks)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured."""
    if _FIGURES:
        terminalreporter.section("measured")
        for line in _FIGURES:
            terminalreporter.line(line)


@pytest.fixture(scope="session", params=[pytest.param(kind, id=kind.name) for kind in KINDS])
def kind_and_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Kind, Server]]:
    """Each kind of broker in turn, running."""
    kind: Kind = request.param
    need_driver(kind)
    with kind.start(tmp_path_factory.mktemp(kind.name)) as server:
        yield kind, server


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for the results of brokers that store none."""
    with RedisServer(tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture
def broker(kind_and_server: tuple[Kind, Server], request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker in good order, with a queue of this test's own."""
    kind, server = kind_and_server
    kind.clear(server)
    yield Broker(kind, server, None if kind.is_store else request.getfixturevalue("store_server"))
    server.thaw()
    if server._process is None or server._process.poll() is not None:
        server.start()


@pytest.fixture
def make_rig(tmp_path: Path, worker_process: Callable[..., WorkerProcess]) -> Iterator[Callable[..., BrokerRig]]:
    """Makes rigs: `make_rig(broker, port)`."""
    with ExitStack() as stack:

        def make(broker: Broker, port: int | None = None) -> BrokerRig:
            rig = BrokerRig(broker, tmp_path, worker_process, port)
            stack.callback(rig.close)
            return rig

        yield make


@pytest.fixture
def rig(broker: Broker, make_rig: Callable[..., BrokerRig]) -> BrokerRig:
    """Client and workers connected to the broker itself."""
    return make_rig(broker)


@pytest.fixture
def proxy(broker: Broker) -> Iterator[FaultProxy]:
    """A bad network before the broker."""
    with FaultProxy(broker.server.port) as proxy:
        yield proxy


@pytest.fixture
def far_rig(broker: Broker, proxy: FaultProxy, make_rig: Callable[..., BrokerRig]) -> BrokerRig:
    """Client and workers that reach the broker through `proxy`."""
    return make_rig(broker, proxy.port)
