"""Stock Celery 5.7 and celeriac on one Redis: either's clients with either's workers, and both workers at once."""

from __future__ import annotations

import time

import pytest

from tests.mixed.conftest import Fleet
from tests.support.files import eventually
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow

SIDES = [("celery", "celeriac"), ("celeriac", "celery")]


@pytest.mark.parametrize(("client_side", "worker_side"), SIDES)
def test_calls_results_errors_and_retries_cross(fleet: Fleet, client_side: str, worker_side: str) -> None:
    client = fleet.client(client_side)
    fleet.worker(worker_side)
    assert client("outcome(add.delay(2, 3))") == ["SUCCESS", 5]
    assert client("outcome(add.apply_async((2,), {'y': 0.5}))") == ["SUCCESS", 2.5]
    assert client("outcome(fail.delay('no'))") == ["FAILURE", ["Trouble", ["no", 42]]]
    task_id, state, value = client("(lambda r: [r.id, *outcome(r)])(again.delay(2))")
    assert (state, value) == ("SUCCESS", [task_id, 2])


@pytest.mark.parametrize(("client_side", "worker_side"), SIDES)
def test_an_eta_is_kept_across(fleet: Fleet, client_side: str, worker_side: str) -> None:
    client = fleet.client(client_side)
    fleet.worker(worker_side)
    sent = time.time()
    state, ran = client("outcome(now.apply_async(countdown=1.5))")
    assert state == "SUCCESS"
    assert ran >= sent + 1.5
    state, ran = client("outcome(now.apply_async(eta=dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=1)))")
    assert state == "SUCCESS"


@pytest.mark.parametrize(("client_side", "worker_side"), SIDES)
def test_urgent_tasks_go_first_across(fleet: Fleet, client_side: str, worker_side: str) -> None:
    """[B-ROUTE-020]"""
    client = fleet.client(client_side)
    client("[note.apply_async((f'{p}-{n}',), priority=p).id for p in (9, 3, 0) for n in range(3)] and None")
    fleet.worker(worker_side, "-c", "1")
    client("outcome(note.apply_async(('end',), priority=9))")
    order = [line.split("-")[0] for line in fleet.ledger.read_text().split()]
    assert order == ["0"] * 3 + ["3"] * 3 + ["9"] * 3 + ["end"]


def test_expired_tasks_are_revoked_across(fleet: Fleet) -> None:
    ids = [fleet.client(side)("note.apply_async(('late',), expires=0.2).id") for side in ("celery", "celeriac")]
    ours = fleet.client("celeriac")
    ours("time.sleep(0.3)")
    fleet.worker("celeriac")
    for task_id in ids:
        state, (error, _args) = ours(f"outcome(app.AsyncResult({task_id!r}))")
        assert (state, error) == ("REVOKED", "TaskRevokedError")
    assert fleet.ledger.read_text() == ""


def test_both_workers_share_one_queue_and_leave_nothing(fleet: Fleet, redis_server: RedisServer) -> None:
    fleet.worker("celery", "-n", "stock@%h")
    fleet.worker("celeriac", "-n", "ours@%h")
    clients = [fleet.client(side) for side in ("celery", "celeriac")]
    for client in clients:
        values = client("[r.get(timeout=30) for r in [add.delay(n, n) for n in range(200)]]")
        assert values == [2 * n for n in range(200)]
    assert redis_server.call("LLEN", "celery") == 0
    clients[0]("time.sleep(1)")  # stock acknowledges in the background
    assert redis_server.call("HLEN", "unacked") == 0


def test_what_a_killed_stock_worker_held_is_run_by_ours(fleet: Fleet) -> None:
    """A stock worker's reserved messages are in `unacked`; ours give them back after the visibility timeout."""
    fleet.visibility_timeout = 2
    stock = fleet.worker("celery")
    client = fleet.client("celeriac")
    client("[nap.delay(60).id for _ in range(2)] and [note.delay(f'n{i}').id for i in range(2)] and None")
    eventually(lambda: stock.output.count("received") == 4, 10)
    stock.kill_tree()
    client("time.sleep(2.1)")
    fleet.worker("celeriac")
    eventually(lambda: sorted(fleet.ledger.read_text().split()) == ["n0", "n1"], 20)
