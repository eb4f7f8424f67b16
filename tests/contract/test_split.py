"""A worker that reads from one broker and writes to another: the contract where both are one, and what goes where."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.config import Settings
from celeriac.routing import Broadcast, Queue, copy_of
from celeriac.testing.transport_case import make_message, names
from celeriac.testing.transports import TransportSuite
from celeriac.transport.base import Transport
from celeriac.transport.memory import MemoryTransport
from celeriac.transport.open import open_worker_transport
from celeriac.transport.split import SplitTransport
from tests.support.worker import WorkerProcess


class TestTwoAddressesOfOneBroker(TransportSuite):
    lacks = frozenset({"commit"})

    @pytest.fixture
    def url(self) -> str:
        return f"memory://{uuid.uuid4().hex}"

    @pytest.fixture
    def transport(self, url: str) -> Transport:
        return SplitTransport(MemoryTransport(url), MemoryTransport(url))

    @pytest.fixture
    def other(self, url: str) -> Transport:
        return SplitTransport(MemoryTransport(url), MemoryTransport(url))

    @pytest.fixture
    def store(self) -> None:
        return None


@pytest.fixture
def sides() -> Iterator[tuple[MemoryTransport, MemoryTransport]]:
    sides = (MemoryTransport(f"memory://{uuid.uuid4().hex}"), MemoryTransport(f"memory://{uuid.uuid4().hex}"))
    yield sides
    for side in sides:
        side.clear()


def test_messages_are_read_here_and_sent_there(sides: tuple[MemoryTransport, MemoryTransport]) -> None:
    reading, writing = sides
    split = SplitTransport(reading, writing)
    reading.publish([make_message("in", "q")])
    split.publish([make_message("out", "q")])
    assert names(split.fetch(["q"], 10, 0, 30)) == ["in"]
    assert names(writing.fetch(["q"], 10, 0, 30)) == ["out"]
    assert split.url == reading.url


def test_queues_are_declared_at_both_and_copies_where_they_are_read(
    sides: tuple[MemoryTransport, MemoryTransport],
) -> None:
    reading, writing = sides
    news = Broadcast("news")
    SplitTransport(reading, writing).declare([Queue("q", news.exchange), news, copy_of(news)])
    for side, count in ((reading, 2), (writing, 1)):
        assert len(side._broker.bindings["news"]) == count


def test_one_url_is_one_broker() -> None:
    conf = Settings.from_plain({"broker_url": "memory://one"})
    assert isinstance(open_worker_transport(conf), MemoryTransport)
    conf = Settings.from_plain({"broker_read_url": "memory://one", "broker_write_url": "memory://two"})
    assert isinstance(open_worker_transport(conf), SplitTransport)


APP = """
from celeriac import Celeriac, chain
app = Celeriac("split", broker_read_url="sqlite:///in.db", broker_write_url="sqlite:///out.db",
               backend="sqlite:///results.db")

@app.task(name="double")
def double(x):
    return 2 * x
"""


@pytest.mark.slow
def test_a_worker_reads_here_and_sends_there(tmp_path: Path, worker_process: Callable[..., WorkerProcess]) -> None:
    """[B-ROUTE-028] A client sends to the one for writing; the worker takes from the other, and sends on as clients do."""
    (tmp_path / "parted.py").write_text(APP)
    backend = f"sqlite:///{tmp_path}/results.db"
    forwarder = Celeriac("in", broker=f"sqlite:///{tmp_path}/in.db", backend=backend, set_as_current=False)
    client = Celeriac(
        "out", broker_read_url=f"sqlite:///{tmp_path}/in.db", broker_write_url=f"sqlite:///{tmp_path}/out.db",
        backend=backend, set_as_current=False,
    )  # fmt: skip
    client.send_task("double", (1,))
    worker_process("parted", "-c", "1").wait_ready()
    result = forwarder.send_task("double", (2,), link=forwarder.signature("double", queue="next"))
    assert result.get(timeout=30) == 4
    assert client.transport.size("celery").ready == 1
    [delivery] = client.transport.fetch(["next"], 1, 20, 30)
    assert delivery.message.task == "double"
    forwarder.close()
    client.close()
