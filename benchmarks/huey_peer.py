"""The peer: Huey with its SQLite storage. Runs in the environment of the peers, not in ours.

`python huey_peer.py COUNT` enqueues one at a time and prints {"rate": …, "cpu": …}; as a module it is what Huey's consumer runs.
BENCH_FILE is the database, BENCH_SYNCHRONOUS the setting of the same name, which Huey itself leaves at SQLite's default (FULL).
"""

import json
import os
import sys
import time

from huey import Huey
from huey.storage import SqliteStorage


class Storage(SqliteStorage):
    """Huey's own, with `synchronous` as in the run of celeriac beside it."""

    def _create_connection(self):
        connection = super()._create_connection()
        connection.execute("PRAGMA synchronous = " + os.environ["BENCH_SYNCHRONOUS"])
        return connection


huey = Huey("bench", storage_class=Storage, filename=os.environ["BENCH_FILE"])


@huey.task()
def noop():
    """Does nothing, and its result is stored."""
    return 1


def main() -> None:
    import huey_peer  # under its own name, not __main__: Huey puts the name of the module into the message

    noop, count = huey_peer.noop, int(sys.argv[1])
    noop()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        noop()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"rate": count / wall, "cpu": cpu / count * 1e6}))


if __name__ == "__main__":
    main()
