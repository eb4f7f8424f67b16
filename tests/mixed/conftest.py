"""Fixtures of mixed fleets: stock Celery in an environment of its own, beside ours, on one private server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.rabbitmq_server import RabbitMQServer
from tests.support.redis_server import RedisServer
from tests.support.worker import WorkerProcess

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STOCK_PYTHON = ROOT / ".bench-venv" / "bin" / "python"


class Client:
    """A client process of one side."""

    def __init__(self, python: str, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [python, str(HERE / "client.py")], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, expression: str) -> Any:
        """The value of a Python expression there."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(expression + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the client ended at {expression!r}"
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


class Fleet:
    """Clients and workers of both sides on one broker."""

    def __init__(self, url: str, folder: Path, start: Callable[..., WorkerProcess]) -> None:
        self.url = url
        self.ledger = folder / "ledger"
        self.ledger.touch()
        #: Seconds after which either side takes messages of a dead stock worker to be abandoned.
        self.visibility_timeout = 3600
        #: Where results go.
        self.backend = url
        #: Settings of both sides; see `fleet`.
        self.settings: dict[str, Any] = {}
        self._start = start
        self._clients: list[Client] = []

    def _env(self, side: str) -> dict[str, str]:
        paths = [str(HERE)] if side == "celery" else [str(HERE), str(ROOT / "src")]
        return {
            **os.environ,
            "FLEET": side,
            "FLEET_BROKER": self.url,
            "FLEET_BACKEND": self.backend,
            "FLEET_SETTINGS": json.dumps(self.settings),
            "FLEET_LEDGER": str(self.ledger),
            "FLEET_VISIBILITY": str(self.visibility_timeout),
            "PYTHONPATH": os.pathsep.join(paths),
            "C_FORCE_ROOT": "1",
        }

    def client(self, side: str) -> Client:
        """A client: "celery" or "celeriac"."""
        client = Client(str(STOCK_PYTHON) if side == "celery" else sys.executable, self._env(side))
        self._clients.append(client)
        return client

    def worker(self, side: str, *arguments: str) -> WorkerProcess:
        """A worker, ready."""
        python = str(STOCK_PYTHON) if side == "celery" else sys.executable
        command = [python, "-m", side, "-A", "fleet", "worker", "-l", "INFO", "-c", "2", *arguments]
        worker = self._start(command=command, env=self._env(side))
        worker.wait_ready(timeout=30)
        return worker

    def close(self) -> None:
        """End the clients; workers end with their fixture."""
        for client in self._clients:
            client.close()


@pytest.fixture(scope="session")
def stock_celery() -> None:
    """Stock Celery is here."""
    if not STOCK_PYTHON.exists():
        text = "stock Celery is not installed: make .bench-venv/.ready"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)


@pytest.fixture(scope="session")
def redis_server(stock_celery: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for the mixed fleets."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq_server(stock_celery: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    """A RabbitMQ for the mixed fleets."""
    with RabbitMQServer(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture
def rabbit_fleet(
    rabbitmq_server: RabbitMQServer, tmp_path: Path, worker_process: Callable[..., WorkerProcess]
) -> Iterator[Fleet]:
    """A fleet on an empty virtual host of RabbitMQ, with results over RabbitMQ, too."""
    vhost = uuid.uuid4().hex
    rabbitmq_server.add_vhost(vhost)
    made = Fleet(f"{rabbitmq_server.url.removesuffix('//')}/{vhost}", tmp_path, worker_process)
    made.backend = "rpc://"
    yield made
    made.close()


@pytest.fixture
def fleet(redis_server: RedisServer, tmp_path: Path, worker_process: Callable[..., WorkerProcess]) -> Iterator[Fleet]:
    """A fleet on an empty Redis database."""
    redis_server.call("FLUSHALL")
    made = Fleet(redis_server.url(), tmp_path, worker_process)
    yield made
    made.close()
