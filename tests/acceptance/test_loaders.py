"""Classes of loaders of the user's own: a worker tells them of its life."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from celeriac import Celeriac
from tests.support.worker import WorkerProcess

APP = """
import os
from celeriac import Celeriac
from celeriac.loader import Loader
from tests.support.files import Ledger

ledger = Ledger("{folder}/ledger")

class Told(Loader):
    def on_worker_init(self): ledger.append(f"worker {{os.getpid()}}")
    def on_worker_process_init(self): ledger.append(f"process {{os.getpid()}}")
    def on_task_init(self, task_id, task): ledger.append(f"task {{task_id}} {{task.name}}")
    def on_process_cleanup(self): ledger.append("cleanup")
    def on_worker_shutdown(self): ledger.append("shutdown")

url = "sqlite:///{folder}/q.db"
app = Celeriac("told", broker=url, backend=url, loader=Told)

@app.task
def where():
    return os.getpid()
"""


def test_a_loader_of_your_own_is_told_of_a_workers_life(
    worker_process: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    (tmp_path / "told.py").write_text(APP.format(folder=tmp_path))
    url = f"sqlite:///{tmp_path}/q.db"
    with Celeriac("client", broker=url, backend=url, set_as_current=False) as client:
        worker = worker_process("told", "-c", "1")
        worker.wait_ready()
        runner = client.send_task("told.where", task_id="x").get(timeout=30)
        assert worker.stop() == 0
    lines = (tmp_path / "ledger").read_text().split("\n")
    assert f"process {runner}" in lines and "task x told.where" in lines
    assert lines.index("task x told.where") < lines.index("cleanup") < lines.index("shutdown")
    first = lines[0].split()
    assert first[0] == "worker" and int(first[1]) != runner != os.getpid()
