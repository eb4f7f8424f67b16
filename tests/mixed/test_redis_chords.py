"""Chords on one Redis: whichever clients send them and whichever workers run their parts, the body runs once."""

from __future__ import annotations

import pytest

from tests.mixed.conftest import Fleet
from tests.support.files import eventually
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.slow

SIDES = ["celery", "celeriac"]
#: A part whose value tells who ran it, and the body that writes down that it ran.
HEADER = "[side.s(n) for n in range({size})]"


def body_runs(fleet: Fleet) -> int:
    """How often a body has run."""
    return fleet.ledger.read_text().count("body")


@pytest.mark.parametrize("client_side", SIDES)
@pytest.mark.parametrize("worker_side", SIDES)
def test_a_chord_is_run_by_either_kind(
    fleet: Fleet, redis_server: RedisServer, client_side: str, worker_side: str
) -> None:
    client = fleet.client(client_side)
    fleet.worker(worker_side)
    state, ran = client(f"outcome(chord({HEADER.format(size=5)})(gathered.s()))")
    assert (state, ran) == ("SUCCESS", [[n, worker_side] for n in range(5)])
    assert body_runs(fleet) == 1
    failing = "chord([add.s(1, 1), fail.s('no'), add.s(2, 2)])(gathered.s())"
    state, (error, (text,)) = client(f"outcome(app.AsyncResult({failing}.id))")
    assert (state, error) == ("FAILURE", "ChordError")
    assert "Trouble" in text
    assert client("outcome(chord([add.s(1, 1) | add.s(3), add.s(2, 2)])(total.s()))") == ["SUCCESS", 9]
    assert body_runs(fleet) == 1
    eventually(lambda: not redis_server.call("KEYS", "celery-taskset-meta-*.s"), 10)


@pytest.mark.parametrize("client_side", SIDES)
def test_parts_that_both_kinds_ran_make_one_body(fleet: Fleet, redis_server: RedisServer, client_side: str) -> None:
    client = fleet.client(client_side)
    fleet.worker("celery", "-n", "stock@%h")
    fleet.worker("celeriac", "-n", "ours@%h")
    chords, size = 30, 8
    outcomes = client(
        f"[outcome(r) for r in [chord({HEADER.format(size=size)})(gathered.s()) for _ in range({chords})]]"
    )
    assert [state for state, _ in outcomes] == ["SUCCESS"] * chords
    for _, ran in outcomes:
        assert [number for number, _ in ran] == list(range(size)), "each part once, in order"
    assert {side for _, ran in outcomes for _, side in ran} == {"celery", "celeriac"}, "both have run parts"
    assert any(len({side for _, side in ran}) == 2 for _, ran in outcomes), "some chord was shared"
    assert body_runs(fleet) == chords
    left = redis_server.call("KEYS", "celery-taskset-meta-*")
    # What says that they are over stays for a while, and stock workers leave the header's result to expire.
    assert [
        key for key in left if key.endswith((b".j", b".s", b".d", b".t")) or redis_server.call("TTL", key) < 0
    ] == []
