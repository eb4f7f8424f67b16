"""The app that the benchmarks run: tasks that do nothing, so that what is measured is celeriac.

Broker and result store are the URL in BENCH_URL.
"""

from __future__ import annotations

import os
import time

from celeriac import Celeriac

URL = os.environ.get("BENCH_URL", "memory://bench")

app = Celeriac("demo", broker=URL, backend=URL)


@app.task
def noop() -> int:
    """Does nothing, and its result is stored."""
    return 1


@app.task(ignore_result=True)
def quiet() -> None:
    """Does nothing, and nothing is stored."""


@app.task
def latency(sent_at: float) -> float:
    """Seconds from the call to the first line of the task."""
    return time.time() - sent_at
