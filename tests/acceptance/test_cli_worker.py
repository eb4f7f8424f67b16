"""`celeriac worker` as a subprocess: its pools, signals, files and settings."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.worker.options import available_cpus
from tests.support import processes
from tests.support.command import CommandLine, environment
from tests.support.files import eventually
from tests.support.worker import WorkerProcess

#: Stands for a password: something in the URL that must not be seen in the list of processes.
SECRET_OPTION = "busy_timeout=7.125"

Start = Callable[..., WorkerProcess]


@pytest.fixture
def celeriac(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def app(tmp_path: Path, celeriac: CommandLine) -> Celeriac:
    url = f"sqlite:///{tmp_path / 'celeriac.db'}"
    return Celeriac("tasks", broker=url, backend=url, set_as_current=False)


def ask(app: Celeriac, name: str, *args: object, **options: object) -> object:
    return app.send_task(name, args, **options).get(timeout=30)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_each_pool_runs_tasks_and_ends_with_0(worker_process: Start, app: Celeriac, pool: str) -> None:
    worker = worker_process("tasks", "-P", pool, "-c", "2", "-n", "w1@%h")
    node = worker.wait_ready()
    assert node.startswith("w1@")
    assert ask(app, "tasks.add", 2, 3) == 5
    pid, is_main_thread = ask(app, "tasks.where")  # type: ignore[misc]
    assert (pid == worker.pid) == (pool == "solo")
    assert is_main_thread == (pool != "threads")
    assert worker.stop() == 0
    assert "Traceback" not in worker.output


def test_the_banner_says_what_runs_where(worker_process: Start, app: Celeriac) -> None:
    worker = worker_process("tasks", "-c", "1", "-Q", "celery,mail")
    worker.wait_ready()
    for text in (
        "app       tasks",
        "broker    sqlite:///celeriac.db",
        "queues    celery, mail",
        ". tasks.add",
        "prefork",
    ):
        assert text in worker.output


def test_quiet_says_nothing_and_info_logs_the_ready_line(worker_process: Start, app: Celeriac) -> None:
    command = [sys.executable, "-m", "celeriac", "-q", "-A", "tasks", "worker", "-c", "1", "-l", "info"]
    worker = worker_process(command=command)
    worker.wait_output(r"INFO.*celery@\S+ ready\.")
    assert "queues " not in worker.output
    assert worker.stop() == 0


def test_the_supervisor_does_not_import_the_app(worker_process: Start, celeriac: CommandLine) -> None:
    (celeriac.folder / "importer.py").write_text(
        "import os\nfrom celeriac import Celeriac\napp = Celeriac('importer')\n"
        "open('imported_by', 'a').write(f'{os.getpid()}\\n')\n"
    )
    worker = worker_process("importer", "-c", "1")
    worker.wait_ready()
    importers = (celeriac.folder / "imported_by").read_text().split()
    assert len(importers) == 1
    assert importers != [str(worker.pid)]


def test_settings_of_the_app_and_of_the_command_line(
    worker_process: Start, celeriac: CommandLine, app: Celeriac
) -> None:
    (celeriac.folder / "shaped.py").write_text(
        "from celeriac import Celeriac\n"
        "app = Celeriac('shaped', worker_pool='threads', worker_concurrency=20, worker_log_format='APP %(message)s')\n"
    )
    first = worker_process("shaped", "-l", "info")
    first.wait_ready()
    assert "threads, concurrency 2 × 10" in first.output
    assert "APP " in first.output
    first.stop()
    second = worker_process("shaped", "-c", "3", "--", "worker_pool=prefork", env={"CELERY_WORKER_HOSTNAME": "env@%h"})
    assert second.wait_ready().startswith("env@")
    assert "prefork, concurrency 3" in second.output


def test_settings_that_ask_for_solo_get_it(worker_process: Start, celeriac: CommandLine, app: Celeriac) -> None:
    text = (
        (celeriac.folder / "tasks.py").read_text().replace('Celeriac("tasks")', 'Celeriac("tasks", worker_pool="solo")')
    )
    (celeriac.folder / "tasks.py").write_text(text)
    worker = worker_process("tasks")
    worker.wait_ready()
    assert ask(app, "tasks.where") == [worker.pid, True]


def test_app_worker_main_runs_the_script_as_a_worker(worker_process: Start, app: Celeriac) -> None:
    worker = worker_process(command=[sys.executable, "tasks.py", "worker", "-c", "1", "-n", "main@%h"])
    assert worker.wait_ready().startswith("main@")
    assert ask(app, "tasks.add", 2, 3) == 5
    assert worker.stop() == 0


def test_solo_refuses_hard_limits_once_per_task(worker_process: Start, app: Celeriac) -> None:
    worker = worker_process("tasks", "-P", "solo")
    worker.wait_ready()
    assert [ask(app, "tasks.past_its_limit") for _ in range(2)] == ["ended by itself"] * 2
    assert worker.stop() == 0
    assert worker.output.count("hard time limits can't be applied") == 1


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_ctrl_c_lets_the_running_task_end(worker_process: Start, app: Celeriac, tmp_path: Path, pool: str) -> None:
    worker = worker_process("tasks", "-P", pool, "-c", "1")
    worker.wait_ready()
    running, waiting = (app.send_task("tasks.sleep", [0.5]) for _ in range(2))
    eventually(lambda: (tmp_path / "begun").exists())
    worker.kill(signal.SIGINT)
    assert worker.wait() == 0
    assert running.get(timeout=5) == "slept"
    assert (waiting.state, app.transport.size("celery").ready) == ("PENDING", 1)


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_quit_gives_the_running_task_back(worker_process: Start, app: Celeriac, tmp_path: Path, pool: str) -> None:
    worker = worker_process("tasks", "-P", pool, "-c", "1")
    worker.wait_ready()
    app.send_task("tasks.sleep", [60])
    eventually(lambda: (tmp_path / "begun").exists())
    worker.kill(signal.SIGQUIT)
    assert worker.wait() == 0
    assert app.transport.size("celery").ready == 1
    assert "1 running task(s) interrupted and given back" in worker.output


def test_the_grace_of_a_warm_shutdown_is_an_option(worker_process: Start, app: Celeriac, tmp_path: Path) -> None:
    worker = worker_process("tasks", "-c", "1", "--shutdown-grace", "0.1")
    worker.wait_ready()
    app.send_task("tasks.sleep", [60])
    eventually(lambda: (tmp_path / "begun").exists())
    assert worker.stop() == 0
    assert app.transport.size("celery").ready == 1


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_hup_starts_it_again_with_the_same_arguments(
    worker_process: Start, app: Celeriac, tmp_path: Path, pool: str
) -> None:
    pid_file = tmp_path / "w.pid"
    worker = worker_process("tasks", "-P", pool, "-c", "1", "-n", "again@%h", "--pidfile", "w.pid")
    worker.wait_ready()
    worker.kill(signal.SIGHUP)

    def ready_lines() -> bool:
        return len(re.findall(r"again@\S+ ready\.", worker.output)) == 2

    eventually(ready_lines, 30)
    assert pid_file.read_text() == f"{worker.pid}\n"
    assert ask(app, "tasks.add", 2, 3) == 5
    assert worker.stop() == 0
    assert not pid_file.exists()


def test_a_pid_file_keeps_a_second_worker_away(worker_process: Start, celeriac: CommandLine, app: Celeriac) -> None:
    (celeriac.folder / "w1.pid").write_text("999999999\n")  # left by a worker that was killed
    worker = worker_process("tasks", "-c", "1", "-n", "w1@%h", "--pidfile", "%n.pid")
    worker.wait_ready()
    done = celeriac("-A", "tasks", "worker", "-c", "1", "-n", "w1@%h", "--pidfile", "%n.pid")
    assert (done.code, done.out) == (73, "")
    assert f"a worker runs already, with pid {worker.pid}" in done.err


def test_detach_returns_at_once_and_leaves_a_worker(celeriac: CommandLine, app: Celeriac) -> None:
    done = celeriac(
        "-A", "tasks", "worker", "-c", "1", "-D", "-n", "bg@%h", "--pidfile", "%n.pid", "-f", "%n.log", "-l", "info"
    )
    assert done.code == 0, done.err
    pid = int(eventually(lambda: (celeriac.folder / "bg.pid").exists() and (celeriac.folder / "bg.pid").read_text()))
    try:
        assert str(pid) in done.out
        assert ask(app, "tasks.add", 2, 3) == 5
        assert "ready." in (celeriac.folder / "bg.log").read_text()
    finally:
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: (facts := processes.facts(pid)) is None or facts.state == "Z", 20)
    assert not (celeriac.folder / "bg.pid").exists()
    nowhere = celeriac("-A", "tasks", "worker", "-D", "-f", "no/such/folder/log")
    assert (nowhere.code, nowhere.err) == (73, "Error: 'no/such/folder/log' can't be written.\n")


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("nonsense", None)]
)
def test_auto_concurrency_is_what_the_control_group_allows(tmp_path: Path, quota: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    everything = available_cpus(str(tmp_path / "no-such-file"))
    assert available_cpus(str(tmp_path / "cpu.max")) == (expected or everything)


def test_a_broker_that_is_not_there_yet_is_waited_for(
    worker_process: Start, celeriac: CommandLine, tmp_path: Path
) -> None:
    worker = worker_process("tasks", "-c", "1", env={"CELERIAC_BROKER_URL": "sqlite:///later/t.db"})
    worker.wait_output(r"the broker can't be reached, trying again in .*Can't open \S+/later/t\.db")
    (tmp_path / "later").mkdir()
    worker.wait_ready()
    assert worker.stop() == 0


def test_runners_of_an_app_with_threads_are_started_by_exec(
    worker_process: Start, celeriac: CommandLine, app: Celeriac
) -> None:
    (celeriac.folder / "threaded.py").write_text(
        "import threading\nfrom tasks import app\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    url = f"sqlite:///celeriac.db?{SECRET_OPTION}"
    command = [sys.executable, "-m", "celeriac", "-A", "threaded", "worker", "-c", "2"]
    worker = worker_process(command=command, env={"CELERIAC_BROKER_URL": url})
    worker.wait_ready()
    assert "runners are started by exec instead of fork" in worker.output
    pids = {ask(app, "tasks.where")[0] for _ in range(4)}  # type: ignore[index]
    runner = pids.pop()
    assert SECRET_OPTION not in Path(f"/proc/{runner}/cmdline").read_text()
    os.kill(runner, signal.SIGKILL)
    worker.wait_output(rf"runner {runner} died by signal 9 \(SIGKILL\)")
    assert ask(app, "tasks.add", 2, 3) == 5
    assert worker.stop() == 0


def test_purge_before_the_start(worker_process: Start, app: Celeriac) -> None:
    lost = [app.send_task("tasks.add", [2, 3]) for _ in range(3)]
    worker = worker_process("tasks", "-c", "1", "--purge")
    worker.wait_ready()
    worker.wait_output(r"purged 3 message\(s\) from celery")
    assert ask(app, "tasks.add", 2, 3) == 5
    assert {result.state for result in lost} == {"PENDING"}


def test_limits_and_includes_are_options(worker_process: Start, celeriac: CommandLine, app: Celeriac) -> None:
    (celeriac.folder / "more.py").write_text(
        "from tasks import app\nimport time\n@app.task\ndef nap():\n    time.sleep(30)\n"
    )
    worker = worker_process("tasks", "-c", "1", "-I", "more", "--time-limit", "0.2", "--max-tasks-per-child", "1")
    worker.wait_ready()
    result = app.send_task("more.nap")
    assert repr(result.get(timeout=30, propagate=False)) == "TimeLimitExceeded(0.2)"
    first, second = (ask(app, "tasks.where") for _ in range(2))
    assert first != second


def test_options_of_celery_that_have_no_effect_say_so(worker_process: Start, app: Celeriac) -> None:
    worker = worker_process(
        "tasks", "-c", "1", "-O", "fair", "--prefetch-multiplier", "1", "--without-gossip", "--without-mingle",
        "--without-heartbeat", "-E",
    )  # fmt: skip
    worker.wait_ready()
    for name in ("optimization", "prefetch-multiplier"):
        assert f"Note: --{name} has no effect" in worker.output


def test_two_workers_of_one_name_are_warned_of(worker_process: Start, app: Celeriac) -> None:
    first = worker_process("tasks", "-c", "1", "-n", "twin@%h")
    first.wait_ready()
    second = worker_process("tasks", "-c", "1", "-n", "twin@%h")
    for worker in (first, second):
        worker.wait_output(r"has the node name twin@\S+, too")


def test_root_with_pickle_is_refused(celeriac: CommandLine) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root is refused")
    arguments = ("-A", "tasks", "worker", "-c", "1", "--", 'accept_content=["pickle"]')
    done = celeriac(*arguments)
    assert done.code == 1
    assert "runs as root and accepts pickle" in done.err


def test_standard_input_is_left_alone(celeriac: CommandLine, app: Celeriac) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "celeriac", "-A", "tasks", "worker", "-c", "1"],
        cwd=celeriac.folder, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.close()
    assert ask(app, "tasks.add", 2, 3) == 5
    worker.terminate()
    assert worker.wait(30) == 0
    worker.stdout.close()


def test_each_runner_has_a_log_file_of_its_own_when_its_name_says_so(
    worker_process: Start, app: Celeriac, tmp_path: Path
) -> None:
    worker = worker_process("tasks", "-c", "2", "-l", "INFO", "-f", "%n%I-%i.log", "-n", "logs@here")
    worker.wait_runners(2)
    assert ask(app, "tasks.add", 2, 3) == 5
    eventually(lambda: "logs@here ready." in (tmp_path / "logs-0.log").read_text())
    assert worker.stop() == 0
    assert sorted(path.name for path in tmp_path.glob("logs*.log")) == ["logs-0.log", "logs-1-1.log", "logs-2-2.log"]
