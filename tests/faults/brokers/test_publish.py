"""`delay()` while the broker is frozen, refuses or swallows everything: an error in time that names the URL, and no leak.

Each broker is met by three client processes at once: one connected to the server itself, which is frozen, one whose network
refuses connections, and one whose network accepts them and forwards nothing. Each sends from 50 threads at the same moment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from tests.faults.apps_brokers.kinds import Broker
from tests.support.proxy import FaultProxy

pytestmark = [pytest.mark.faults, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]
#: Promised tolerance of `publish_timeout`, and what a loaded machine may add, in seconds.
TOLERANCE, LOAD = 1.1, 0.5


class Client:
    """The process in apps_brokers/publishing.py."""

    def __init__(self, url: str, publish_timeout: float, **settings: Any) -> None:
        given = {"broker_url": url, "result_backend": None, "publish_timeout": publish_timeout, **settings}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.apps_brokers.publishing", json.dumps(given)], cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def told(self) -> dict[str, Any]:
        """What it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the client has ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def go_on(self) -> None:
        """Let it begin its next round."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


def assert_sent(told: dict[str, Any], when: str) -> None:
    """All calls of a round have succeeded."""
    errors = [error for _, error in told["outcomes"] if error]
    assert not errors, f"{len(errors)} of 50 calls failed {when}: {errors[0]}"


def assert_refused(told: dict[str, Any], port: int, what: str, publish_timeout: float) -> float:
    """All calls of a round have raised in time, and say where; returns the longest time."""
    passed = [seconds for seconds, error in told["outcomes"] if not error]
    assert not passed, f"{len(passed)} of 50 calls returned although the broker is {what}"
    errors = {error for _, error in told["outcomes"]}
    wrong = [error for error in errors if f"127.0.0.1:{port}" not in error or "secret" in error or "WRONG" in error]
    assert not wrong, f"{what}: the error should name the URL without its password: {wrong[0]}"
    longest = max(seconds for seconds, _ in told["outcomes"])
    limit = publish_timeout * TOLERANCE + LOAD
    assert longest < limit, f"{what}: delay() took {longest:.2f} s, publish_timeout is {publish_timeout} s"
    return float(longest)


@pytest.mark.parametrize("publish_timeout", [5.0, 1.0])
def test_delay_raises_in_time_and_leaks_nothing(
    broker: Broker, publish_timeout: float, figure: Callable[[str], None]
) -> None:
    """[B-CALL-032] differs on purpose: no pool runs out of connections, and `publish_timeout` bounds every wait of a call."""
    port = broker.server.port
    with FaultProxy(port) as refusing, FaultProxy(port) as deaf, ExitStack() as stack:
        places = {"frozen": port, "refusing": refusing.port, "deaf": deaf.port}
        clients, before = {}, {}
        for what, at in places.items():  # one after the other: 150 calls at once would be a test of the machine
            client = stack.enter_context(Client(broker.url if at == port else broker.url_at(at), publish_timeout))
            clients[what], before[what] = (client, at), client.told()
            assert_sent(before[what], "in peace")

        refusing.refuse()
        deaf.deaf()
        broker.server.freeze()
        for client, _ in clients.values():
            client.go_on()
        longest = {
            what: assert_refused(client.told(), at, what, publish_timeout) for what, (client, at) in clients.items()
        }

        broker.server.thaw()
        refusing.heal()
        deaf.heal()
        for what, (client, _) in clients.items():
            client.go_on()
            after = client.told()
            assert_sent(after, f"after the heal, when the broker had been {what}")
            for resource in ("threads", "files"):
                was, now = before[what][resource], after[resource]
                assert now <= was, f"{what}: {now} {resource} after the heal, {was} before"
    times = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in longest.items())
    figure(
        f"{broker.kind.name}, publish_timeout {publish_timeout:g} s: delay() from 50 threads raises after at most: {times}"
    )
