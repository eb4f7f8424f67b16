"""A private RabbitMQ node, and a cluster of them, for tests.

Each node has its own data, log, cookie, ports and epmd (Erlang's name server, a child of the node's shell), so nothing is
shared with a RabbitMQ that the machine may run, and killing the process group leaves nothing behind. Nodes of one
cluster share an epmd and a cookie.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.support.server import Server, free_port, need

__all__ = ["RabbitMQServer", "rabbitmq_cluster"]

_BIN = "/usr/lib/rabbitmq/bin"
_COOKIE = "celeriac-tests"


class RabbitMQServer(Server):
    """One node.

    Args:
        config: Lines of `rabbitmq.conf`.
        epmd_port: Port of an epmd that runs already; by default the node starts its own.
    """

    patience = 60.0

    def __init__(
        self, folder: Path, port: int | None = None, *, config: Sequence[str] = (), epmd_port: int | None = None
    ) -> None:
        super().__init__(folder, port)
        self.name = f"rabbit{self.port}@localhost"
        self._dist_port = free_port()
        self._starts_epmd = epmd_port is None
        self._epmd_port = epmd_port or free_port()
        self._config = list(config)

    def add_config(self, lines: Sequence[str]) -> None:
        """More lines of `rabbitmq.conf`, before the first start."""
        self._config += lines

    @property
    def url(self) -> str:
        """URL of its default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def prepare(self) -> None:
        """Write its cookie and its settings."""
        home = self.folder / "home"
        home.mkdir()
        cookie = home / ".erlang.cookie"
        cookie.write_text(_COOKIE)
        cookie.chmod(0o400)
        lines = [
            f"listeners.tcp.local = 127.0.0.1:{self.port}",
            "log.console = true",
            "log.console.level = warning",
            "log.file = false",
            "disk_free_limit.absolute = 1MB",
            *self._config,
        ]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "enabled_plugins").write_text("[].\n")

    def environment(self) -> dict[str, str]:
        """Where everything of it is."""
        folder = str(self.folder)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")},
            "HOME": f"{folder}/home",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            # Two schedulers: the machine is shared with the tests. One IO thread is enough, too.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
            " -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def command(self) -> Sequence[str]:
        """The server, with its epmd in the same process group."""
        server = need("rabbitmq-server", "rabbitmq-server", _BIN)
        server = f"{_BIN}/rabbitmq-server" if os.path.exists(f"{_BIN}/rabbitmq-server") else server
        if not self._starts_epmd:
            return [server]
        epmd = need("epmd", "erlang-base")
        return ["/bin/sh", "-c", f"{epmd} -relaxed_command_check & exec {server}"]

    def answers(self) -> bool:
        """Whether it is up and takes connections."""
        return self.evaluate("rabbit:is_running().") == "true" and _listens(self.port)

    def control(self, *arguments: str, timeout: float = 30.0) -> str:
        """Output of `rabbitmqctl` with these arguments."""
        program = f"{_BIN}/rabbitmqctl" if os.path.exists(f"{_BIN}/rabbitmqctl") else need("rabbitmqctl", "rabbitmq")
        done = subprocess.run(
            [program, "--quiet", "-n", self.name, *arguments], env=self.environment(), capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def evaluate(self, expression: str) -> str:
        """Value of an Erlang expression in the node; much faster than `rabbitmqctl`."""
        program = need("erl_call", "erlang-base", *_erl_call_folders())
        done = subprocess.run(
            [program, "-c", _COOKIE, "-sname", self.name.partition("@")[0] + "@localhost", "-e"],
            input=expression + "\n", env=self.environment(), capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(f"erl_call {expression}: {done.stdout}{done.stderr}")
        return done.stdout.strip().removeprefix("{ok, ").removesuffix("}")

    def add_vhost(self, name: str) -> None:
        """Make a virtual host that the default user may use."""
        self.evaluate(
            f'rabbit_vhost:add(<<"{name}">>, <<"tests">>),'
            f' rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>,'
            ' <<"tests">>).'
        )

    def queues(self, vhost: str) -> dict[str, int]:
        """Queues of a virtual host, with how many messages each holds, unsettled ones included."""
        rows = json.loads(self.control("list_queues", "-p", vhost, "name", "messages", "--formatter", "json"))
        return {row["name"]: row["messages"] for row in rows}

    def raise_memory_alarm(self) -> None:
        """Make it block whoever publishes."""
        self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1000}).")

    def clear_memory_alarm(self) -> None:
        """The end of `raise_memory_alarm`."""
        self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.8).")


def _erl_call_folders() -> list[str]:
    return [str(path) for path in Path("/usr/lib/erlang/lib").glob("erl_interface-*/bin")]


def _listens(port: int) -> bool:
    """Whether a connection to this port is accepted."""
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


@contextmanager
def rabbitmq_cluster(folder: Path, size: int = 3) -> Iterator[list[RabbitMQServer]]:
    """Nodes in one cluster; stopped in the end."""
    epmd_port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    epmd = subprocess.Popen(
        [need("epmd", "erlang-base"), "-relaxed_command_check"],
        env={**os.environ, "ERL_EPMD_ADDRESS": "127.0.0.1", "ERL_EPMD_PORT": str(epmd_port)},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    nodes = [RabbitMQServer(folder / f"node{number}", epmd_port=epmd_port) for number in range(size)]
    config = ["cluster_formation.peer_discovery_backend = classic_config"]
    config += [f"cluster_formation.classic_config.nodes.{number} = {node.name}" for number, node in enumerate(nodes, 1)]
    try:
        with ThreadPoolExecutor(size) as pool:
            for node in nodes:
                node.add_config(config)
                pool.submit(node.start)
        for node in nodes:
            running = node.evaluate("length(rabbit_nodes:all_running()).")
            assert running == str(size), node.log()[-2000:]
        yield nodes
    finally:
        for node in nodes:
            node.kill()
        os.killpg(epmd.pid, signal.SIGKILL)
        epmd.wait()
