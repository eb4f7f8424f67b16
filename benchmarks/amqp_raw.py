"""What RabbitMQ itself costs: publishing with confirms, and fetching with acknowledgements, by our driver and by bare pika.

    python benchmarks/amqp_raw.py [amqp://guest:guest@localhost:5672//] [messages]

Prints messages per second and CPU microseconds per message of this process. The rows "pika" are the adapters that the driver
could be built on, doing the same work with the least code around them.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pika

from celeriac.message import Message, Settlement
from celeriac.transport.amqp import AmqpTransport

URL = "amqp://guest:guest@localhost:5672//"
HEADERS: dict[str, Any] = {
    "lang": "py", "task": "benchmark.add", "id": "", "shadow": None, "eta": None, "expires": None, "group": None,
    "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": str(uuid.uuid4()), "parent_id": None,
    "argsrepr": "(2, 3)", "kwargsrepr": "{}", "origin": "gen1@host", "ignore_result": True, "replaced_task_nesting": 0,
    "stamped_headers": None, "stamps": {},
}  # fmt: skip
BODY = b'[[2, 3], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


def measured(name: str, count: int, work: Callable[[], None]) -> None:
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name:<52} {count / seconds:>9,.0f}/s {cpu / count * 1e6:>8.1f} us", flush=True)


def message(queue: str) -> Message:
    task_id = str(uuid.uuid4())
    return Message(id=task_id, headers={**HEADERS, "id": task_id}, body=BODY, queue=queue, reply_to=task_id)


def publish(transport: AmqpTransport, queue: str, count: int, batch: int) -> None:
    for _ in range(count // batch):
        transport.publish([message(queue) for _ in range(batch)])


def publish_from_threads(transport: AmqpTransport, queue: str, count: int, threads: int) -> None:
    workers = [threading.Thread(target=publish, args=(transport, queue, count // threads, 1)) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def consume(transport: AmqpTransport, queue: str, count: int, batch: int) -> None:
    """As a worker does: one thread fetches while another settles."""
    done = 0
    while done < count:
        deliveries = transport.fetch([queue], batch, 5.0, 30.0)
        transport.settle([Settlement(delivery) for delivery in deliveries])
        done += len(deliveries)


def pika_blocking_publish(url: str, queue: str, count: int) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    for _ in range(count):
        properties = pika.BasicProperties("application/json", "utf-8", HEADERS, 2, 0, str(uuid.uuid4()), "reply")
        channel.basic_publish("", queue, BODY, properties, mandatory=True)
    connection.close()


def pika_blocking_consume(url: str, queue: str, count: int, batch: int) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=2 * batch)
    for number, (method, _properties, _body) in enumerate(channel.consume(queue), 1):
        if number % batch == 0 or number == count:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if number == count:
            break
    channel.cancel()
    connection.close()


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else URL
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    transport = AmqpTransport(url, {"timeout": 30})
    queue = f"benchmark-{uuid.uuid4().hex[:8]}"
    transport.publish([message(queue)])  # connects and declares
    transport.purge(queue)

    def drain(batch: int, name: str) -> None:
        measured(
            name, transport.size(queue).ready, lambda: consume(transport, queue, transport.size(queue).ready, batch)
        )

    try:
        for batch in (1, 100, 2000):
            each = count // 10 if batch == 1 else count
            measured(f"publish, confirmed, batches of {batch}", each, lambda: publish(transport, queue, each, batch))  # noqa: B023
            drain(batch if batch > 1 else 100, f"fetch and acknowledge, batches of {min(max(batch, 100), 2000)}")
        few = count // 10
        measured("publish one by one from 8 threads", few, lambda: publish_from_threads(transport, queue, few, 8))
        drain(1, "fetch and acknowledge one by one")
        measured("pika, blocking: publish, confirmed one by one", few, lambda: pika_blocking_publish(url, queue, few))
        publish(transport, queue, count, 1000)
        measured(
            "pika, blocking: consume, acknowledged per 100",
            count,
            lambda: pika_blocking_consume(url, queue, count, 100),
        )
    finally:
        transport.delete(queue)
        transport.close()


if __name__ == "__main__":
    main()
