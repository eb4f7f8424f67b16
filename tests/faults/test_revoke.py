"""Revoking is a stored fact: it holds while no worker is up, over restarts, and it hits what was meant and nothing else."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import AsyncResult, chord, group
from celeriac.errors import TaskRevokedError
from tests.faults.apps.rig import Rig, kill
from tests.faults.apps_brokers.rig import IS_SOAK
from tests.support.files import eventually

pytestmark = pytest.mark.faults

#: Longer than any test waits: a task that is to be ended.
LONG = 600.0
#: Revokes at random, of four times as many tasks.
REVOKES = 1000 if IS_SOAK else 50


@pytest.fixture(autouse=True)
def nothing_is_left_open(rig: Rig) -> Iterator[None]:
    yield
    rig.app.close()


def listens(rig: Rig) -> None:
    eventually(lambda: rig.app.control.ping(timeout=0.2, limit=1), 20)


def revoked_text(result: AsyncResult[object]) -> str:
    with pytest.raises(TaskRevokedError) as caught:
        result.get(timeout=30)
    assert result.state == "REVOKED"
    return str(caught.value)


def test_revoked_while_no_worker_is_up(each_rig: Rig) -> None:
    """[B-REVOKE-001] [B-REVOKE-007] [B-REVOKE-008]"""
    results = [each_rig.send("note", None, f"n{number}") for number in range(5)]
    stays = each_rig.send("note", None, "stays")
    results[0].revoke()
    each_rig.app.control.revoke([result.id for result in results[1:]])
    assert [result.state for result in results] == ["REVOKED"] * 5
    each_rig.worker("-c", "2")
    assert stays.get(timeout=30) == "stays"
    each_rig.assert_empty()
    assert each_rig.starts() == {"stays": 1}
    assert [revoked_text(result) for result in results] == ["revoked"] * 5


def test_a_delayed_task_stays_revoked_over_a_restart(rig: Rig) -> None:
    worker = rig.worker("-c", "1")
    listens(rig)
    delayed = rig.app.send_task("note", (None, "delayed"), countdown=3)
    delayed.revoke(wait=True, timeout=20)
    kill(worker.pid, 9)
    worker.wait(20)
    rig.worker("-c", "1")
    rig.assert_empty(20)
    assert revoked_text(delayed) == "revoked"
    assert rig.marks() == []


def test_the_state_file_does_without_a_result_store(rig: Rig, tmp_path: Path) -> None:
    """[B-REVOKE-011]"""
    rig.worker_store_url = "disabled://"
    arguments = ("-c", "1", "--statedb", str(tmp_path / "state.db"))
    worker = rig.worker(*arguments)
    listens(rig)
    held, revoked = rig.send("work", "held", LONG), None
    rig.wait_start("held")
    revoked = rig.send("note", None, "revoked")
    rig.app.control.broadcast("revoke", {"task_id": revoked.id}, reply=True, timeout=20, limit=1)
    kill(worker.pid, 9)
    worker.wait(20)
    rig.app.control.broadcast("revoke", {"task_id": held.id})  # nobody hears that
    rig.app.backend.forget([revoked.id])  # type: ignore[union-attr]
    rig.worker("-c", "1", "--statedb", str(tmp_path / "state.db"))
    rig.send("note", None, "after")
    rig.wait_start("after")
    assert rig.starts()["revoked"] == 0


def test_a_running_task_is_left_alone_without_terminate(rig: Rig) -> None:
    """[B-REVOKE-004]"""
    rig.worker("-c", "1")
    listens(rig)
    result = rig.send("work", "runs", 1.0)
    rig.wait_start("runs")
    result.revoke(wait=True, timeout=20)
    eventually(lambda: result.state == "SUCCESS", 20)


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL", "SIGUSR1"])
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_terminated_task_ends_at_once_and_its_place_is_taken(rig: Rig, pool: str, signal: str) -> None:
    """[B-REVOKE-005] [B-REVOKE-006]; threads: Celery can't (B-REVOKE-016), our pools of threads are processes, too."""
    rig.worker("-c", "1", "-P", pool)
    listens(rig)
    result = rig.send("work", "ends", LONG)
    start = rig.wait_start("ends")
    [answer] = rig.app.control.terminate(result.id, signal=signal, reply=True, timeout=20, limit=1) or []
    assert answer == {"w1@test": {"ok": f"terminate: {result.id}"}}
    assert revoked_text(result) in ("revoked", "terminated")
    eventually(lambda: str(rig.app.AsyncResult(result.id).result) == "terminated", 20)
    after = rig.send("work", "after", 0.0)
    after.get(timeout=30)
    assert rig.wait_start("after").pid != start.pid
    assert rig.marks("end")[-1].key == "after" and len(rig.marks("end")) == 1
    rig.assert_empty()


def test_terminating_hits_no_other_task(rig: Rig) -> None:
    """Two hundred short tasks, a quarter of them terminated at any moment: the others all run, once."""
    rig.worker("-c", "2")
    listens(rig)
    results = {f"k{number}": rig.send("work", f"k{number}", 0.01) for number in range(200)}
    chosen = random.Random(7).sample(sorted(results), 50)
    for key in chosen:
        rig.app.control.broadcast("revoke", {"task_id": results[key].id, "terminate": True, "signal": "SIGKILL"})
    rig.wait_ended(results, 60)
    others = {key: result for key, result in results.items() if key not in chosen}
    rig.assert_succeeded(others)
    assert {key: count for key, count in rig.starts().items() if count > 1} == {}
    states = {result.state for key, result in results.items() if key in chosen}
    assert states <= {"REVOKED", "SUCCESS"}
    rig.assert_empty()


def test_random_revokes_under_load_stop_what_they_mean_and_nothing_else(rig: Rig) -> None:
    """[B-REVOKE-001] As on the network brokers (tests/faults/brokers/test_control.py): no revoked task starts once the workers
    have heard of it; every other one runs, once."""
    results = {f"k{number}": rig.send("work", f"k{number}", 0.05) for number in range(4 * REVOKES)}
    chosen = random.Random(11).sample(list(results), REVOKES)
    for _ in range(2):
        rig.worker("-c", "2")
    listens(rig)
    for key in chosen:
        rig.app.control.revoke(results[key].id)
    # Commands come in their order: who answers has heard all of them.
    eventually(lambda: len(rig.app.control.ping(timeout=5.0, limit=2)) == 2, 40)
    heard_at = time.monotonic()
    rig.wait_ended(results, 30 + len(results) * 0.1)
    others = {key: result for key, result in results.items() if key not in chosen}
    rig.assert_succeeded(others)
    assert {results[key].state for key in chosen} <= {"REVOKED", "SUCCESS"}
    starts = rig.starts()
    assert {key: starts[key] for key in others if starts[key] != 1} == {}
    late = {mark.key: mark.at - heard_at for mark in rig.marks() if mark.key in chosen and mark.at > heard_at}
    assert late == {}
    if IS_SOAK:
        assert any(not starts[key] for key in chosen), "all were revoked too late: this shows nothing"
    rig.assert_empty()


def test_stamps_are_revoked_until_the_worker_ends(rig: Rig) -> None:
    """[B-REVOKE-014] [B-REVOKE-015]"""
    worker = rig.worker("-c", "1")
    listens(rig)
    control = rig.app.control
    control.revoke_by_stamped_headers({"tenant": ["a", "b"]}, reply=True, timeout=20, limit=1)

    def send(key: str, tenant: str) -> AsyncResult[object]:
        return rig.app.send_task("note", (None, key), stamped_headers=["tenant"], tenant=tenant)

    stopped, runs = send("stopped", "b"), send("runs", "c")
    assert runs.get(timeout=30) == "runs"
    assert revoked_text(stopped) == "revoked"
    worker.stop()
    rig.worker("-c", "1")
    assert send("again", "b").get(timeout=30) == "again"


def test_waiting_tasks_of_a_busy_worker_are_revoked_at_once(rig: Rig) -> None:
    rig.worker("-c", "1")
    listens(rig)
    # Such short ones are fetched ahead; so many, that one which the machine delayed makes no difference.
    first = {f"first{number}": rig.send("work", f"first{number}", 0.0) for number in range(40)}
    for result in first.values():
        result.get(timeout=30)
    busy = rig.send("work", "busy", LONG)
    rig.wait_start("busy")
    waiting = [rig.send("work", f"w{number}", 0.0) for number in range(20)]
    inspect = rig.app.control.inspect(timeout=20, limit=1)
    eventually(inspect.reserved, 20)
    rig.app.control.revoke([result.id for result in waiting], reply=True, timeout=20, limit=1)
    assert [result.state for result in waiting] == ["REVOKED"] * 20
    rig.app.control.terminate(busy.id)
    rig.assert_empty()
    assert set(rig.starts()) == {*first, "busy"}


def test_a_group_is_revoked_by_one_command(rig: Rig) -> None:
    """[B-REVOKE-013]"""
    waiting = group(rig.app.signature("note", (None, f"g{number}")) for number in range(5)).apply_async()
    waiting.revoke()
    after = rig.send("note", None, "after")
    rig.worker("-c", "1")
    assert after.get(timeout=30) == "after"
    rig.assert_empty()
    assert [revoked_text(member) for member in waiting] == ["revoked"] * 5
    assert rig.starts() == {"after": 1}


def test_a_chord_ends_when_one_of_its_parts_is_revoked(rig: Rig) -> None:
    """[B-REVOKE-017]"""
    parts = [rig.app.signature("note", (None, f"p{number}")) for number in range(3)]
    result = chord(parts)(rig.app.signature("note", ("body",)))
    result.parent[1].revoke()
    rig.worker("-c", "1")
    with pytest.raises(Exception, match=r"revoked"):
        result.get(timeout=30)
    assert rig.app.AsyncResult(result.id).state == "FAILURE"
    assert rig.starts()["body"] == 0
    rig.assert_empty()
