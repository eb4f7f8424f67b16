"""What is particular to Redis: idle connections, a full disk or memory, replicas, stock workers that restore, a failover."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from celeriac.errors import OperationalError
from tests.faults.apps_brokers.kinds import Broker, redis_kind
from tests.faults.apps_brokers.load import Load
from tests.faults.apps_brokers.rig import BrokerRig
from tests.faults.brokers.test_publish import ROOT, Client, assert_refused, assert_sent
from tests.support.files import eventually
from tests.support.redis_server import RedisServer
from tests.support.server import need

pytestmark = [pytest.mark.faults, pytest.mark.slow]

STOCK_PYTHON = ROOT / ".bench-venv" / "bin" / "python"
#: Seconds that a `delay()` may take here.
PUBLISH_TIMEOUT = 1.0
#: With kombu: restores what is overdue, as stock workers do, all the time. Says so when it has looked for the first time.
RESTORER = """
import sys, threading
from kombu import Connection
options = {"visibility_timeout": float(sys.argv[2])}
with Connection(sys.argv[1], transport_options=options) as connection:
    qos = connection.default_channel.qos
    qos.restore_visible(interval=1)
    print("restoring", flush=True)
    while not threading.Event().wait(0.05):
        qos.restore_visible(interval=1)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis-alone")) as server:
        yield server


class SmallDisk(RedisServer):
    """A server whose disk can be filled: the system refuses to let its files grow. It survives that unless it syncs always."""

    def command(self) -> Sequence[str]:
        env = need("env", "coreutils")
        return [env, "--ignore-signal=XFSZ", *super().command(), "--appendfsync", "everysec"]

    def fill(self) -> None:
        """From now on no file can grow."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def free(self) -> None:
        """The end of `fill`."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.fixture
def broker(server: RedisServer) -> Iterator[Broker]:
    """Redis only."""
    server.call("FLUSHALL")
    yield Broker(redis_kind(), server, None)
    server.thaw()


def test_idle_clients_of_a_frozen_server_raise_in_time(broker: Broker, figure: Callable[[str], None]) -> None:
    """Idle connections are asked whether they are alive: that must not take the time of a publish once more for each."""
    options = {"health_check_interval": 0.01}
    with Client(broker.url, PUBLISH_TIMEOUT, broker_transport_options=options) as client:
        assert_sent(client.told(), "in peace")
        broker.server.freeze()
        client.go_on()
        longest = assert_refused(client.told(), broker.server.port, "frozen", PUBLISH_TIMEOUT)
        broker.server.thaw()
        client.go_on()
        assert_sent(client.told(), "after the heal")
    figure(f"redis, delay() of clients that were idle, server frozen: raises after at most {longest:.2f} s")


def test_task_of_three_leases_runs_once_beside_a_stock_worker_that_restores(rig: BrokerRig, tmp_path: Path) -> None:
    if not STOCK_PYTHON.exists():
        text = "stock Celery is not installed: make .bench-venv/.ready"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    lease = 1.5
    rig.settings["task_lease"] = lease
    ours = [rig.worker("-c", "1"), rig.worker("-c", "1")]
    command = [str(STOCK_PYTHON), "-c", RESTORER, rig.url, str(lease / 2)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as restorer:
        try:
            assert restorer.stdout is not None
            assert restorer.stdout.readline() == "restoring\n"
            result = rig.app.send_task("work", ("long", 3 * lease))
            rig.marks.wait("start", "long")
            assert result.get(timeout=30)[0] == "long"
            assert restorer.poll() is None, "the stock side has ended"
        finally:
            restorer.kill()
    rig.assert_empty()
    assert rig.marks.counts("start") == {"long": 1}, "a stock worker has restored a message that was on lease"
    assert [worker.stop() for worker in ours] == [0, 0]


def test_full_memory_names_the_cause_and_the_worker_goes_on(rig: BrokerRig) -> None:
    server: RedisServer = rig.broker.server  # type: ignore[assignment]
    worker = rig.worker("-c", "2")
    with Load(rig) as load:
        load.healed()
        rig.app.send_task("work", ("running", 1.0), task_id="running")
        rig.marks.wait("start", "running")
        server.call("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(OperationalError, match="it is full"):
            rig.app.send_task("work", ("x", 0), retry=False)
        rig.marks.wait("end", "running")
        worker.wait_output("can't be committed, trying again.*it is full")
        server.call("CONFIG", "SET", "maxmemory", "0")
        load.healed()
    assert rig.wait_succeeded(["running"])
    load.verify(may_repeat=False)
    assert rig.marks.counts("start")["running"] == 1
    assert worker.stop() == 0


def test_replica_names_the_cause_and_the_worker_goes_on(rig: BrokerRig) -> None:
    server: RedisServer = rig.broker.server  # type: ignore[assignment]
    # As a master that was demoted by hand: it takes no writes, its data stay. The worker notices when its leases are over:
    # after the heal it must renew them before it fetches, or else it would take over its own.
    rig.settings["task_lease"] = 1.0
    worker = rig.worker("-c", "2")
    with Load(rig) as load:
        load.healed()
        server.call("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(OperationalError, match="it is a replica"):
            rig.app.send_task("work", ("x", 0), retry=False)
        worker.wait_output("can't fetch from .*it is a replica")
        server.call("REPLICAOF", "NO", "ONE")
        load.healed()
    load.verify(may_repeat=False)
    assert worker.stop() == 0


def test_full_disk_names_the_cause_and_the_worker_goes_on(tmp_path: Path, make_rig: Callable[..., BrokerRig]) -> None:
    with SmallDisk(tmp_path / "small") as server:
        rig = make_rig(Broker(redis_kind(), server, None))
        worker = rig.worker("-c", "2")
        with Load(rig) as load:
            load.healed()
            server.fill()
            error = eventually(lambda: refusal(rig), timeout=20)
            assert "can't write to its disk" in error, error
            worker.wait_output("can't .*, trying again.*can't write to its disk")
            server.free()
            load.healed()
        load.verify(may_repeat=False)
        assert worker.stop() == 0


def refusal(rig: BrokerRig) -> str:
    """Why a task is refused; nothing if it is not."""
    try:
        rig.app.send_task("work", ("x", 0), retry=False)
    except OperationalError as exc:
        return str(exc)
    return ""
