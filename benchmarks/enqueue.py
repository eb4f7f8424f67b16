"""Enqueues no-ops one at a time, as a program does that calls `delay()`, and prints {"rate": …, "cpu": …} per call."""

from __future__ import annotations

import json
import sys
import time

from benchmarks.demo import noop


def main() -> None:
    count = int(sys.argv[1])
    noop.delay()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        noop.delay()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"rate": count / wall, "cpu": cpu / count * 1e6}))


if __name__ == "__main__":
    main()
