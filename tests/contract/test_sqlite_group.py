"""Threads that publish at one moment share a commit, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from celeriac.errors import OperationalError
from celeriac.message import Settlement
from celeriac.testing.transports import PATIENCE, make_message
from celeriac.transport.sqlite import SqliteTransport
from celeriac.transport.sqlite_group import GroupCommit, Row


class Disk:
    """Keeps what was written together; the first write lasts until `free` is set; rows with "bad" can't be written."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.is_busy = threading.Event()
        self.free = threading.Event()

    def write(self, rows: list[Row], wants: set[str]) -> None:
        texts = sorted(str(row[0]) for row in rows)
        assert wants == {f"queue:{text}" for text in texts}
        if not self.groups:
            self.is_busy.set()
            assert self.free.wait(PATIENCE)
        if "bad" in texts:
            raise OperationalError(f"no {texts}")
        self.groups.append(texts)


@pytest.fixture
def disk() -> Disk:
    return Disk()


def publish_together(disk: Disk, *texts: str) -> list[BaseException | None]:
    """Publish "first", and while it is being written the others."""
    group = GroupCommit(disk.write)

    def publisher(text: str) -> Callable[[], None]:
        return lambda: group.publish([(text,)], {f"queue:{text}"})

    with ThreadPoolExecutor(len(texts) + 1) as pool:
        jobs = [pool.submit(publisher("first"))]
        assert disk.is_busy.wait(PATIENCE)
        jobs += [pool.submit(publisher(text)) for text in texts]
        while len(group._tickets) < len(texts):
            pass
        disk.free.set()
        results = [job.exception(PATIENCE) for job in jobs]
    assert not group.is_active
    return results


def test_who_comes_meanwhile_is_written_together(disk: Disk) -> None:
    assert publish_together(disk, "a", "b", "c") == [None] * 4
    assert disk.groups == [["first"], ["a", "b", "c"]]


def test_nobody_fails_for_another(disk: Disk) -> None:
    errors = publish_together(disk, "a", "bad", "c")
    assert [str(error) for error in errors if error is not None] == ["no ['bad']"]
    assert isinstance(errors[2], OperationalError)
    assert sorted(disk.groups[1:]) == [["a"], ["c"]]


def test_the_lead_is_handed_on_although_the_leader_fails(disk: Disk) -> None:
    disk.groups.append([])  # nothing blocks
    group = GroupCommit(disk.write)
    with pytest.raises(OperationalError):
        group.publish([("bad",)], {"queue:bad"})
    group.publish([("a",)], {"queue:a"})
    assert disk.groups == [[], ["a"]]


def test_sixteen_threads(tmp_path: Path) -> None:
    transport = SqliteTransport(f"sqlite:///{tmp_path}/broker.db")

    def send(thread: int) -> None:
        for number in range(20):
            transport.publish([make_message(f"{thread}-{number}", "q")])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(send, range(16)))
    deliveries = transport.fetch(["q"], 1000, 0, 60)
    transport.settle([Settlement(delivery) for delivery in deliveries])
    ids = [delivery.message.id for delivery in deliveries]
    assert sorted(ids) == sorted(f"{thread}-{number}" for thread in range(16) for number in range(20))
    for thread in range(16):
        mine = [each for each in ids if each.startswith(f"{thread}-")]
        assert mine == [f"{thread}-{number}" for number in range(20)], "each thread's order is kept"
    assert len(transport._database.handles()) <= 1, "connections go with their threads"
    transport.close()
