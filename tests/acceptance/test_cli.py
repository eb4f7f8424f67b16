"""The command line as people use it: each command as a subprocess, on a small app and a SQLite file."""

from __future__ import annotations

import json
import os
import pickle
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.message import Action, Message, Settlement
from celeriac.results.base import Record
from tests.support.command import SECRET, CommandLine, environment
from tests.support.worker import WorkerProcess


@pytest.fixture
def celeriac(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def app(tmp_path: Path) -> Celeriac:
    url = f"sqlite:///{tmp_path / 'celeriac.db'}"
    return Celeriac("tasks", broker=url, backend=url, set_as_current=False)


def bury(app: Celeriac, *, task: str = "tasks.add", reason: str = "it was bad", **changes: object) -> str:
    """Put a message among the dead letters; returns its task's id."""
    result = app.send_task(task, [2, 3])
    delivery = app.transport.fetch(["celery"], 1, 5, 30)[0]
    if changes:
        facts = {name: getattr(delivery.message, name) for name in Message.__struct_fields__}
        app.transport.settle([Settlement(delivery)])
        app.transport.publish([Message(**{**facts, **changes})])  # type: ignore[arg-type]
        delivery = app.transport.fetch(["celery"], 1, 5, 30)[0]
    app.transport.settle([Settlement(delivery, Action.DEAD_LETTER, reason)])
    return str(result.id)


# the group


def test_without_a_command_it_lists_them(celeriac: CommandLine) -> None:
    done = celeriac()
    assert done.code == 0
    for name in ("worker", "call", "result", "purge", "list", "report", "dead", "demo", "--app", "--workdir"):
        assert name in done.out


def test_version(celeriac: CommandLine) -> None:
    done = celeriac("--version")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("celeriac ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["wroker"], "No such command 'wroker'. Did you mean 'worker'?"),
        (["dead", "lst"], "No such command 'lst'. Did you mean 'list'?"),
        (["worker", "--concurency", "2"], "Did you mean '--concurrency'?"),
        (["worker", "-A", "tasks"], "-A is a global option and goes before the command: celeriac -A … worker"),
        (["worker"], "Which app? A worker needs one: celeriac -A module worker."),
        (["call", "tasks.add"], "Which app? Name it with -A module, or the broker alone with -b URL."),
        (["-A", "nope", "call", "x"], "App 'nope' not found: there is no module 'nope'"),
        (["-A", "nope", "worker"], "App 'nope' not found: there is no module 'nope'"),
        (["-A", "tasks:ap", "worker"], "'tasks' has no attribute 'ap'. Did you mean 'app'?"),
        (["-A", "json", "call", "x"], "App 'json' not found: tried json.app"),
        (["--loader", "mine:Loader", "-A", "tasks", "worker"], "celeriac has no loader classes"),
        (["--workdir", "nowhere", "-A", "tasks", "worker"], "Directory 'nowhere' does not exist"),
        (["-A", "tasks", "call", "x", "-a", "[1,"], "'[1,' is not JSON"),
        (["-A", "tasks", "call", "x", "-a", '{"x": 1}'], "is not a JSON list"),
        (["-A", "tasks", "call", "x", "-k", "[1]"], "is not a JSON object"),
        (["-A", "tasks", "call", "x", "--eta", "soon"], "'soon' is not ISO 8601"),
        (["-A", "tasks", "call", "x", "--expires", "soon"], "'soon' is not seconds|ISO 8601"),
        (["-A", "tasks", "call", "x", "--countdown", "soon"], "'soon' is not a valid float"),
        (["-A", "tasks", "dead", "retry"], "Name the keys"),
        (["-A", "tasks", "dead", "discard", "1", "--all"], "Name the keys"),
        (["-A", "tasks", "purge", "-X", "celery"], "No queue is left"),
        (["-A", "tasks", "purge", "--", "task_serialiser=json"], "Did you mean 'task_serializer'?"),
        (["-A", "tasks", "worker", "-c", "-2"], "'-2' is neither a number of at least 1 nor 'auto'"),
        (["-A", "tasks", "worker", "-c", "many"], "'many' is neither a number of at least 1 nor 'auto'"),
        (["-A", "tasks", "worker", "-P", "thread"], "Did you mean 'threads'?"),
        (
            ["-A", "tasks", "worker", "-P", "greenlets"],
            "'greenlets' is not one of prefork, threads, asyncio, gevent, eventlet, solo",
        ),
        (["-A", "tasks", "worker", "-l", "LOUD"], "log level must be one of"),
        (["-A", "tasks", "worker", "--time-limit", "-1"], "-1.0 is not in the range"),
        (["-A", "tasks", "worker", "--umask", "9"], "--umask is an octal number"),
        (["-A", "tasks", "worker", "worker_concurency=2"], "Did you mean 'worker_concurrency'?"),
        (["-A", "tasks", "worker", "--", "worker_concurrency"], "is not of the form setting=value"),
        (["-A", "tasks", "worker", "--", "worker_concurrency=none at all"], "worker_concurrency must be"),
    ],
)
def test_a_wrong_use_is_explained_with_code_2(celeriac: CommandLine, arguments: list[str], expected: str) -> None:
    done = celeriac(*arguments)
    assert (done.code, done.out) == (2, "")
    assert expected in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-b", f"redis9://user:{SECRET}@host/0", "call", "x"], "redis9://user:**@host/0"),
        (["-A", "tasks", "-b", f"redis9://user:{SECRET}@host/0", "worker"], "redis9://user:**@host/0"),
        (["-b", "nonsense", "call", "x"], "'nonsense' is not a broker URL"),
        (["-b", "sqlite:////no/such/folder/t.db", "call", "x"], "Can't open /no/such/folder/t.db"),
        (
            [
                "-A",
                "tasks",
                "-b",
                "sqlite:////no/such/folder/t.db",
                "worker",
                "broker_connection_retry_on_startup=false",
            ],
            "Can't open /no/such/folder/t.db",
        ),
        (["-A", "tasks", "call", "x", "--serializer", "jsn"], "Did you mean 'json'?"),
        (["-A", "tasks", "--result-backend", "nope://", "result", "x"], "No result backend driver for 'nope'"),
        (["-A", "tasks", "dead", "show", "7"], "There is no dead letter '7'"),
        (["-A", "tasks", "dead", "retry", "7", "8"], "There is no dead letter '7', '8'"),
        (["-A", "tasks", "result", "nobody-knows"], "Task nobody-knows is unknown"),
        (["-A", "tasks", "worker", "--uid", "no-such-user"], "There is no user 'no-such-user'"),
        (["-A", "tasks", "worker", "-P", "solo", "--time-limit", "3"], "can't apply a hard time limit (3.0 s)"),
        (["-A", "tasks", "worker", "-f", "no/such/folder/log"], "log file 'no/such/folder/log' can't be written"),
        (["-A", "tasks", "worker", "-Q", "a", "--", "task_create_missing_queues=false"], "queue 'a' is not in"),
    ],
)
def test_a_failure_is_one_line_with_code_1(celeriac: CommandLine, arguments: list[str], expected: str) -> None:
    done = celeriac(*arguments)
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert last.startswith("Error: ")
    assert expected in last


@pytest.mark.parametrize("command", [["call", "x"], ["worker"], ["worker", "-P", "solo"]])
def test_errors_of_the_users_module_show_their_traceback(celeriac: CommandLine, command: list[str]) -> None:
    (celeriac.folder / "broken.py").write_text("def helper():\n    return 1 / 0\nhelper()\n")
    done = celeriac("-A", "broken", *command, is_users_error=True)
    assert done.code == 1
    assert "ZeroDivisionError" in done.err
    assert "broken.py" in done.err
    assert done.err.splitlines()[-1].startswith("Error: importing 'broken' failed: ZeroDivisionError")


@pytest.mark.parametrize("command", [["call", "x"], ["worker"]])
def test_an_unknown_setting_of_the_app_is_named(celeriac: CommandLine, command: list[str]) -> None:
    (celeriac.folder / "misspelt.py").write_text(
        "from celeriac import Celeriac\napp = Celeriac('misspelt', task_serialiser='json')\n"
    )
    done = celeriac("-A", "misspelt", *command)
    assert done.code == 1
    assert "Did you mean 'task_serializer'?" in done.err


def test_options_come_from_the_environment(celeriac: CommandLine) -> None:
    sent = {"CELERY_APP": "tasks", "CELERY_CALL_QUEUE": "from-celery", "CELERIAC_CALL_ARGS": "[1, 2]"}
    assert celeriac("call", "tasks.add", env=sent).code == 0
    both = {"CELERIAC_APP": "tasks", "APP": "nope", "CELERIAC_LIST_QUEUES_QUEUES": "from-celery,other"}
    lines = celeriac("list", "queues", env=both).out.splitlines()
    assert [line.split() for line in lines[1:]] == [["from-celery", "1", "0", "0"], ["other", "0", "0", "0"]]


def test_config_and_workdir(celeriac: CommandLine) -> None:
    inner = celeriac.folder / "inner"
    inner.mkdir()
    (inner / "conf.py").write_text("broker_url = 'sqlite:///other.db'\ntask_default_queue = 'mine'\n")
    done = celeriac("--workdir", "inner", "--config", "conf", "call", "x")
    assert done.code == 0, done.err
    assert (inner / "other.db").exists()
    assert "mine" in celeriac("--workdir", "inner", "--config", "conf", "list", "queues").out


# call, result, purge, list, report


def test_call_prints_the_id_and_sends_what_it_was_told(celeriac: CommandLine, app: Celeriac) -> None:
    done = celeriac(
        "-A", "tasks", "call", "tasks.add", "-a", "[2, 3]", "-k", '{"z": "é"}', "--queue", "q", "--countdown", "60",
        "--expires", "3600",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert app.transport.size("q").delayed == 1
    celeriac(
        "-A", "tasks", "call", "tasks.add", "-a", "[2, 3]", "-k", '{"z": "é"}', "--eta", "2001-01-01T00:00:00+00:00"
    )
    message = app.transport.fetch(["celery"], 1, 5, 30)[0].message
    assert message.task == "tasks.add"
    assert json.loads(message.body)[:2] == [[2, 3], {"z": "é"}]


def test_result_prints_value_failure_and_traceback(celeriac: CommandLine, app: Celeriac) -> None:
    worker = WorkerProcess("tasks", "-c", "1", cwd=celeriac.folder)
    with worker:
        ids = [celeriac("-A", "tasks", "call", *call).out.strip() for call in (
            ["tasks.add", "-a", "[2, 3]"], ["tasks.add", "-a", '["a", "b"]'], ["tasks.fail", "-a", '["boom"]'],
        )]  # fmt: skip
        assert celeriac("-A", "tasks", "result", ids[0]).out == "5\n"
        assert celeriac("-A", "tasks", "result", "-t", "tasks.add", ids[1]).out == "ab\n"
        failed = celeriac("-A", "tasks", "result", ids[2])
        assert (failed.code, failed.err) == (1, f"Error: Task {ids[2]} ended as FAILURE: ValueError: boom\n")
        trace = celeriac("-A", "tasks", "result", ids[2], "--traceback", is_users_error=True)
        assert (trace.code, trace.out.splitlines()[-1]) == (0, "ValueError: boom")
        assert celeriac("-A", "tasks", "result", ids[0], "--traceback").out == "None\n"
        assert worker.stop() == 0


def test_result_waits_no_longer_than_it_is_told(celeriac: CommandLine) -> None:
    task_id = celeriac("-A", "tasks", "call", "tasks.add").out.strip()
    done = celeriac("-A", "tasks", "result", task_id, "--timeout", "0.1")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"Error: Task {task_id} has no result after 0.1 s; its state is PENDING.\n"


def test_result_of_a_dead_letter_says_so(celeriac: CommandLine, app: Celeriac) -> None:
    task_id = bury(app, reason="nobody liked it")
    done = celeriac("-A", "tasks", "result", task_id)
    assert done.code == 1
    assert "dead letter (nobody liked it)" in done.err


def test_result_without_a_store_is_refused(celeriac: CommandLine) -> None:
    done = celeriac("-A", "tasks", "--result-backend", "disabled://", "result", "x")
    assert done.code == 2
    assert "keeps no results" in done.err


def test_result_follows_the_progress_of_a_task(celeriac: CommandLine, app: Celeriac) -> None:
    result = app.send_task("tasks.step_by_step")
    with WorkerProcess("tasks", "-c", "1", cwd=celeriac.folder) as worker:
        seen = []

        def tell(meta: dict[str, Any]) -> None:
            seen.append(meta["status"])
            if meta["status"] == "PROGRESS":
                (celeriac.folder / f"go-on-{meta['result']['current']}").touch()

        follow = [sys.executable, "-m", "celeriac", "-A", "tasks", "result", "--follow", "--json", str(result.id)]
        with WorkerProcess(command=follow, cwd=celeriac.folder) as command:
            command.wait_output(r"PROGRESS  pages|25%")
            assert result.get(timeout=20, on_message=tell) == {"pages": 4}
            command.wait_output(r'{"pages": 4}')
        assert "100%" in command.output, worker.output
        assert "1/4  PROGRESS  pages" in command.output
    assert seen == ["PROGRESS", "PROGRESS", "PROGRESS", "SUCCESS"]


def test_a_workflow_is_shown_as_a_tree(celeriac: CommandLine, app: Celeriac) -> None:
    error = b'{"exc_type": "ValueError", "exc_message": ["no such address"], "exc_module": "builtins"}'
    done = "2024-01-01T00:00:01.250000+00:00"
    members = [[[f"m{number}", None], None] for number in range(30)]
    app.backend.store([  # type: ignore[union-attr]
        Record(id="a", state="SUCCESS", result=b"1", name="order", date_done=done, children=[[["b", None], None]]),
        Record(id="b", state="SUCCESS", result=b"1", parent_id="a", children=[[["g", None], members], [["c", None], None]]),
        Record(id="m1", state="FAILURE", result=error, name="mail", parent_id="b", date_done="2024-01-01T00:00:02+00:00"),
    ])  # fmt: skip
    shown = celeriac("-A", "tasks", "workflow", "show", "m1", "-n", "2", env={"TZ": "UTC"})
    assert shown.code == 0
    assert shown.out.splitlines() == [
        "order a  SUCCESS  2024-01-01 00:00:01.250",
        "↓ b  SUCCESS",
        "├─ group g  30 tasks: 29 PENDING, 1 FAILURE",
        "│  ├─ mail m1  FAILURE  2024-01-01 00:00:02.000  ValueError: no such address  ◀",
        "│  └─ 29 tasks  PENDING",
        "└─ c  PENDING",
        "33 tasks: 30 PENDING, 2 SUCCESS, 1 FAILURE; 0.750 s from the first end to the last",
    ]
    data = json.loads(celeriac("-A", "tasks", "workflow", "show", "a", "--json").out)
    assert (data["root"], data["states"]) == ("a", {"SUCCESS": 2, "PENDING": 30, "FAILURE": 1})
    assert data["tasks"][0]["children"] == ["b"]
    dot = celeriac("-A", "tasks", "workflow", "show", "a", "--dot").out
    assert '"order a" -> "task b";' in dot
    assert dot.count("->") == 33


def test_members_of_a_large_group_that_are_alike_share_a_line(celeriac: CommandLine, app: Celeriac) -> None:
    error = b'{"exc_type": "ValueError", "exc_message": ["bad %d"], "exc_module": "builtins"}'
    done = "2024-01-01T00:00:%02d.000000+00:00"
    ids = [f"m{number}" for number in range(1000)]
    app.backend.store([  # type: ignore[union-attr]
        Record(
            id=name, name="work", date_done=done % (number % 60), state="FAILURE" if number % 100 < 2 else "SUCCESS",
            result=error % (number % 100) if number % 100 < 2 else b"1", children=[[["b", None], None]] if number == 7 else [],
        ) for number, name in enumerate(ids)
    ])  # fmt: skip
    app.GroupResult("g", [app.AsyncResult(name) for name in ids]).save()
    shown = celeriac("-A", "tasks", "workflow", "show", "g", env={"TZ": "UTC"})
    assert shown.out.splitlines() == [
        "group g  1001 tasks: 980 SUCCESS, 20 FAILURE, 1 PENDING",
        "├─ 10 × work  FAILURE  2024-01-01 00:00:00.000 … 00:00:40.000  ValueError: bad 0  such as m0",
        "├─ 10 × work  FAILURE  2024-01-01 00:00:01.000 … 00:00:41.000  ValueError: bad 1  such as m1",
        "├─ work m7  SUCCESS  2024-01-01 00:00:07.000",
        "│  ↓ b  PENDING",
        "└─ 979 × work  SUCCESS  2024-01-01 00:00:00.000 … 00:00:59.000",
        "1001 tasks: 980 SUCCESS, 20 FAILURE, 1 PENDING; 59.000 s from the first end to the last",
    ]
    few = celeriac("-A", "tasks", "workflow", "show", "g", "-n", "1", env={"TZ": "UTC"}).out.splitlines()
    assert few[2] == "└─ … 990 more: 980 SUCCESS, 10 FAILURE"


def test_a_chord_that_runs_is_shown_with_its_whole_header(celeriac: CommandLine, app: Celeriac) -> None:
    app.backend.store(
        [  # type: ignore[union-attr]
            Record(id="p1", state="SUCCESS", result=b"1", group_id="g"),
            Record(id="body", state="STARTED", result=b"1", parent_id="p1", group_id="g"),
        ]
    )
    app.GroupResult("g", [app.AsyncResult(name) for name in ("p0", "p1")]).save()
    for asked in ("p1", "body"):
        shown = celeriac("-A", "tasks", "workflow", "show", asked).out.splitlines()
        assert [line.removesuffix("  ◀") for line in shown][:3] == [
            "group g  2 tasks: 1 PENDING, 1 SUCCESS", "├─ p0  PENDING", "└─ p1  SUCCESS",
        ]  # fmt: skip
    assert shown[3] == "↓ body  STARTED  ◀"


def test_a_workflow_of_which_nothing_is_stored_is_refused(celeriac: CommandLine) -> None:
    done = celeriac("-A", "tasks", "workflow", "show", "nobody-knows")
    assert done.code == 1
    assert "Nothing is stored under nobody-knows" in done.err


def test_purge_asks_and_counts(celeriac: CommandLine, app: Celeriac) -> None:
    for queue in ("celery", "celery", "other"):
        app.send_task("tasks.add", [1, 2], queue=queue)
    refused = celeriac("-A", "tasks", "purge", stdin="n\n")
    assert refused.code == 1
    assert "Delete all 2 waiting messages of celery?" in refused.out
    assert app.transport.size("celery").ready == 2
    agreed = celeriac("-A", "tasks", "purge", stdin="y\n")
    assert agreed.code == 0
    assert agreed.out.endswith("2 messages purged from celery.\n")
    assert (
        celeriac("-A", "tasks", "purge", "-f", "-Q", "celery,other", "-X", "celery").out
        == "1 message purged from other.\n"
    )
    assert celeriac("-A", "tasks", "purge", "-f").out == "No messages purged from celery.\n"


def test_list_shows_bindings_and_sizes(celeriac: CommandLine, app: Celeriac) -> None:
    (celeriac.folder / "routed.py").write_text(
        "from celeriac import Celeriac, Exchange, Queue\n"
        "app = Celeriac('routed', task_queues=[Queue('mail', Exchange('post', 'topic'), 'mail.#')])\n"
    )
    lines = celeriac("-A", "routed", "list", "bindings").out.splitlines()
    assert [line.split() for line in lines] == [
        ["queue", "exchange", "type", "routing", "key"], ["mail", "post", "topic", "mail.#"],
    ]  # fmt: skip
    for _ in range(3):
        app.send_task("tasks.add", [1, 2])
    app.send_task("tasks.add", [1, 2], countdown=60)
    app.transport.fetch(["celery"], 1, 5, 30)
    lines = celeriac("-A", "tasks", "list", "queues").out.splitlines()
    assert [line.split() for line in lines] == [["queue", "ready", "delayed", "leased"], ["celery", "2", "1", "1"]]


def test_report_masks_secrets(celeriac: CommandLine) -> None:
    url = f"sqlite:////tmp/x.db?password={SECRET}"
    done = celeriac("-A", "tasks", "-b", url, "report", "--", f"security_key_password={SECRET}", "worker_concurrency=3")
    assert done.code == 0, done.err
    for text in ("celeriac ", "python ", "msgspec ", "tasks", "worker_concurrency: 3", "password=**"):
        assert text in done.out


# dead letters


def test_dead_letters_are_listed_shown_sent_again_and_deleted(celeriac: CommandLine, app: Celeriac) -> None:
    assert celeriac("-A", "tasks", "dead", "list").out == "There are no dead letters.\n"
    first, second, third = (bury(app, reason=f"reason {number}") for number in range(3))
    lines = [line.split() for line in celeriac("-A", "tasks", "dead", "list").out.splitlines()]
    assert lines[0] == ["key", "task", "id", "queue", "age", "reason"]
    assert [line[2] for line in lines[1:]] == [third, second, first]
    shown = celeriac("-A", "tasks", "dead", "show", lines[1][0]).out
    for text in ("reason 2", third, "tasks.add", "args: [2, 3]", "kwargs: {}", "deliveries", "origin: "):
        assert text in shown
    assert celeriac("-A", "tasks", "dead", "retry", first).out == "1 dead letter sent again.\n"
    assert app.transport.size("celery").ready == 1
    partly = celeriac("-A", "tasks", "dead", "discard", lines[1][0], "nope")
    assert (partly.code, partly.out) == (1, "1 dead letter deleted.\n")
    assert "There is no dead letter 'nope'." in partly.err
    assert celeriac("-A", "tasks", "dead", "retry", "--all").out == "1 dead letter sent again.\n"
    assert celeriac("-A", "tasks", "dead", "discard", "--all").out == "0 dead letters deleted.\n"


def test_a_body_that_is_not_accepted_is_not_opened(celeriac: CommandLine, app: Celeriac, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return open, (str(tmp_path / "exploded"), "w")

    bury(
        app,
        body=pickle.dumps(((Bomb(),), {}, {})),
        content_type="application/x-python-serialize",
        content_encoding="binary",
    )
    done = celeriac("-A", "tasks", "dead", "show", app.transport.dead_letters()[0].key)
    assert done.code == 0
    assert "not opened: " in done.out
    assert not (tmp_path / "exploded").exists()


def test_help_is_quick(celeriac: CommandLine) -> None:
    """It imports no command: neither asyncio, nor the worker, nor a driver."""
    (celeriac.folder / "sitecustomize.py").write_text(
        "import atexit, sys\n"
        "heavy = ('asyncio', 'sqlite3', 'celeriac.worker', 'celeriac.cli.call')\n"
        "atexit.register(lambda: print([name for name in heavy if name in sys.modules]))\n"
    )
    path = environment()["PYTHONPATH"]
    assert celeriac("--help", env={"PYTHONPATH": f"{celeriac.folder}{os.pathsep}{path}"}).out.splitlines()[-1] == "[]"


def test_a_result_can_be_waited_for(celeriac: CommandLine, app: Celeriac) -> None:
    """It is asked for before its task has run."""
    task_id = app.send_task("tasks.sleep", [0.3]).id
    with WorkerProcess("tasks", "-c", "1", cwd=celeriac.folder) as worker:
        done = celeriac("-A", "tasks", "result", str(task_id))
        assert (done.code, done.out) == (0, "slept\n"), worker.output


@pytest.mark.behaviour("B-CLI-021")
def test_migrate_copies_and_with_ack_messages_moves(celeriac: CommandLine, app: Celeriac, tmp_path: Path) -> None:
    app.send_task("tasks.add", (2, 3))
    app.send_task("tasks.add", (2, 3), countdown=3600)
    there = Celeriac("there", broker=f"sqlite:///{tmp_path / 'there.db'}", set_as_current=False)
    urls = (str(app.conf.broker_url), str(there.conf.broker_url))
    done = celeriac("migrate", "-t", "0", *urls)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("1 message copied from sqlite:///")
    assert done.out.endswith(
        "has them still (-a removes them).\n1 not yet due stay at the source; -F waits for them.\n"
    )
    assert (app.transport.size("celery").ready, there.transport.size("celery").ready) == (1, 1)
    done = celeriac("-A", "tasks", "migrate", "-a", "-t", "0", "-Q", "celery:post", *urls)
    assert done.out.startswith("1 message moved from")
    assert (app.transport.size("celery").ready, there.transport.size("post").ready) == (0, 1)


def test_migrate_counts_on_a_terminal(celeriac: CommandLine, app: Celeriac, tmp_path: Path) -> None:
    app.send_task("tasks.add", (2, 3))
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "celeriac", "migrate", "-t", "0", str(app.conf.broker_url), "sqlite:///there.db"]
    done = subprocess.run(command, env=environment(), cwd=tmp_path, stdout=its, stderr=its, timeout=50, check=False)
    lines = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    os.close(its)
    assert done.returncode == 0
    assert next(line for line in lines if line) == "1/1"
    assert lines[-1].startswith("1 message copied from")


@pytest.mark.behaviour("B-CLI-021")
def test_migrate_goes_on_until_it_is_stopped_and_gives_back_what_it_holds(
    celeriac: CommandLine, app: Celeriac, tmp_path: Path
) -> None:
    there = Celeriac("there", broker=f"sqlite:///{tmp_path / 'there.db'}", set_as_current=False)
    app.send_task("other", task_id="stays")
    urls = (str(app.conf.broker_url), str(there.conf.broker_url))
    command = [sys.executable, "-m", "celeriac", "migrate", "-a", "-F", "-T", "tasks.add", *urls]
    with subprocess.Popen(command, env=environment(), cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        for number in range(3):  # each is sent after the one before has arrived
            app.send_task("tasks.add", (2, 3), task_id=str(number))
            [delivery] = there.transport.fetch(["celery"], 1, 30, 60)
            assert delivery.message.id == str(number)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.startswith("3 messages moved from")
    left = {delivery.message.id: delivery.starts for delivery in app.transport.fetch(["celery"], 5, 5, 60)}
    left.pop("2", None)  # the signal may have come before it was acknowledged
    assert left == {"stays": 0}


def test_migrate_refuses_what_makes_no_sense(celeriac: CommandLine, tmp_path: Path) -> None:
    url = f"redis://user:{SECRET}@127.0.0.1:1/0"
    for arguments, code, text in (
        ((url, url), 2, "SOURCE and DESTINATION are one broker"),
        (("sqlite:///a.db",), 2, "Missing argument 'DESTINATION'"),
        (("sqlite:///a.db", "reddis://host"), 1, "Did you mean 'redis'?"),
        (("sqlite:///a.db", url), 1, "127.0.0.1:1"),
    ):
        done = celeriac("migrate", *arguments)
        assert done.code == code, done.err
        assert text in done.err
