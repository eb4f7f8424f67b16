"""Brokers of several servers, one of which a test kills: Redis behind three sentinels, and three RabbitMQ nodes.

`Broker` sees each as one server: `port` names it, `kill` ends the member that does the work, and questions go to one that lives.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.faults.apps_brokers.kinds import Kind, rabbitmq_left, redis_kind
from tests.support.files import eventually
from tests.support.rabbitmq_server import RabbitMQServer
from tests.support.redis_server import RedisServer
from tests.support.server import free_port, need

__all__ = ["RabbitMQTrio", "RedisTrio", "rabbitmq_trio_kind", "redis_trio_kind"]


class _Sentinel(RedisServer):
    """One of three; two have to agree that the master is gone."""

    def __init__(self, folder: Path, master: int) -> None:
        super().__init__(folder)
        self._master = master

    def prepare(self) -> None:
        """Its file, which it rewrites itself."""
        (self.folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor main 127.0.0.1 {self._master} 2\n"
            "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 4000\n"
        )

    def command(self) -> Sequence[str]:
        """The same program."""
        return [super().command()[0], str(self.folder / "sentinel.conf"), "--sentinel"]


class RedisTrio:
    """A master, a replica and three sentinels, who know each other."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        delay = ["--repl-diskless-sync-delay", "0"]
        self.master: RedisServer = stack.enter_context(RedisServer(folder / "first", options=delay))
        options = ["--replicaof", "127.0.0.1", str(self.master.port), *delay]
        self.replica: RedisServer = stack.enter_context(RedisServer(folder / "second", options=options))
        self.sentinels = [stack.enter_context(_Sentinel(folder / f"s{n}", self.master.port)) for n in range(3)]
        self.port = self.master.port
        eventually(self._is_complete, timeout=20, interval=0.05)

    def _is_complete(self) -> bool:
        if self.master.call("WAIT", 1, 100) != 1:
            return False
        for sentinel in self.sentinels:
            about = sentinel.call("SENTINEL", "MASTER", "main")
            facts = dict(zip(about[::2], about[1::2], strict=True))
            if facts[b"num-other-sentinels"] != b"2" or facts[b"num-slaves"] != b"1":
                return False
        return True

    @property
    def url(self) -> str:
        """By its sentinels."""
        hosts = ";".join(f"sentinel://127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"{hosts}/0?master_name=main"

    def call(self, *command: Any) -> Any:
        """Ask the one that is left."""
        return self.replica.call(*command)

    def kill(self) -> None:
        """End the master for good."""
        self.master.kill()


def redis_trio_kind() -> Kind:
    """Redis behind sentinels."""

    @contextmanager
    def start(folder: Path) -> Iterator[RedisTrio]:
        with ExitStack() as stack:
            yield RedisTrio(stack, folder)

    plain = redis_kind()
    return Kind(name="redis sentinel", start=start, url=lambda server, port: server.url, left=plain.left)


class RabbitMQTrio:
    """Three nodes that find each other as they start, all at once."""

    def __init__(self, nodes: list[RabbitMQServer]) -> None:
        self.nodes = nodes
        self.port = nodes[0].port

    @property
    def url(self) -> str:
        """All nodes, tried in order."""
        return ";".join(f"amqp://celeriac:secret@127.0.0.1:{node.port}//" for node in self.nodes)

    def kill(self) -> None:
        """End the node to which everyone is connected."""
        self.nodes[0].kill()

    def control(self, *arguments: str) -> str:
        """Ask one that is left."""
        return self.nodes[1].control(*arguments)


@contextmanager
def _rabbitmq_trio(folder: Path) -> Iterator[RabbitMQTrio]:
    epmd_port = free_port()
    epmd = subprocess.Popen(
        [need("epmd", "erlang-base"), "-relaxed_command_check", "-address", "127.0.0.1", "-port", str(epmd_port)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    nodes = [RabbitMQServer(folder / f"node{number}", epmd_port=epmd_port) for number in range(3)]
    lines = ["cluster_formation.peer_discovery_backend = classic_config", "cluster_partition_handling = pause_minority"]
    lines += [f"cluster_formation.classic_config.nodes.{n} = {node.name}" for n, node in enumerate(nodes, 1)]
    try:
        for node in nodes:
            node._config += lines
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(RabbitMQServer.start, nodes))
        eventually(lambda: nodes[0].evaluate("length(rabbit_nodes:all_running()).") == "3", timeout=30, interval=0.2)
        nodes[0].control("add_user", "celeriac", "secret")
        nodes[0].control("set_permissions", "celeriac", ".*", ".*", ".*")
        yield RabbitMQTrio(nodes)
    finally:
        for node in nodes:
            node.kill()
        epmd.kill()
        epmd.wait()


def rabbitmq_trio_kind() -> Kind:
    """RabbitMQ on three nodes."""
    return Kind(
        name="rabbitmq of three nodes", start=_rabbitmq_trio, url=lambda server, port: server.url, left=rabbitmq_left,
        is_store=False,
    )  # fmt: skip
