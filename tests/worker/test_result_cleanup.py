"""Expired results are deleted every day at 4 by the workers themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from celeriac import Celeriac, signals
from celeriac.results.base import Record
from celeriac.testing.clock import virtual_clock
from celeriac.testing.worker import start_worker
from celeriac.timing import SYSTEM_CLOCK
from celeriac.worker import result_cleanup
from celeriac.worker.result_cleanup import TASK, cleanup_day

EVENING = datetime(2030, 5, 1, 20, 0, tzinfo=UTC)


@pytest.fixture
def cleaned(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleQueue[str]]:
    """Names of the workers that have done it; they look at the clock often."""
    done: SimpleQueue[str] = SimpleQueue()
    monkeypatch.setattr(result_cleanup, "LOOK", 0.02)

    def note(sender: Any = None, **_: Any) -> None:
        if sender.name == TASK:
            done.put(sender.request.hostname)

    signals.task_success.connect(note, weak=False)
    yield done
    signals.task_success.disconnect(note)


@pytest.mark.parametrize(
    ("moment", "zone", "day"),
    [
        ("2030-05-01T03:59:59+00:00", "UTC", "2030-04-30"),
        ("2030-05-01T04:00:00+00:00", "UTC", "2030-05-01"),
        ("2030-05-01T01:59:59+00:00", "Europe/Berlin", "2030-04-30"),
        ("2030-05-01T02:00:00+00:00", "Europe/Berlin", "2030-05-01"),
        ("2030-03-31T02:00:00+00:00", "Europe/Berlin", "2030-03-31"),  # the night that has no 2 o'clock
        ("2030-05-01T10:59:00+00:00", "America/Los_Angeles", "2030-04-30"),
    ],
)
def test_a_day_begins_at_four_of_the_apps_zone(moment: str, zone: str, day: str) -> None:
    assert cleanup_day(datetime.fromisoformat(moment).timestamp(), ZoneInfo(zone)) == day


def expired(app: Celeriac) -> int:
    """How many expired records the store still has; they are gone then."""
    assert app.backend is not None
    return app.backend.cleanup(SYSTEM_CLOCK.now())


def test_workers_delete_expired_results_once_a_day(app: Celeriac, cleaned: SimpleQueue[str]) -> None:
    """[B-RESULT-022] Without a scheduler, and by one of all workers that share a place."""
    app.conf.coordination_url = f"memory://{app.main}-place"
    with virtual_clock(app, EVENING) as clock, start_worker(app), start_worker(app):
        assert app.backend is not None
        old, new = (clock.time() + hours * 3600 for hours in (1, 48))
        app.backend.store([
            Record(id="old", state="SUCCESS", result=b"1", expires_at=old),
            Record(id="new", state="SUCCESS", result=b"1", expires_at=new),
        ])  # fmt: skip
        clock.advance(7 * 3600)  # 3 o'clock
        with pytest.raises(Empty):
            cleaned.get(timeout=0.3)
        clock.advance(3600)
        cleaned.get(timeout=20)
        with pytest.raises(Empty):
            cleaned.get(timeout=0.3)
        assert expired(app) == 0
        assert app.AsyncResult("new").state == "SUCCESS"
        clock.advance(24 * 3600)
        cleaned.get(timeout=20)


@pytest.mark.parametrize("why", ["never", "by itself"])
def test_nothing_is_sent_where_nothing_expires(
    app: Celeriac, cleaned: SimpleQueue[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.backend is not None
    if why == "never":
        app.conf.result_expires = None
    else:
        can = type(app.backend.capabilities)(drops_expired=True)
        monkeypatch.setattr(type(app.backend), "capabilities", can)
    with virtual_clock(app, EVENING) as clock, start_worker(app):
        clock.advance(24 * 3600)
        with pytest.raises(Empty):
            cleaned.get(timeout=0.3)


def test_sqlite_is_cleaned_by_a_worker(each_app: Celeriac, cleaned: SimpleQueue[str]) -> None:
    app = each_app
    assert app.backend is not None
    app.backend.store([Record(id="old", state="SUCCESS", result=b"1", expires_at=time.time() - 1)])
    try:
        with start_worker(app):
            SYSTEM_CLOCK.stand_still(time.time() + 86400)
            cleaned.get(timeout=20)
    finally:
        SYSTEM_CLOCK.stand_still(None)
    assert expired(app) == 0
