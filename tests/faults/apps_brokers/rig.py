"""A client, a ledger and real workers on one broker, and what a test asks of them.

`BrokerRig` is made by the fixture `rig` (tests/faults/brokers/conftest.py). `marks` are the ledger's lines, read as they come.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from celeriac import Celeriac
from celeriac.errors import OperationalError
from celeriac.results.base import Record
from celeriac.results.open import open_store
from celeriac.transport.open import open_transport
from tests.faults.apps_brokers.kinds import Broker
from tests.support.files import Ledger, eventually
from tests.support.worker import WorkerProcess

__all__ = ["IS_SOAK", "BrokerRig", "Mark", "Marks"]

APP = "tests.faults.apps_brokers.jobs"
#: Whether everything is to be done longer and more often: CELERIAC_TEST_SOAK=1.
IS_SOAK = bool(os.environ.get("CELERIAC_TEST_SOAK"))
#: Length of a lease. The faults that tests call short are shorter.
LEASE = 3.0


class Mark(NamedTuple):
    """A line of the ledger: what happened to which key, when (monotonic), in which process."""

    what: str
    key: str
    at: float
    pid: int


class Marks:
    """The ledger's lines, each read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._all: list[Mark] = []
        self._first: dict[tuple[str, str], Mark] = {}

    def __call__(self, what: str) -> list[Mark]:
        """All of one kind so far."""
        self._read()
        return [mark for mark in self._all if mark.what == what]

    def counts(self, what: str) -> Counter[str]:
        """How often it happened, by key."""
        return Counter(mark.key for mark in self(what))

    def wait(self, what: str, key: str, timeout: float = 30.0) -> Mark:
        """Wait for the first one of this kind and key."""

        def found() -> Mark | None:
            self._read()
            return self._first.get((what, key))

        try:
            return eventually(found, timeout)
        except AssertionError:
            raise AssertionError(f"there was no {what} of {key} in {timeout} s") from None

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode().splitlines():
            what, key, at, pid = line.split()
            mark = Mark(what, key, float(at), int(pid))
            self._all.append(mark)
            self._first.setdefault((what, key), mark)


class BrokerRig:
    """Client and workers of one test.

    Args:
        start: Starts a WorkerProcess that is killed at the end of the test.
        port: Where clients and workers reach the broker, if not directly.
    """

    def __init__(
        self, broker: Broker, folder: Path, start: Callable[..., WorkerProcess], port: int | None = None
    ) -> None:
        self.broker = broker
        self.url = broker.url_at(port or broker.server.port)
        self.store_url = broker.store_url_at(port or broker.server.port)
        self.ledger = Ledger(folder / "ledger")
        self.marks = Marks(self.ledger.path)
        self.settings: dict[str, Any] = {"task_default_queue": broker.queue, "task_lease": LEASE}
        self.env: dict[str, str] = {}
        self.jobs = APP
        self._start = start
        self._nodes = 0
        self._app: Celeriac | None = None

    @property
    def app(self) -> Celeriac:
        """The client's app; made when it is first used."""
        if self._app is None:
            self._app = Celeriac("client", set_as_current=False, **self._all_settings())
        return self._app

    def _all_settings(self) -> dict[str, Any]:
        return {"broker_url": self.url, "result_backend": self.store_url, **self.settings}

    def worker(self, *arguments: str, ready: bool = True, **env: str) -> WorkerProcess:
        """Start a worker with a node name of its own."""
        self._nodes += 1
        environment = {
            "CELERIAC_TEST_SETTINGS": json.dumps(self._all_settings()),
            "CELERIAC_TEST_LEDGER": str(self.ledger.path),
            **self.env,
            **env,
        }
        worker = self._start(self.jobs, "-l", "INFO", "-n", f"w{self._nodes}@test", *arguments, env=environment)
        if ready:
            worker.wait_ready()
        return worker

    def records(self, ids: Iterable[str]) -> dict[str, Record | None]:
        """What is stored, by task id; asked of the store itself, not through a proxy."""
        wanted = list(ids)
        with closing(open_store(self.broker.store_url)) as store:
            found: list[Record | None] = []
            for start in range(0, len(wanted), 500):
                found += store.get(wanted[start : start + 500])
        return dict(zip(wanted, found, strict=True))

    def wait_succeeded(self, ids: Iterable[str], timeout: float = 40.0) -> dict[str, Record]:
        """Wait until every one of these is SUCCESS; returns the first records that said so."""
        missing = list(ids)
        done: dict[str, Record] = {}

        def all_done() -> bool:
            nonlocal missing
            found = self.records(missing)
            done.update({key: record for key, record in found.items() if record is not None and record.is_ready})
            missing = [key for key in missing if key not in done]
            states = {key: record.state if record else "nothing stored" for key, record in found.items()}
            sample = {key: states[key] for key in missing[:5]}
            assert not missing, f"{len(missing)} accepted task(s) have not ended: {sample}"
            return True

        eventually(all_done, timeout, interval=0.1)
        wrong = {key: record.state for key, record in done.items() if record.state != "SUCCESS"}
        assert not wrong, f"{len(wrong)} task(s) did not succeed: {dict(list(wrong.items())[:5])}"
        return done

    def assert_empty(self, timeout: float = 15.0) -> None:
        """Nothing is in the queue, held for a worker, or among the dead letters."""
        with closing(open_transport(self.broker.url)) as transport:

            def is_empty() -> bool:
                try:
                    size = transport.size(self.broker.queue)
                except OperationalError as exc:
                    raise AssertionError(f"the broker can't be asked: {exc}") from exc
                assert (size.ready, size.delayed, size.leased) == (0, 0, 0), f"the queue still holds {size}"
                self.broker.assert_nothing_held()
                return True

            eventually(is_empty, timeout, interval=0.2)
            dead = transport.dead_letters(10, self.broker.queue)
        assert not dead, f"there are dead letters: {[(letter.message.id, letter.reason) for letter in dead]}"

    def close(self) -> None:
        """Close the client's connections."""
        if self._app is not None:
            self._app.close()
