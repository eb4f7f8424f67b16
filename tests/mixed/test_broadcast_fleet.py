"""Stock Celery 5.7 and celeriac on one broker: a broadcast reaches the workers of both, and each has a queue of its own."""

from __future__ import annotations

from functools import partial

import pytest

from tests.mixed.conftest import Fleet
from tests.support.files import eventually

pytestmark = pytest.mark.slow


@pytest.fixture(params=["fleet", "rabbit_fleet"])
def any_fleet(request: pytest.FixtureRequest) -> Fleet:
    """A fleet on Redis, then one on RabbitMQ."""
    found: Fleet = request.getfixturevalue(request.param)
    return found


def words(fleet: Fleet) -> list[str]:
    return sorted(fleet.ledger.read_text().split())


def is_written(fleet: Fleet, expected: list[str]) -> bool:
    return words(fleet) == sorted(expected)


def test_a_broadcast_of_either_side_reaches_the_workers_of_both(any_fleet: Fleet) -> None:
    """[B-ROUTE-016]"""
    any_fleet.settings = {"broadcast": "news", "task_routes": {"fleet.here": {"queue": "news"}}}
    for side, name in (("celery", "stock1"), ("celeriac", "ours1"), ("celeriac", "ours2")):
        any_fleet.worker(side, "-n", f"{name}@%h")
    expected = []
    for side in ("celery", "celeriac"):
        client = any_fleet.client(side)
        # On Redis a stock client has to declare the exchange, or stock workers get nothing.
        more = ", declare=[app.amqp.queues['news'].exchange]" if side == "celery" else ""
        client(f"here.apply_async(({side!r},){more}).id")
        expected += [f"{side}:ours1", f"{side}:ours2", f"{side}:stock1"]
        eventually(partial(is_written, any_fleet, expected), 20)
    client("outcome(note.delay('end'))")  # nothing came twice
    assert words(any_fleet) == sorted([*expected, "end"])


def test_a_stock_client_that_never_declared_the_exchange_reaches_our_workers(fleet: Fleet) -> None:
    """On Redis it takes the exchange for a direct one."""
    fleet.settings = {"broadcast": "news", "task_routes": {"fleet.here": {"queue": "news"}}}
    fleet.worker("celeriac", "-n", "ours1@%h")
    fleet.worker("celeriac", "-n", "ours2@%h")
    fleet.client("celery")("here.delay('bare').id")
    eventually(lambda: words(fleet) == ["bare:ours1", "bare:ours2"], 20)


def test_either_side_reaches_one_worker(any_fleet: Fleet) -> None:
    """[B-ROUTE-018]"""
    any_fleet.settings = {"worker_direct": True}
    any_fleet.worker("celery", "-n", "stock@test")
    any_fleet.worker("celeriac", "-n", "ours@test")
    expected = []
    for side in ("celery", "celeriac"):
        client = any_fleet.client(side)
        for name in ("stock", "ours"):
            for number in range(3):
                client(f"here.apply_async(('{side}{number}',), queue=worker_direct('{name}@test')).id")
                expected.append(f"{side}{number}:{name}")
        client(f"here.apply_async(('{side}-name',), queue='ours@test.dq2').id")
        expected.append(f"{side}-name:ours")
    eventually(partial(is_written, any_fleet, expected), 20)
