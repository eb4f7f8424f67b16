"""Who takes part in the benchmarks of brokers: how each side's worker is started and how its client is called.

Every worker has two processes that run tasks, and otherwise its own defaults. Peers get the C parsers of their clients
(hiredis, psycopg's binary) as celeriac does.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measure import PYTHON, ROOT, run_json

__all__ = ["CELERIAC", "CELERY", "DRAMATIQ", "HUEY", "PROCRASTINATE", "SIDES", "TASKIQ", "Side"]

_BIN = ROOT / ".bench-venv/bin"
_MODULES = "benchmarks.peers"


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """One side.

    Attributes:
        module: Its tasks and its client, in `benchmarks.peers`.
        command: Starts its worker.
        results_key: The hash in Redis that all its results stand in; "" if each has a key of its own.
        leases: Whether it acknowledges in Redis's hash `unacked`, which is then to be empty in the end.
    """

    name: str
    module: str
    command: Sequence[str]
    python: str = field(default=str(_BIN / "python"))
    results_key: str = ""
    leases: bool = False

    def environment(self, broker: str, results: str = "", counts: str = "") -> dict[str, str]:
        """Of its worker and its client."""
        path = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
        added = {"BENCH_BROKER": broker, "BENCH_RESULTS": results, "BENCH_COUNTS": counts, "PYTHONPATH": path}
        return {**os.environ, **{name: value for name, value in added.items() if value}}

    def client(self, mode: str, count: int, env: Mapping[str, Any]) -> dict[str, float]:
        """Figures of its client."""
        try:
            return run_json([self.python, "-m", f"{_MODULES}.client", f"{_MODULES}.{self.module}", mode, count], env)
        except subprocess.CalledProcessError as exc:
            raise RuntimeError(f"the client of {self.name} failed: {exc.stderr[-1000:]}") from exc


def _program(name: str) -> str:
    return str(_BIN / name)


CELERIAC = Side(
    name="celeriac",
    module="celeriac_side",
    command=[
        *PYTHON, "-m", "celeriac", "-A", f"{_MODULES}.celeriac_side", "worker", "-c", "2", "--loglevel", "ERROR",
    ],
    python=PYTHON[0],
    leases=True,
)  # fmt: skip
CELERY = Side(
    name="Celery",
    module="celery_side",
    command=[
        _program("celery"), "-A", f"{_MODULES}.celery_side", "worker", "-P", "prefork", "-c", "2", "--loglevel", "ERROR",
    ],
)  # fmt: skip
HUEY = Side(
    name="Huey",
    module="huey_side",
    command=[_program("huey_consumer"), f"{_MODULES}.huey_side.huey", "-w", "2", "-k", "process", "-q"],
    results_key="huey.results.bench",
)
DRAMATIQ = Side(
    name="dramatiq",
    module="dramatiq_side",
    command=[_program("dramatiq"), f"{_MODULES}.dramatiq_side", "-p", "2", "-t", "8"],
)
TASKIQ = Side(
    name="taskiq",
    module="taskiq_side",
    command=[_program("taskiq"), "worker", f"{_MODULES}.taskiq_side:broker", "-w", "2", "--log-level", "ERROR"],
)
_PROCRASTINATE = f"{_program('procrastinate')} --app={_MODULES}.procrastinate_side.app worker -c 10"
PROCRASTINATE = Side(
    name="procrastinate",
    module="procrastinate_side",
    command=["/bin/sh", "-c", f"{_PROCRASTINATE} & {_PROCRASTINATE} & wait"],
)
SIDES = (CELERIAC, CELERY, HUEY, DRAMATIQ, TASKIQ, PROCRASTINATE)
