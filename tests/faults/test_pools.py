"""The pools whose runners run many tasks at once: asyncio, gevent, eventlet, beside threads."""

from __future__ import annotations

import os
import signal

import pytest

from celeriac.errors import ImproperlyConfigured
from celeriac.worker.options import pool_shape
from tests.faults.apps.rig import Rig
from tests.support.files import eventually

pytestmark = [pytest.mark.faults, pytest.mark.slow]

POOLS = ["threads", "asyncio", "gevent", "eventlet"]
#: Tasks at the same time.
TOGETHER = 12


@pytest.mark.parametrize("pool", POOLS)
def test_one_runner_runs_many_tasks_at_once_and_its_death_loses_none(rig: Rig, pool: str) -> None:
    worker = rig.worker("-P", pool, "-c", str(TOGETHER), "--processes", "1")
    results = {f"t{number}": rig.send("meet", f"t{number}", TOGETHER) for number in range(TOGETHER)}
    for key, result in results.items():
        assert result.get(timeout=40) == key  # none of them would end alone
    [first] = worker.runner_pids()
    waiting = {f"w{number}": rig.send("meet", f"w{number}", 3 * TOGETHER) for number in range(TOGETHER)}
    eventually(lambda: len(rig.marks()) == 2 * TOGETHER, 40)
    os.kill(first, signal.SIGKILL)
    for key, result in waiting.items():
        assert result.get(timeout=40) == key
    assert rig.starts() == {**dict.fromkeys(results, 1), **dict.fromkeys(waiting, 2)}
    rig.assert_empty()
    assert worker.stop() == 0


def test_coroutines_of_the_asyncio_pool_share_a_loop(rig: Rig) -> None:
    rig.worker("-P", "asyncio", "-c", str(TOGETHER), "--processes", "1")
    results = [rig.send("meet_async", f"t{number}", TOGETHER) for number in range(TOGETHER)]
    assert len({result.get(timeout=40) for result in results}) == 1
    with pytest.raises(ValueError, match="its own"):
        rig.send("fail_async", "its own").get(timeout=20)
    cancelled = rig.send("cancel_async")
    assert type(cancelled.get(timeout=20, propagate=False)).__name__ == "CancelledError"
    assert cancelled.state == "FAILURE"
    assert rig.send("note", "still there", kwargs={"key": "n"}).get(timeout=20) == "n"


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_greenlets_refuse_coroutines_in_one_line(rig: Rig, pool: str) -> None:
    rig.worker("-P", pool, "-c", "2")
    with pytest.raises(ImproperlyConfigured, match="use --pool asyncio, threads or prefork"):
        rig.send("meet_async", "t", 1).get(timeout=40)
    assert rig.send("note", "still there", kwargs={"key": "n"}).get(timeout=20) == "n"


def test_a_pool_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImproperlyConfigured, match=r"the pool gevent needs .* pip install 'celeriac\[gevent\]'"):
        pool_shape("gevent", 10, None)


def test_greenlets_and_coroutines_share_few_processes() -> None:
    assert pool_shape("gevent", 250, None) == ("gevent", 3, 84)
    assert pool_shape("asyncio", 100, None) == ("asyncio", 1, 100)
    assert pool_shape("eventlet", 10, 2) == ("eventlet", 2, 5)
