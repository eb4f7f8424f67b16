"""A client process whose broker goes away: `python -m tests.faults.apps_brokers.publishing <settings as JSON>`.

The test and it take turns, a line each. It sends from 50 threads at once: once in peace, once when told that the broker is
broken, once when told that it is healed; each time it tells what happened, how long each call took, and how many threads and
open files it has.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

from celeriac import Celeriac
from celeriac.errors import OperationalError

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


def tell(**facts: Any) -> None:
    """One line to the test, and wait for its answer."""
    facts |= {"threads": threading.active_count(), "files": len(os.listdir("/proc/self/fd"))}
    print(json.dumps(facts), flush=True)
    sys.stdin.readline()


def main() -> None:
    """Three rounds."""
    app = Celeriac("client", **json.loads(sys.argv[1]))
    send_at_once(app)
    tell(outcomes=send_at_once(app))
    tell(outcomes=send_at_once(app))
    send_at_once(app)
    tell(outcomes=send_at_once(app))


if __name__ == "__main__":
    main()
