"""The app of the workflows under chaos: each start of a task is a line of the ledger, with its id."""

from __future__ import annotations

import json
import os

from celeriac import Celeriac
from tests.support.workflows import add_tasks

app = Celeriac("workflows", **json.loads(os.environ["CELERIAC_TEST_SETTINGS"]))


def _note(task_id: str) -> None:
    file = os.open(os.environ["CELERIAC_TEST_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{task_id}\n".encode())
    os.close(file)


add_tasks(app, _note)
