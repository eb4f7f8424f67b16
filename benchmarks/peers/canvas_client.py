"""A client that sends workflows: `python -m benchmarks.peers.canvas_client MODE COUNT`, with what `canvas_side` needs.

MODE is one of the functions below. Prints figures as JSON: milliseconds, or megabytes.
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks.peers import canvas_side as side

#: Seconds after which a workflow is given up.
LONGEST = 600


def chord(count):
    return _whole(lambda size: side.chord(side.noops(size))(side.total.s()), count)


def chain(count):
    return _whole(lambda size: side.chain_of(size).apply_async((0,)), count)


def group(count):
    return _whole(lambda size: side.group(side.noops(size))(), count)


def send(count):
    """Sending alone: nobody works."""
    side.group(side.noops(10))()
    started, cpu = time.perf_counter(), time.process_time()
    side.group(side.noops(count))()
    took = time.perf_counter() - started
    return {"ms": took * 1000, "cpu": (time.process_time() - cpu) / count * 1e6}


def memory(count):
    """Of a group whose calls a generator makes."""
    return _grown(lambda size: side.group(side.noops(size)), count)


def memory_of_list(count):
    """Of a group whose calls are all there before."""
    return _grown(lambda size: side.group(list(side.noops(size))), count)


def one_chain(count):
    return _run(side.chain_of(count).apply_async((0,)))


def one_group(count):
    return _run(side.group(side.noops(count))())


def chain_of_chords(count):
    return _run(side.chain_of_chords(count).apply_async((0,)))


def nested(depth):
    return _run(side.nested(depth)())


def _run(result):
    """Nothing but this workflow, to its end."""
    result.get(timeout=LONGEST)
    return {}


def _whole(start, count):
    """From sending to the result, once; after a small one with which connections open and caches fill."""
    start(20).get(timeout=LONGEST)
    began = time.perf_counter()
    start(count).get(timeout=LONGEST)
    return {"ms": (time.perf_counter() - began) * 1000}


def _grown(make, count):
    """How much the peak of this process's memory grows while it makes and sends a group; the results are kept."""
    make(1000)()
    before = _peak()
    kept = make(count)()
    return {"mb": (_peak() - before) / 1024, "results": len(kept.results)}


def _peak():
    """Of the memory in use, in KB. `getrusage` would tell the parent's, if that is larger."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](int(sys.argv[2]))))
