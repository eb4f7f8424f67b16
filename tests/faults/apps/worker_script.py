"""A worker without the command line: `python worker_script.py APP -c 2 -n NODE`. Used until `celeriac worker` is there."""

from __future__ import annotations

import argparse
import os
import sys

from celeriac.log import setup_worker_logging
from celeriac.runner.protocol import ZygoteOptions
from celeriac.worker.lifecycle import run_worker
from celeriac.worker.nursery import ZygoteNursery
from celeriac.worker.options import WorkerOptions
from celeriac.worker.supervisor import Supervisor


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("app")
    parser.add_argument("-c", type=int, default=2)
    parser.add_argument("-n", default="celery@test")
    parser.add_argument("-l", default="INFO")
    given = parser.parse_args()
    setup_worker_logging(given.l, None, colour=False)
    zygote = ZygoteOptions(app=given.app, loglevel=given.l)
    supervisor = Supervisor(WorkerOptions(app=given.app, node=given.n, concurrency=given.c), ZygoteNursery(zygote))
    if run_worker(supervisor):
        os.execv(sys.executable, [sys.executable, *sys.argv])
    return 0


if __name__ == "__main__":
    sys.exit(main())
