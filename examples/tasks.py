"""The smallest whole program. In one terminal: `celeriac -A tasks worker`; in another: `python tasks.py`."""

from __future__ import annotations

from celeriac import Celeriac

app = Celeriac("tasks")


@app.task
def add(x: int, y: int) -> int:
    return x + y


if __name__ == "__main__":
    print(add.delay(2, 3).get(timeout=10))
