"""Remote control of a worker: what it answers, what it does, and what it refuses."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from celeriac import Celeriac
from celeriac.commands import control_command, inspect_command
from celeriac.errors import DuplicateNodenameWarning, ImproperlyConfigured
from celeriac.message import ControlMessage
from celeriac.testing.worker import EmbeddedWorker, start_worker
from celeriac.wire.control import Command, encode_command
from celeriac.worker.presence import TOPIC
from tests.support.files import eventually

NODE = "w1@wire"
#: Long enough to be reached by a failing test only: each call ends with the answer of the one node.
ASK = {"timeout": 20.0, "limit": 1}
VECTORS = Path(__file__).parents[1] / "wire" / "vectors" / "control_redis"


@pytest.fixture
def app() -> Iterator[Celeriac]:
    url = f"memory://{uuid.uuid4().hex}"
    app = Celeriac("control", broker=url, backend=url, set_as_current=False)
    app.conf.task_default_queue = "celery"

    @app.task(name="wire.add", rate_limit="900/s", max_retries=3)
    def add(x: int, y: int) -> int:
        return x + y

    app.task(name="celery.builtin")(lambda: None)
    yield app
    app.close()


class Gate:
    """Tasks wait here until the test lets them go on."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()

    def wait(self) -> str:
        self.begun.set()
        assert self.open.wait(30)
        return "done"


@pytest.fixture
def gate(app: Celeriac) -> Iterator[Gate]:
    gate = Gate()

    @app.task(name="wire.wait")
    def wait(word: str = "") -> str:
        return gate.wait()

    yield gate
    gate.open.set()


@pytest.fixture
def worker(app: Celeriac, gate: Gate) -> Iterator[EmbeddedWorker]:
    with start_worker(app, pool="threads", node=NODE) as worker:
        listens(app)
        yield worker
        gate.open.set()


def listens(app: Celeriac) -> None:
    """Wait until the worker hears commands."""
    eventually(lambda: app.control.inspect(timeout=0.2, limit=1).ping(), 20)


def ask(app: Celeriac, command: str, **arguments: Any) -> Any:
    """What the worker answers."""
    [answer] = app.control.broadcast(command, arguments, reply=True, **ASK)
    return answer[NODE]


def recorded(name: str) -> tuple[str, dict[str, Any], Any]:
    """Command, arguments and the stock worker's answer of a recording."""
    found = json.loads((VECTORS / f"{name}.json").read_text())
    return found["command"], found["arguments"], found["client_saw"][0][NODE]


@pytest.mark.parametrize(
    "name",
    [
        "01_ping", "07_scheduled", "08_revoked", "11_registered", "12_active_queues", "18_rate_limit", "19_rate_limit",
        "21_rate_limit", "22_time_limit", "23_time_limit", "24_revoke", "26_revoke", "27_revoke_by_stamped_headers",
        "29_pool_grow", "31_pool_restart", "32_autoscale", "33_add_consumer", "34_cancel_consumer", "37_disable_events",
        "39_heartbeat", "40_no_such_command",
    ],
)  # fmt: skip
@pytest.mark.behaviour(
    "B-CONTROL-005", "B-CONTROL-018", "B-CONTROL-019", "B-CONTROL-021", "B-CONTROL-024", "B-CONTROL-025",
    "B-CONTROL-028", "B-CONTROL-029", "B-CONTROL-036",
)  # fmt: skip
def test_answers_are_those_of_a_stock_worker(app: Celeriac, worker: EmbeddedWorker, name: str) -> None:
    command, arguments, expected = recorded(name)
    answer = ask(app, command, **arguments)
    if command == "registered":
        expected = [each for each in expected if each == "wire.add"]
        answer = [each.partition(" ")[0] for each in answer if each.startswith("wire.add")]
    elif command == "scheduled":
        expected = []  # what is not due yet waits at the broker
    assert answer == expected


def test_forms_of_tasks_are_those_of_a_stock_worker(app: Celeriac, worker: EmbeddedWorker, gate: Gate) -> None:
    """[B-CONTROL-011] [B-CONTROL-013] [B-CONTROL-014] active, reserved and query_task."""
    assert app.send_task("wire.add", (1, 1)).get(timeout=20) == 2  # such short ones are fetched ahead
    running = app.send_task("wire.wait", ("now",))
    assert gate.begun.wait(20)
    waiting = app.send_task("wire.wait", ("later",), kwargs={})
    reserved = eventually(lambda: ask(app, "reserved"), 20)
    [info] = ask(app, "active")
    assert info.keys() == recorded("04_active")[2][0].keys()
    assert reserved[0].keys() == recorded("06_reserved")[2][0].keys()
    assert (info["id"], info["name"], info["type"], info["args"], info["kwargs"]) == (
        running.id, "wire.wait", "wire.wait", ["now"], {},
    )  # fmt: skip
    assert info["time_start"] > 0 and info["hostname"] == NODE and info["acknowledged"] is False
    assert ask(app, "active", safe=True)[0]["args"] == "('now',)"
    assert (reserved[0]["id"], reserved[0]["time_start"]) == (waiting.id, None)
    asked = ask(app, "query_task", ids=[running.id, waiting.id, "nope"])
    assert {task_id: state for task_id, (state, _) in asked.items()} == {running.id: "active", waiting.id: "reserved"}


def test_figures_have_the_keys_of_a_stock_worker(app: Celeriac, worker: EmbeddedWorker) -> None:
    """[B-CONTROL-015] [B-CONTROL-016] [B-CONTROL-017] stats, conf, report, clock, memory."""
    assert app.send_task("wire.add", (2, 3)).get(timeout=20) == 5
    stats = ask(app, "stats")
    expected = json.loads((VECTORS / "03_stats.json").read_text())["client_saw"][0][NODE]
    assert stats["total"] == {"wire.add": 1}
    assert expected.keys() <= stats.keys() and expected["pool"].keys() <= stats["pool"].keys()
    assert expected["broker"].keys() - {"credential_provider"} <= stats["broker"].keys()
    assert expected["rusage"].keys() <= stats["rusage"].keys()
    assert isinstance(stats["clock"], str) and int(stats["clock"]) < ask(app, "clock")["clock"]
    assert ask(app, "conf")["task_default_queue"] == "celery"
    assert "task_time_limit" not in ask(app, "conf") and "task_time_limit" in ask(app, "conf", with_defaults=True)
    assert "software -> celeriac" in ask(app, "report")["ok"]
    assert ask(app, "memsample").endswith("MB")
    assert len(ask(app, "memdump").splitlines()) == 2


def test_registered_shows_attributes(app: Celeriac, worker: EmbeddedWorker) -> None:
    """[B-CONTROL-009] [B-CONTROL-010]"""
    assert ask(app, "registered") == ["wire.add [rate_limit=900/s]", "wire.wait"]
    assert ask(app, "registered", taskinfoitems=["max_retries"])[0] == "wire.add [max_retries=3]"
    assert "celery.builtin" in ask(app, "registered", builtins=True)
    ask(app, "rate_limit", task_name="wire.add", rate_limit="10/m")
    assert ask(app, "registered")[0] == "wire.add [rate_limit=10/m]"
    assert (
        "Invalid rate limit string: ValueError"
        in ask(app, "rate_limit", task_name="wire.add", rate_limit="junk")["error"]
    )


def test_a_queue_is_added_and_taken_away(app: Celeriac, worker: EmbeddedWorker) -> None:
    """[B-CONTROL-019] [B-CONTROL-020]"""
    sent = app.send_task("wire.add", (1, 1), queue="extra")
    assert ask(app, "add_consumer", queue="extra") == {"ok": "add consumer extra"}
    assert sent.get(timeout=20) == 2
    assert [each["name"] for each in ask(app, "active_queues")] == ["celery", "extra"]
    assert "already consuming" in ask(app, "add_consumer", queue="extra")["ok"]
    ask(app, "cancel_consumer", queue="extra")
    assert [each["name"] for each in ask(app, "active_queues")] == ["celery"]
    app.send_task("wire.add", (1, 1), queue="extra")
    assert app.send_task("wire.add", (2, 2)).get(timeout=20) == 4
    assert app.transport.size("extra").ready == 1


def test_the_pool_grows_and_shrinks(app: Celeriac, worker: EmbeddedWorker) -> None:
    """[B-CONTROL-023]"""
    before = ask(app, "stats")["pool"]["max-concurrency"]
    assert ask(app, "pool_grow", n=1) == {"ok": "pool will grow"}
    assert ask(app, "stats")["pool"]["max-concurrency"] == 2 * before
    assert ask(app, "pool_shrink", n=1) == {"ok": "pool will shrink"}
    assert ask(app, "stats")["pool"]["max-concurrency"] == before
    assert "one has to stay" in ask(app, "pool_shrink", n=1)["error"]
    assert "n is a number from 1" in ask(app, "pool_grow", n=0)["error"]
    assert app.send_task("wire.add", (1, 1)).get(timeout=20) == 2


def test_the_pool_is_restarted_where_that_is_allowed(app: Celeriac, gate: Gate) -> None:
    """[B-CONTROL-024]"""
    app.conf.worker_pool_restarts = True
    with start_worker(app, pool="threads", node=NODE) as worker:
        listens(app)
        before = worker._supervisor.pool.processes[:]
        assert ask(app, "pool_restart") == {"ok": "reload started"}
        assert "signal HUP" in ask(app, "pool_restart", reload=True)["error"]
        assert app.send_task("wire.add", (1, 1)).get(timeout=20) == 2
        eventually(lambda: not any(each in worker._supervisor.pool.processes for each in before), 20)
        gate.open.set()


def test_a_worker_answers_while_its_task_blocks(app: Celeriac, gate: Gate) -> None:
    """[B-CONTROL-035] In Celery a solo worker answers when its task has ended."""
    with start_worker(app, pool="solo", node=NODE):
        listens(app)
        result = app.send_task("wire.wait")
        assert gate.begun.wait(20)
        assert ask(app, "ping") == {"ok": "pong"}
        assert "can't be terminated" in ask(app, "revoke", task_id=result.id, terminate=True)["error"]
        gate.open.set()
        assert result.get(timeout=20) == "done"


def test_time_limits_hold_from_now_on(app: Celeriac, worker: EmbeddedWorker) -> None:
    [answer] = app.control.time_limit("wire.add", soft=5, hard=10, reply=True, **ASK)
    assert answer == {NODE: {"ok": "time limits set successfully"}}
    facts = worker._supervisor.hello.tasks["wire.add"]
    assert (facts.soft_time_limit, facts.time_limit) == (5, 10)
    assert "above 0" in ask(app, "time_limit", task_name="wire.add", soft=-1)["error"]


def test_shutdown_ends_a_worker_warmly(app: Celeriac, gate: Gate) -> None:
    """[B-CONTROL-026] [B-CONTROL-001]"""
    with start_worker(app, pool="threads", node=NODE) as worker:
        listens(app)
        result = app.send_task("wire.wait")
        assert gate.begun.wait(20)
        assert app.control.shutdown() is None
        gate.open.set()
        assert result.get(timeout=20) == "done"
        worker._thread.join(20)
        assert not worker._thread.is_alive()


# addressing


def test_commands_are_for_those_they_name(app: Celeriac, worker: EmbeddedWorker) -> None:
    """[B-CONTROL-003] [B-CONTROL-004] [B-CONTROL-006] [B-CONTROL-007]"""
    control = app.control
    assert control.ping(destination=[NODE], timeout=20) == [{NODE: {"ok": "pong"}}]
    assert control.ping(destination=["nobody@wire"], timeout=0.2) == []
    assert control.inspect(destination=["nobody@wire"], timeout=0.2).ping() is None
    assert control.inspect(NODE, timeout=20).ping() == {"ok": "pong"}
    assert control.inspect([NODE], timeout=20).ping() == {NODE: {"ok": "pong"}}
    for pattern, matcher in (("w*@*", "glob"), ("w.@.*", "pcre")):
        assert control.inspect(pattern=pattern, matcher=matcher, **ASK).ping() == {NODE: {"ok": "pong"}}
    assert control.inspect(pattern="x*", timeout=0.2).ping() is None
    with pytest.raises(ImproperlyConfigured, match="'glob' or 'pcre', not 'regexp'"):
        control.ping(pattern="x", matcher="regexp")
    heard: list[Any] = []
    control.ping(callback=heard.append, **ASK)
    assert heard == [{NODE: {"ok": "pong"}}]


def test_two_nodes_of_one_name_are_noticed(app: Celeriac, worker: EmbeddedWorker) -> None:
    """[B-CONTROL-008]"""
    with start_worker(app, pool="threads", node=NODE):
        eventually(lambda: len(app.control.ping(timeout=0.3)) == 2, 20)
        with pytest.warns(DuplicateNodenameWarning, match=NODE):
            app.control.inspect(timeout=20, limit=2).ping()


@pytest.mark.parametrize("payload", [b"{", b"[1]", b'{"node": 7}', b"\xff", b"[" * 100_000])
def test_what_is_no_word_between_nodes_is_passed_over(app: Celeriac, worker: EmbeddedWorker, payload: bytes) -> None:
    """They go on listening to each other."""
    app.transport.broadcast(TOPIC, payload)
    subscription = app.transport.subscribe([TOPIC])
    hello = {"word": "hello", "node": NODE, "instance": "another", "pid": 1}
    app.transport.broadcast(TOPIC, msgspec.json.encode(hello))
    words: list[Any] = []

    def is_answered() -> bool:
        words.extend(msgspec.json.decode(found)["word"] for _, found in subscription.poll(0.5))
        return "here" in words

    eventually(is_answered, 20)
    subscription.close()


def test_remote_control_can_be_switched_off(app: Celeriac, gate: Gate) -> None:
    """[B-CONTROL-033]"""
    app.conf.worker_enable_remote_control = False
    with start_worker(app, pool="threads", node=NODE):
        assert app.send_task("wire.add", (2, 3)).get(timeout=20) == 5
        assert app.control.ping(timeout=0.3) == []
    gate.open.set()


# what can't be trusted


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"{", "application/json", "can't decode"),
        (b"[1]", "application/json", "an object, not list"),
        (b"{}", "application/json", "without method"),
        (b'{"method": 7}', "application/json", "without method"),
        (b'{"method": "ping", "arguments": [1]}', "application/json", "arguments of"),
        (b'{"method": "ping", "destination": "w1@wire"}', "application/json", "destination of"),
        (b"\x80\x04.", "application/x-python-serialize", "pickle is not opened"),
        (b"method: ping", "application/x-yaml", "not accepted"),
        (b'{"method": "ping", "arguments": {"a": ' + b"[" * 100_000, "application/json", "can't decode"),
        (
            b'{"method": "ping", "reply_to": {"exchange": "elsewhere", "routing_key": "k"}}',
            "application/json",
            "wants its answer at 'elsewhere'",
        ),
    ],
)
def test_malformed_messages_are_dropped_with_one_line(
    app: Celeriac, worker: EmbeddedWorker, caplog: pytest.LogCaptureFixture, body: bytes, content_type: str, reason: str
) -> None:
    with caplog.at_level(logging.ERROR, "celeriac.worker.control"):
        app.transport.post(ControlMessage(body=body, content_type=content_type), "celery.pidbox")
        assert ask(app, "ping") == {"ok": "pong"}
    [line] = [record.getMessage() for record in caplog.records if record.name == "celeriac.worker.control"]
    assert reason in line and "\n" not in line and "dropped" in line


def test_bad_arguments_are_an_answer_not_a_crash(app: Celeriac, worker: EmbeddedWorker) -> None:
    for command, arguments in (
        ("rate_limit", {}),
        ("revoke", {"task_id": {"a": 1}}),
        ("revoke", {"task_id": "x", "terminate": True, "signal": "SIGNOTHING"}),
        ("revoke_by_stamped_headers", {"headers": 7}),
        ("pool_grow", {"n": "many"}),
        ("query_task", {"ids": 7}),
        ("time_limit", {"task_name": "wire.add", "hard": "soon"}),
    ):
        assert "error" in ask(app, command, **arguments), command
    assert ask(app, "ping") == {"ok": "pong"}


# commands of the user's own


def test_own_commands_are_carried_out(app: Celeriac, worker: EmbeddedWorker) -> None:
    """[B-CONTROL-032]"""
    name = f"own_{uuid.uuid4().hex}"

    @control_command(name=name, args=[("n", int)], signature="[N=1]")
    def increase(state: Any, n: int = 1) -> Any:
        return {"ok": f"{state.hostname} of {state.app.main} by {n}"}

    @inspect_command(name=f"{name}_fails")
    def fails(state: Any) -> Any:
        raise LookupError("no")

    assert ask(app, name, n=3) == {"ok": f"{NODE} of control by 3"}
    assert ask(app, f"{name}_fails") == {"error": "LookupError('no')"}


def test_a_clock_goes_beyond_what_it_hears(app: Celeriac, worker: EmbeddedWorker) -> None:
    app.transport.post(encode_command(Command(method="ping", clock=5000)), "celery.pidbox")
    assert ask(app, "clock")["clock"] > 5000
    assert app.control.clock.value > 5000


def test_purge_counts_what_it_deletes(app: Celeriac) -> None:
    """[B-CONTROL-030]"""
    for _ in range(3):
        app.send_task("wire.add", (1, 1))
    assert app.control.purge() == 3
    assert app.control.discard_all() == 0


@pytest.mark.behaviour("B-RESULT-019")
def test_revoking_can_wait_until_the_workers_have_heard_of_it(app: Celeriac, worker: EmbeddedWorker) -> None:
    task_id = uuid.uuid4().hex
    app.AsyncResult(task_id).revoke(wait=True, timeout=20)
    assert task_id in worker._supervisor.control.revocations.ids(), "looked up without asking: it has been heard by now"
    app.AsyncResult(task_id).revoke_by_stamped_headers({"customer": ["c1"]}, wait=True, timeout=20)


def test_what_waits_for_its_turn_is_reserved(app: Celeriac, gate: Gate) -> None:
    @app.task(name="wire.alone", max_concurrency_per_worker=1)
    def alone() -> str:
        return gate.wait()

    with start_worker(app, pool="threads", concurrency=4, node=NODE):
        listens(app)
        runs = alone.delay()
        assert gate.begun.wait(20)
        waits = [alone.delay().id for _ in range(2)]
        eventually(lambda: sorted(info["id"] for info in ask(app, "reserved")) == sorted(waits), 20)
        assert [info["id"] for info in ask(app, "active")] == [runs.id]
        assert {state for state, _ in ask(app, "query_task", ids=waits).values()} == {"reserved"}
        gate.open.set()
