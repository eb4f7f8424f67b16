"""A client process whose broker goes away: `python -m tests.faults.apps_brokers.publishing <settings as JSON>`.

The test and it take turns, a line each. It sends from 50 threads at once: once in peace, once when told that the broker is
broken, once when told that it is healed; each time it tells what happened, how long each call took, and how many threads and
open files it has.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from typing import Any

from celeriac import Celeriac
from celeriac.errors import OperationalError
from tests.support.files import eventually

THREADS = 50


def send_at_once(app: Celeriac) -> list[tuple[float, str]]:
    """(seconds, error or "") of each of 50 calls."""
    barrier = threading.Barrier(THREADS)
    outcomes: list[tuple[float, str]] = []

    def send() -> None:
        barrier.wait()
        began = time.monotonic()
        try:
            app.signature("work", args=("key", 0)).delay()
            error = ""
        except OperationalError as exc:
            error = str(exc)
        except Exception as exc:  # told, so that the test can show it
            error = f"WRONG {type(exc).__name__}: {exc}"
        outcomes.append((time.monotonic() - began, error))

    threads = [threading.Thread(target=send) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def open_things() -> dict[str, int]:
    """How many threads and open files this process has."""
    return {"threads": threading.active_count(), "files": len(os.listdir("/proc/self/fd"))}


def tell(at_most: dict[str, int] | None = None, **facts: Any) -> None:
    """One line to the test, and wait for its answer.

    Args:
        at_most: What is open must come down to this: a connection that was given up may take a moment to close.
    """
    if at_most is not None:
        with contextlib.suppress(AssertionError):  # the test compares, and says what is wrong
            eventually(lambda: all(now <= at_most[what] for what, now in open_things().items()))
    facts |= open_things()
    print(json.dumps(facts), flush=True)
    sys.stdin.readline()


def main() -> None:
    """Three rounds."""
    app = Celeriac("client", **json.loads(sys.argv[1]))
    send_at_once(app)
    in_peace = send_at_once(app)
    before = open_things()
    tell(outcomes=in_peace)
    tell(outcomes=send_at_once(app))
    send_at_once(app)
    tell(before, outcomes=send_at_once(app))


if __name__ == "__main__":
    main()
