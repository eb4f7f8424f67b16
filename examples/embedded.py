"""Client and worker in one process, without any file or server: `python embedded.py`. For tools and tests."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from celeriac import Celeriac
from celeriac.testing.worker import start_worker

app = Celeriac("embedded", broker="memory://", backend="memory://")


@app.task
def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


if __name__ == "__main__":
    paths = sys.argv[1:] or [__file__]
    with start_worker(app, pool="threads", concurrency=4):
        for path, result in [(path, digest.delay(path)) for path in paths]:
            print(result.get(timeout=60), path)
