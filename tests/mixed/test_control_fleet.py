"""Stock Celery 5.7 and celeriac control each other: either's command line and clients with either's workers, on both brokers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.mixed.conftest import STOCK_PYTHON, Fleet
from tests.support.files import eventually

pytestmark = pytest.mark.slow

on_both_brokers = pytest.mark.parametrize(
    "a_fleet", ["fleet", "rabbit_fleet"], indirect=True, ids=["redis", "rabbitmq"]
)


@pytest.fixture
def a_fleet(request: pytest.FixtureRequest) -> Fleet:
    made: Fleet = request.getfixturevalue(request.param)
    return made


def celery(fleet: Fleet, *words: str, code: int = 0, timeout: str = "5") -> str:
    """What stock Celery's command line prints."""
    command = [str(STOCK_PYTHON), "-m", "celery", "-b", fleet.url, *words]
    if words[0] in ("inspect", "control", "status"):
        command += ["-t", timeout, "-d", "ours@fleet"]
    done = subprocess.run(command, env=fleet._env("celery"), capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def celeriac(fleet: Fleet, *words: str, code: int = 0) -> str:
    """What our command line prints."""
    command = [sys.executable, "-m", "celeriac", "-A", "fleet", *words]
    if words[0] in ("inspect", "control", "status") and "shutdown" not in words:
        command += ["-t", "10"]
    command += ["-d", "stock@fleet"]
    done = subprocess.run(command, env=fleet._env("celeriac"), capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@on_both_brokers
def test_stock_command_line_asks_our_worker(a_fleet: Fleet) -> None:
    a_fleet.worker("celeriac", "-n", "ours@fleet")
    nap = a_fleet.client("celeriac")("nap.delay(30).id")
    assert celery(a_fleet, "status").split() == ["->", "ours@fleet:", "OK", "1", "node", "online."]
    assert "pong" in celery(a_fleet, "inspect", "ping")
    answer = eventually(lambda: json.loads(celery(a_fleet, "inspect", "active", "-j"))["ours@fleet"], 20)
    assert [(each["id"], each["name"], each["args"]) for each in answer] == [(nap, "fleet.nap", [30])]
    assert "fleet.add" in celery(a_fleet, "inspect", "registered")
    stats = json.loads(celery(a_fleet, "inspect", "stats", "-j"))["ours@fleet"]
    assert stats["broker"]["transport"] == a_fleet.url.partition(":")[0]
    assert len(stats["pool"]["processes"]) == 2
    assert "software -> celeriac" in celery(a_fleet, "inspect", "report")
    queues = json.loads(celery(a_fleet, "inspect", "active_queues", "-j"))["ours@fleet"]
    assert [queue["name"] for queue in queues] == ["celery"]


@on_both_brokers
def test_stock_command_line_tells_our_worker(a_fleet: Fleet) -> None:
    """[B-CONTROL-021] [B-CONTROL-026] [B-REVOKE-001]"""
    worker = a_fleet.worker("celeriac", "-n", "ours@fleet", "-c", "1")
    client = a_fleet.client("celery")
    assert "new rate limit set successfully" in celery(a_fleet, "control", "rate_limit", "fleet.add", "100/s")
    assert "unknown task" in celery(a_fleet, "control", "rate_limit", "fleet.nothing", "100/s")
    running, waiting = client("[nap.delay(30).id, note.delay('revoked').id]")
    eventually(lambda: running in celery(a_fleet, "inspect", "active"), 20)
    assert "flagged as revoked" in celery(a_fleet, "control", "revoke", waiting)
    assert running in celery(a_fleet, "control", "terminate", "SIGTERM", running)
    if a_fleet.backend != "rpc://":
        for task_id in (running, waiting):
            state, (error, _) = client(f"outcome(app.AsyncResult({task_id!r}))")
            assert (state, error) == ("REVOKED", "TaskRevokedError")
    assert client("outcome(note.delay('after'))") == ["SUCCESS", "after"]
    assert a_fleet.ledger.read_text().split() == ["after"]
    celery(a_fleet, "control", "shutdown", code=69, timeout="1")  # who goes does not answer
    assert worker.wait(20) == 0


@on_both_brokers
def test_our_command_line_and_client_control_a_stock_worker(a_fleet: Fleet) -> None:
    """[B-CONTROL-002] [B-CONTROL-004] [B-CONTROL-006]"""
    worker = a_fleet.worker("celery", "-n", "stock@fleet", "-c", "1")
    client = a_fleet.client("celeriac")
    assert client("app.control.ping(timeout=10, limit=1)") == [{"stock@fleet": {"ok": "pong"}}]
    assert client("app.control.inspect('stock@fleet', timeout=10).ping()") == {"ok": "pong"}
    asked = "app.control.inspect(pattern='st*@fleet', timeout=10, limit=1).registered()"
    assert "fleet.add" in client(asked)["stock@fleet"]
    assert client("app.control.inspect(destination=['nobody@x'], timeout=0.3).ping()") is None
    running = client("nap.delay(30).id")
    eventually(lambda: running in celeriac(a_fleet, "inspect", "active"), 20)
    assert celeriac(a_fleet, "status").split() == ["->", "stock@fleet:", "OK", "1", "node", "online."]
    assert "new rate limit set successfully" in celeriac(a_fleet, "control", "rate_limit", "fleet.add", "100/s")
    assert running in celeriac(a_fleet, "control", "terminate", "SIGTERM", running)
    celeriac(a_fleet, "control", "shutdown")
    worker.wait(20)


@on_both_brokers
def test_workers_of_both_kinds_tell_each_other_what_is_revoked(a_fleet: Fleet) -> None:
    """[B-REVOKE-010]: whoever starts learns it from those that are there."""
    a_fleet.worker("celery", "-n", "stock@fleet")
    client = a_fleet.client("celeriac")
    client("app.control.broadcast('revoke', {'task_id': ['told-before']}, reply=True, timeout=10, limit=1)")
    a_fleet.worker("celeriac", "-n", "ours@fleet")

    def known_by(node: str) -> list[str] | None:
        known: list[str] | None = client(f"app.control.inspect({node!r}, timeout=2).revoked()")
        return known

    eventually(lambda: known_by("ours@fleet") == ["told-before"], 20)
    a_fleet.worker("celery", "-n", "late@fleet")
    eventually(lambda: known_by("late@fleet") == ["told-before"], 20)  # it is "ready" before it listens
