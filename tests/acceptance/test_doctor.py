"""`celeriac doctor` says what is wrong in plain words, changes nothing, and shows no password."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.doctor import Finding, Level, examine
from celeriac.message import Action, Settlement
from celeriac.results.memory import MemoryStore
from celeriac.transport.memory import MemoryTransport
from tests.support.command import SECRET, CommandLine
from tests.support.memcached_server import MemcachedServer
from tests.support.redis_server import RedisServer
from tests.support.server import free_port


@pytest.fixture
def celeriac(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celeriac]:
    url = f"sqlite:///{tmp_path / 'celeriac.db'}"
    with Celeriac("tasks", broker=url, backend=url, set_as_current=False) as app:
        yield app


def of(app: Celeriac, level: Level, topic: str = "") -> list[Finding]:
    """Findings of one level."""
    return [each for each in examine(app) if each.level is level and (not topic or each.topic == topic)]


def text(findings: list[Finding]) -> str:
    return "\n".join(f"{each.text} → {each.advice}" for each in findings)


# --- the command


def test_all_is_well(celeriac: CommandLine) -> None:
    done = celeriac("-A", "tasks", "doctor")
    assert (done.code, done.err) == (0, "")
    assert "took, gave and forgot a message" in done.out
    assert "kept and gave a result" in done.out
    assert "no failures, no warnings" in done.out
    assert {line.split()[0] for line in done.out.splitlines()[:-2]} == {"ok"}


def test_nothing_is_left_behind(celeriac: CommandLine) -> None:
    celeriac("-A", "tasks", "doctor")
    with sqlite3.connect(celeriac.folder / "celeriac.db") as connection:
        for table in ("celeriac_messages", "celeriac_dead_letters", "celeriac_bindings", "celery_taskmeta"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    connection.close()


def test_servers_that_are_down(celeriac: CommandLine) -> None:
    url = f"redis://:{SECRET}@127.0.0.1:{free_port()}/0"
    done = celeriac("-A", "tasks", "-b", url, "--result-backend", url, "doctor")
    assert done.code == 1
    failures = [line for line in done.out.splitlines() if line.startswith("fail")]
    assert [line.split()[1] for line in failures] == ["broker", "results"]
    assert "Is the broker running" in done.out
    assert "2 failures, no warnings" in done.out


def test_json(celeriac: CommandLine) -> None:
    done = celeriac("-A", "tasks", "doctor", "--json", "--", "broker_url=sqlite:////nowhere/at/all.db")
    assert done.code == 1
    said = json.loads(done.out)
    assert said["ok"] is False
    [first, *_] = [each for each in said["findings"] if each["level"] == "fail"]
    assert first["topic"] == "broker"
    assert "the directory /nowhere/at does not exist" in first["text"]
    assert "may this user write to it?" in first["advice"]


def test_quiet_says_only_what_is_wrong(celeriac: CommandLine) -> None:
    assert celeriac("-q", "-A", "tasks", "doctor").out == ""
    done = celeriac("-q", "-A", "tasks", "doctor", "--", "task_acks_late=false")
    assert done.code == 0
    assert done.out.startswith("warn  settings")


def test_settings_that_stop_every_program(celeriac: CommandLine) -> None:
    (celeriac.folder / "conf.py").write_text("task_acks_lat = True\n")
    done = celeriac("--config", "conf", "-A", "tasks", "doctor")
    assert done.code == 1
    assert "'task_acks_lat' is not a setting. Did you mean 'task_acks_late'?" in done.out


def test_old_and_misspelt_names_are_warnings(celeriac: CommandLine) -> None:
    (celeriac.folder / "conf.py").write_text("CELERY_TASK_SERIALIZER = 'json'\n")
    done = celeriac("--config", "conf", "-A", "tasks", "doctor", env={"CELERIAC_TASK_ACKS_LAT": "1"})
    assert (done.code, done.err) == (0, "")
    assert "CELERY_TASK_SERIALIZER is now task_serializer" in done.out
    assert "did you mean CELERIAC_TASK_ACKS_LATE?" in done.out


# --- settings


@pytest.mark.parametrize(
    ("settings", "level", "expected"),
    [
        ({"accept_content": ["json", "pickle"]}, Level.WARN, "can run any code in the workers"),
        ({"result_serializer": "pickle"}, Level.WARN, "can run any code in its readers"),
        ({"task_serializer": "yaml"}, Level.FAIL, "Add 'yaml' to accept_content"),
        ({"accept_content": ["jsn"]}, Level.FAIL, "unknown serializer or type 'jsn'"),
        ({"task_always_eager": True}, Level.WARN, "no message is sent"),
        ({"task_acks_late": False}, Level.WARN, "a task whose worker dies is lost"),
        ({"task_acks_late": False, "task_reject_on_worker_lost": True}, Level.WARN, "has no effect while"),
        ({"task_reject_on_worker_lost": False}, Level.OK, "fails instead of running again"),
        ({"task_lease": 1}, Level.WARN, "task_lease is 1 s"),
        ({"broker_transport_options": {"visibility_timeout": 10}}, Level.WARN, "is shorter than task_lease (30 s)"),
        ({"task_time_limit": 5, "task_soft_time_limit": 5}, Level.WARN, "it is never raised"),
        ({"result_expires": None}, Level.WARN, "kept for ever"),
        ({"redis_host": "here"}, Level.WARN, "redis_host is deprecated → Use result_backend."),
        ({"result_backend": "disabled://"}, Level.OK, "get() of a result is an error"),
    ],
)
def test_settings(settings: dict[str, Any], level: Level, expected: str) -> None:
    settings = {"result_backend": "memory://doctor", **settings}
    app = Celeriac("t", broker="memory://doctor", set_as_current=False, **settings)
    assert expected in text(of(app, level, "settings"))


def test_unknown_names_that_are_allowed() -> None:
    with pytest.warns(match="task_acks_lat"):
        app = Celeriac("t", broker="memory://", set_as_current=False, task_acks_lat=True, strict_settings=False)
        _ = app.conf
    assert "Did you mean 'task_acks_late'?" in text(of(app, Level.WARN, "settings"))


def test_tasks_that_are_acknowledged_early(app: Celeriac) -> None:
    @app.task(acks_late=False, name="tasks.early")
    def early() -> None:
        pass

    assert "acks_late is off for tasks.early" in text(of(app, Level.OK, "settings"))


# --- queues and dead letters


def test_a_queue_that_nobody_works_on(app: Celeriac) -> None:
    app.send_task("tasks.add", [1, 2])
    [finding] = of(app, Level.WARN)
    assert finding.text == "celery: 1 ready, 0 not yet due, 0 with workers"
    assert finding.advice == "Nobody takes them. Start a worker: celeriac -A tasks worker -Q celery"
    [delivery] = app.transport.fetch(["celery"], 1, 5, 60)
    assert of(app, Level.WARN) == []
    app.transport.settle([Settlement(delivery, Action.DEAD_LETTER, "it was bad")])
    [finding] = of(app, Level.WARN)
    assert finding.text == "1; the newest is tasks.add from celery: it was bad"
    assert finding.advice == "See them with: celeriac dead list"


# --- files


def test_a_file_that_everybody_can_write(app: Celeriac, tmp_path: Path) -> None:
    app.send_task("tasks.add")
    os.chmod(tmp_path / "celeriac.db", 0o666)
    assert "can be written by every user" in text(of(app, Level.WARN, "broker"))


def test_folders_and_two_that_are_not_joined(tmp_path: Path) -> None:
    folders = {"data_folder_in": f"{tmp_path}/in", "data_folder_out": f"{tmp_path}/in"}
    one = Celeriac("f", broker="filesystem://", backend=f"file://{tmp_path}/results", set_as_current=False)
    one.conf.broker_transport_options = folders
    assert of(one, Level.FAIL) == []
    assert "free on the disk" in text(of(one, Level.OK, "results"))


# --- what drivers tell


class TellingTransport(MemoryTransport):
    """A driver that tells of its server."""

    skew = 0.0
    lines: list[str] = []

    def server_time(self) -> float:
        return time.time() + self.skew

    def durability_report(self) -> list[str]:
        return self.lines


class BrokenStore(MemoryStore):
    """A driver with a bug."""

    def get(self, ids: Any) -> Any:
        raise KeyError("oops")


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> Celeriac:
    app = Celeriac("t", broker="memory://", backend="memory://", set_as_current=False)
    app.transport = TellingTransport(f"memory://{uuid.uuid4()}")
    return app


def test_a_server_and_its_clock(telling: Celeriac) -> None:
    assert "agree within 1 s" in text(of(telling, Level.OK, "clock"))
    assert "a crash loses nothing" in text(of(telling, Level.OK, "broker"))
    telling.transport.skew = -90.0  # type: ignore[attr-defined]
    telling.transport.lines = ["the disk is a rumour"]  # type: ignore[attr-defined]
    assert "clock is 90 s behind this machine's → ETAs and expiry are off" in text(of(telling, Level.WARN, "clock"))
    assert "durability: the disk is a rumour" in text(of(telling, Level.WARN, "broker"))


def test_each_of_several_brokers_has_to_work(tmp_path: Path) -> None:
    app = Celeriac("t", backend=None, set_as_current=False)
    app.conf.update(result_backend=None, broker_url=[f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/none/b.db"])
    assert f"{tmp_path}/a.db took, gave and forgot a message" in text(of(app, Level.OK, "broker"))
    assert f"{tmp_path}/none" in text(of(app, Level.FAIL, "broker"))


@pytest.mark.parametrize(("synchronous", "level"), [("full", Level.OK), ("normal", Level.WARN)])
def test_what_sqlite_may_lose(tmp_path: Path, synchronous: str, level: Level) -> None:
    url = f"sqlite:///{tmp_path}/a.db?synchronous={synchronous}"
    app = Celeriac("t", broker=url, backend=url, set_as_current=False)
    for topic in ("broker", "results"):
        assert "durability: " in text(of(app, level, topic))


def test_a_bug_of_one_driver_does_not_stop_the_rest(telling: Celeriac) -> None:
    telling.backend = BrokenStore("memory://")
    assert [each.text for each in of(telling, Level.FAIL)] == ["unexpected KeyError: 'oops'"]


def test_a_broker_in_memory_is_for_tests(telling: Celeriac) -> None:
    assert "nobody else can read it" in text(of(telling, Level.WARN, "broker"))


@pytest.mark.server("redis")
def test_redis_tells_what_it_may_lose(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", options=["--maxmemory-policy", "allkeys-lru"]) as server:
        app = Celeriac("r", broker=server.url(), backend=server.url(1), set_as_current=False)
        assert "maxmemory-policy is allkeys-lru" in text(of(app, Level.WARN, "broker"))
        assert of(app, Level.FAIL) == []
        assert len(of(app, Level.OK, "clock")) == 2
        app.close()


@pytest.mark.server("memcached")
def test_memcached_tells_what_it_may_lose(tmp_path: Path) -> None:
    with MemcachedServer(tmp_path / "memcached") as server:
        app = Celeriac("m", broker="memory://", backend=server.url, set_as_current=False)
        assert "a restart loses them" in text(of(app, Level.WARN, "results"))
        assert "the result store's clock and this machine's agree" in text(of(app, Level.OK, "clock"))
        app.close()
