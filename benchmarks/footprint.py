"""What celeriac takes when it does little: import, start, an idle worker, messages with an ETA, the time to start a task."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec
from benchmarks.measure import PYTHON, ROOT, environment

from celeriac import Celeriac
from celeriac.transport.base import QueueSize
from tests.support.worker import WorkerProcess

__all__ = ["eta_memory", "idle", "import_cost", "latency", "ready"]


def import_cost(rounds: int) -> float:
    """CPU milliseconds of `import celeriac`, without those of the interpreter.

    In an environment of its own dependencies only: `msgspec` imports more where `typing_extensions` is installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "msgspec").symlink_to(Path(msgspec.__file__).parent)
        # Bytecode is kept, as wherever programs are installed.
        env = environment(
            PYTHONPATH=f"{ROOT / 'src'}{os.pathsep}{folder}",
            PYTHONPYCACHEPREFIX=f"{folder}/bytecode",
            PYTHONDONTWRITEBYTECODE="",
        )
        _cpu("import celeriac", env)
        bare, full = [], []
        for _ in range(rounds):
            bare.append(_cpu("pass", env))
            full.append(_cpu("import celeriac", env))
    return (statistics.median(full) - statistics.median(bare)) * 1000


def _cpu(statement: str, env: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*PYTHON, "-S", "-c", statement], env=env, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _worker(folder: str) -> WorkerProcess:
    url = f"sqlite:///{folder}/bench.db"
    return WorkerProcess("benchmarks.demo", "-c", "2", cwd=ROOT, env={"BENCH_URL": url})


def ready(rounds: int) -> float:
    """Seconds from exec until the worker takes tasks."""
    return statistics.median(_ready_once() for _ in range(rounds))


def _ready_once() -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with _worker(folder) as worker:
            worker.wait_ready()
            took = time.perf_counter() - started
            worker.stop()
    return took


def idle(seconds: float) -> tuple[float, float]:
    """(memory of an idle worker with two runners in MB, percent of a core that it uses)."""
    with tempfile.TemporaryDirectory() as folder, _worker(folder) as worker:
        worker.wait_ready()
        worker.wait_runners(2)
        time.sleep(1)
        cpu = worker.cpu_seconds()
        time.sleep(seconds)
        figures = worker.pss_bytes() / 1e6, (worker.cpu_seconds() - cpu) / seconds * 100
        worker.stop()
    return figures


def _app(folder: str) -> Celeriac:
    url = f"sqlite:///{folder}/bench.db"
    return Celeriac("demo", broker=url, backend=url, set_as_current=False)


def eta_memory(count: int) -> tuple[float, float]:
    """(MB by which a worker grows with so many waiting messages with an ETA, how many of them are delayed at the broker).

    They are sent as by a stock Celery client, whose broker knows no delay: the worker meets each of them and has to
    put it away.
    """
    with tempfile.TemporaryDirectory() as folder, _worker(folder) as worker, _app(folder) as app:
        worker.wait_ready()
        noop = app.task(lambda: None, name="benchmarks.demo.noop")
        app.publish_many([noop.s() for _ in range(5000)])  # a worker that has worked: its caches are full
        while app.transport.size("celery") != QueueSize(0, 0, 0):
            time.sleep(0.2)
        before = worker.pss_bytes()
        for _ in range(count // 1000):
            messages = [app.prepare(noop.name, (), {}, options={"countdown": 3600})[0] for _ in range(1000)]
            app.publish([msgspec.structs.replace(message, eta=None) for message in messages])
        while app.transport.size("celery").delayed < count:
            time.sleep(0.2)
        time.sleep(1)
        figures = (worker.pss_bytes() - before) / 1e6, float(app.transport.size("celery").delayed)
        worker.stop()
    return figures


def latency(count: int) -> tuple[float, float]:
    """(median, 95th percentile) of the milliseconds from `delay()` to the first line of the task, one task at a time."""
    with tempfile.TemporaryDirectory() as folder, _worker(folder) as worker, _app(folder) as app:
        worker.wait_ready()
        took = []
        for _ in range(count):
            result = app.send_task("benchmarks.demo.latency", (time.time(),))
            took.append(result.get(timeout=10) * 1000)
        worker.stop()
    took.sort()
    return statistics.median(took), took[int(len(took) * 0.95)]
