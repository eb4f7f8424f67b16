"""The fixtures of `celeriac.contrib.pytest`, as a project uses them: its tests are run by a pytest of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import environment

SUITE = """
import threading
import pytest
from celeriac import Celeriac, current_app, shared_task
from celeriac.contrib.testing.app import TestApp

@shared_task
def shared(x):
    return x * 2

def test_b_test_001_app(celery_app):
    assert celery_app.conf.broker_url.startswith("memory://")
    assert celery_app.conf.result_backend.startswith("cache+memory://")
    assert celery_app.conf.accept_content == ["json"]

def test_apps_are_apart(celery_app, celeriac_sent):
    @celery_app.task(name="mail")
    def mail(to):
        pass
    mail.delay("ada")
    mail.apply_async(("bob",), queue="slow", countdown=60)
    celeriac_sent.assert_sent("mail", "ada")
    assert celeriac_sent.assert_sent("mail", "bob", queue="slow").eta is not None
    with pytest.raises(AssertionError, match=r"mail\\('eve'\\) to .* was not sent, but:\\n  mail\\('ada'\\) to 'celery'"):
        celeriac_sent.assert_sent("mail", "eve")
    celeriac_sent.assert_nothing_sent("other")

def test_nothing_is_left(celery_app):
    assert celery_app.transport.size("celery").ready == 0

def test_b_test_002_worker(celery_app, celery_worker):
    assert shared.delay(4).get(timeout=10) == 8
    assert any("supervisor" in t.name or celery_worker.node in t.name for t in threading.enumerate())

def test_it_has_stopped(celery_app):
    assert not [t for t in threading.enumerate() if t.name.startswith("celeriac-embedded")]

def test_b_test_008_reload(celery_app, celery_worker):
    @celery_app.task
    def late(x, y):
        return x * y
    celery_worker.reload()
    assert late.delay(4, 4).get(timeout=10) == 16

@pytest.mark.celery(task_default_queue="mine")
class TestMarked:
    def test_b_test_004_class(self, celery_app):
        assert celery_app.conf.task_default_queue == "mine"

    @pytest.mark.celery(task_default_queue="other")
    def test_b_test_004_nearest(self, celeriac_app, celeriac_worker):
        assert celeriac_app.conf.task_default_queue == "other"
        assert shared.delay(1).get(timeout=10) == 2

def test_b_test_006_session_worker(celery_session_app, celery_session_worker):
    assert celery_session_app.send_task("extra.triple", (2,)).get(timeout=10) == 6

def test_b_test_006_the_same(celery_session_worker, celery_session_app):
    assert celery_session_app.send_task("extra.Quad", (2,)).get(timeout=10) == 8
"""

CONFTEST = """
import pytest
from celeriac import Task

pytest_plugins = ("celeriac.contrib.pytest",)

@pytest.fixture(scope="session")
def celery_config():
    return {"task_track_started": True}

@pytest.fixture(scope="session")
def celery_worker_parameters():
    return {"shutdown_timeout": 20}

@pytest.fixture(scope="session")
def celery_worker_pool():
    return "threads"

@pytest.fixture(scope="session")
def celery_includes():
    return ["extra"]

class Quad(Task):
    name = "extra.Quad"
    def run(self, x):
        return x * 4

@pytest.fixture(scope="session")
def celery_class_tasks():
    return [Quad]
"""

EXTRA = """
from celeriac import shared_task

@shared_task(name="extra.triple")
def triple(x):
    return x * 3
"""

TRAPPED = """
import pytest
from celeriac import shared_task
from celeriac.current import get_current_app

@pytest.fixture(scope="session")
def use_celery_app_trap():
    return True

def test_b_test_007_trap(celery_app):
    with pytest.raises(RuntimeError, match="reaches for the current app"):
        get_current_app().conf

def test_b_test_007_lifted(celery_app, depends_on_current_app):
    assert get_current_app() is celery_app
"""


def run_suite(folder: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and report of a pytest on this folder."""
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", *arguments]
    env = {
        **environment(),
        "PYTHONPATH": os.pathsep.join([str(folder), environment().get("PYTHONPATH", "")]),
        **variables,
    }
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=55)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    return tmp_path


@pytest.mark.behaviour("B-TEST-001", "B-TEST-002", "B-TEST-004", "B-TEST-005", "B-TEST-006", "B-TEST-008")
def test_a_projects_own_suite(folder: Path) -> None:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "extra.py").write_text(EXTRA)
    (folder / "test_it.py").write_text(SUITE)
    code, report = run_suite(folder)
    assert code == 0, report
    assert len(re.findall(r"(?m)^PASSED", report)) == SUITE.count("def test_")


@pytest.mark.behaviour("B-TEST-007")
def test_a_trap_for_the_current_app(folder: Path) -> None:
    (folder / "conftest.py").write_text('pytest_plugins = ("celeriac.contrib.pytest",)\n')
    (folder / "test_it.py").write_text(TRAPPED)
    code, report = run_suite(folder)
    assert code == 0, report
    assert len(re.findall(r"(?m)^PASSED", report)) == 2


@pytest.mark.behaviour("B-TEST-012")
def test_no_worker_skips_what_needs_one(folder: Path) -> None:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "extra.py").write_text(EXTRA)
    (folder / "test_it.py").write_text(SUITE)
    code, report = run_suite(folder, NO_WORKER="1")
    assert code == 0, report
    assert report.count("NO_WORKER is set") >= 1
    assert "PASSED test_it.py::test_b_test_001_app" in report
    assert "PASSED test_it.py::test_b_test_002_worker" not in report


@pytest.mark.behaviour("B-TEST-009")
def test_a_worker_is_asked_before_the_block_begins(tmp_path: Path) -> None:
    from celeriac.contrib.testing.app import TestApp
    from celeriac.contrib.testing.worker import start_worker
    from celeriac.testing.sent import record_sent

    app = TestApp()
    with record_sent(app) as sent, start_worker(app):
        sent.assert_sent("celery.ping")
    with record_sent(app) as sent, start_worker(app, perform_ping_check=False):
        sent.assert_nothing_sent()


@pytest.mark.behaviour("B-TEST-003")
def test_a_worker_that_does_not_end_is_told() -> None:
    import threading

    from celeriac.contrib.testing.app import TestApp
    from celeriac.contrib.testing.worker import start_worker

    app = TestApp()
    begun, may_end = threading.Event(), threading.Event()

    @app.task
    def stubborn() -> None:
        begun.set()
        may_end.wait(30)

    try:
        with pytest.raises(RuntimeError, match="a task still runs in this process"):  # noqa: SIM117
            with start_worker(app, shutdown_timeout=0.1, perform_ping_check=False):
                stubborn.delay()
                assert begun.wait(10)
    finally:
        may_end.set()
