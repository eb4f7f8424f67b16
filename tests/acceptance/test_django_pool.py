"""Django's pools of connections to PostgreSQL: no runner shares one with another process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.django_project import DjangoProject
from tests.support.files import eventually
from tests.support.postgres_server import PostgresServer, open_folder
from tests.support.worker import WorkerProcess

pytestmark = pytest.mark.server("postgres")

TASKS = """
import os
from celeriac import shared_task
from django.db import connection

def backend():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]

IMPORTED_BY, IMPORTED_OVER = os.getpid(), backend()
connection.close()

@shared_task
def facts():
    return IMPORTED_BY, IMPORTED_OVER, os.getpid(), backend()
"""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with open_folder() as folder, PostgresServer(folder / "postgres") as server:
        yield server


def backends(server: PostgresServer) -> set[object]:
    """Process ids of the server's ends of all connections but ours."""
    with server.connect() as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchall()
    return {pid for (pid,) in rows}


@pytest.mark.behaviour("B-DJANGO-010")
def test_pools_are_closed_before_runners_are_forked_and_when_they_end(
    server: PostgresServer, tmp_path: Path, worker_process: Callable[..., WorkerProcess]
) -> None:
    """[B-DJANGO-010] close_pool, in the process that forks and in each that it forked"""
    project = DjangoProject(tmp_path)
    project.add(
        "shop/settings.py",
        "DATABASES['default'] = {'ENGINE': 'django.db.backends.postgresql', 'NAME': 'celeriac', 'USER': 'celeriac',\n"
        f"    'PASSWORD': 'secret', 'HOST': '127.0.0.1', 'PORT': {server.port},\n"
        "    'OPTIONS': {'pool': {'min_size': 1, 'max_size': 2}}}",
    )
    project.write("orders/tasks.py", TASKS)
    worker = worker_process("shop", "-c", "1", "--max-tasks-per-child", "1")
    worker.wait_ready()
    with project.client() as client:
        first, second = (client.send_task("orders.tasks.facts").get(timeout=30) for _ in range(2))
    zygote, over, *_ = first
    assert second[:2] == [zygote, over], "forked by the process that has imported the project"
    assert len({zygote, first[2], second[2]}) == 3
    assert len({over, first[3], second[3]}) == 3, "each process has connections of its own"
    assert over not in backends(server)
    assert worker.stop() == 0
    eventually(lambda: not backends(server))
