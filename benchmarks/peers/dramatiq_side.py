"""Dramatiq on Redis or RabbitMQ: the tasks of the benchmarks. Results, where asked for, are kept in Redis."""

from __future__ import annotations

import os

import dramatiq
from benchmarks.peers.counting import ran
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

URL = os.environ["BENCH_BROKER"]
RESULTS = os.environ.get("BENCH_RESULTS")

broker = (
    RedisBroker(url=URL)
    if URL.startswith("redis")
    else RabbitmqBroker(url=URL.removesuffix("//") + "/%2F", confirm_delivery=True)
)
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=RESULTS)))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True) if RESULTS else dramatiq.actor
def noop():
    return ran()


def enqueue():
    noop.send()


def ask():
    noop.send().get_result(block=True, timeout=10_000)
