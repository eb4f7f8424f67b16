"""What the supervisor itself spends on a task: CPU of its process with the memory transport and two forked runners.

All messages are published beforehand in the same process, so what is measured is fetching, admitting, handing out,
committing and acknowledging. Prints {"cpu": µs per task, "rate": tasks per second}.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time

from benchmarks import demo

from celeriac.results.open import open_store
from celeriac.runner.protocol import ZygoteOptions
from celeriac.transport.open import open_transport
from celeriac.worker.nursery import ZygoteNursery
from celeriac.worker.options import WorkerOptions
from celeriac.worker.supervisor import Supervisor


async def drain(count: int) -> dict[str, float]:
    supervisor = Supervisor(
        WorkerOptions(app="benchmarks.demo", node="bench@localhost", pool="prefork", concurrency=2),
        ZygoteNursery(ZygoteOptions(app="benchmarks.demo")),
        transport=open_transport(demo.URL, {}),
        store=open_store(demo.URL, {}),
    )
    await supervisor.start()
    wall, cpu, done = time.perf_counter(), time.process_time(), supervisor.pool.done
    while supervisor.pool.done < count or supervisor.committer.backlog:  # noqa: ASYNC110 -- there is no event for it
        await asyncio.sleep(0.01)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    await supervisor.stop(5)
    return {"cpu": cpu / (count - done) * 1e6, "rate": (count - done) / wall}


def main() -> None:
    task, count = getattr(demo, sys.argv[1]), int(sys.argv[2])
    demo.app.publish_many([task.s() for _ in range(count)])
    gc.collect()
    gc.freeze()  # the waiting messages are the broker's, which is another program elsewhere
    print(json.dumps(asyncio.run(drain(count))))


if __name__ == "__main__":
    main()
