"""What `celeriac doctor` says of settings alone; that it says it at all is tested with the command."""

from __future__ import annotations

import logging

import pytest

from celeriac import Celeriac
from celeriac.doctor_finding import Level
from celeriac.doctor_settings import examine_settings
from celeriac.runner.protocol import TaskFacts
from celeriac.task_limits import TaskLimits
from celeriac.worker.gate import open_gate
from tests.support.apps import memory_app

PLACE = (
    "are kept in sqlite:///limits.db, which other machines do not see, while they share the broker amqp://127.0.0.1:1"
)


def warnings(app: Celeriac) -> str:
    return "\n".join(f"{each.text} → {each.advice}" for each in examine_settings(app) if each.level is Level.WARN)


@pytest.mark.parametrize(
    ("broker", "settings", "is_warned"),
    [
        ("amqp://127.0.0.1:1", {"backend": "sqlite:///limits.db"}, True),
        ("amqp://127.0.0.1:1", {"backend": "redis://127.0.0.1:1"}, False),
        ("amqp://127.0.0.1:1", {"backend": "sqlite:///x.db", "coordination_url": "redis://127.0.0.1:1"}, False),
        ("sqlite:///limits.db", {"backend": "sqlite:///limits.db"}, False),
        ("redis://127.0.0.1:1", {"backend": "sqlite:///limits.db"}, False),
        ("amqp://127.0.0.1:1", {"backend": "disabled"}, False),
    ],
)
def test_limits_that_machines_do_not_share(broker: str, settings: dict[str, str], is_warned: bool) -> None:
    found = warnings(memory_app(broker=broker, **settings))
    assert (PLACE in found) is is_warned
    assert ("Set coordination_url" in found) is is_warned


def test_a_worker_with_such_limits_says_so(caplog: pytest.LogCaptureFixture) -> None:
    app = memory_app(broker="amqp://127.0.0.1:1", backend="sqlite:///limits.db")
    facts = {
        "one": TaskFacts(limits=TaskLimits(max_concurrency=1)),
        "two": TaskFacts(limits=TaskLimits(rate=1.0)),
        "three": TaskFacts(),
    }
    with caplog.at_level(logging.WARNING):
        open_gate(None, {name: facts[name] for name in ("two", "three")}, app.conf)  # type: ignore[arg-type]
        assert not caplog.messages, "a rate of each worker needs no place"
        open_gate(None, facts, app.conf)  # type: ignore[arg-type]
    [line] = caplog.messages
    assert PLACE in line
    assert line.endswith("set coordination_url. This concerns one")


def test_tracebacks_that_need_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    app = memory_app(task_remote_tracebacks=True)
    assert "tblib" not in warnings(app)
    monkeypatch.setattr("celeriac.doctor_settings.find_spec", lambda name: None)
    assert "pip install celeriac[tblib]" in warnings(app)
