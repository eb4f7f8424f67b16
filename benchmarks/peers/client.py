"""A client of one side: `python -m benchmarks.peers.client MODULE MODE COUNT`, in that side's environment.

MODULE has `enqueue()`, which sends one no-op, `ask()`, which sends one and waits for its result, and, where the side can
send many at once, `fill(count)`; some have `fill_milliseconds(count)`. MODE is one of these names. Prints {"rate": per
second, "cpu": µs each} or, for `ask`, {"p50": ms, "p99": ms}. Needs nothing but the standard library.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable

#: Calls before the clock starts: connections are opened, caches filled.
WARM_UP = 20


def timed(count: int, work: Callable[[], object]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"rate": count / wall, "cpu": cpu / count * 1e6}


def latencies(count: int, ask: Callable[[], object]) -> dict[str, float]:
    took = []
    for _ in range(count):
        started = time.perf_counter()
        ask()
        took.append((time.perf_counter() - started) * 1000)
    took.sort()
    return {"p50": took[count // 2], "p99": took[int(count * 0.99)]}


def main() -> None:
    module, mode, count = importlib.import_module(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if mode == "ask":
        for _ in range(WARM_UP):
            module.ask()
        figures = latencies(count, module.ask)
    elif mode != "enqueue" and hasattr(module, mode):
        figures = timed(count, lambda: getattr(module, mode)(count))
    else:
        if mode == "enqueue":
            for _ in range(WARM_UP):
                module.enqueue()
        figures = timed(count, lambda: [module.enqueue() for _ in range(count)])
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
