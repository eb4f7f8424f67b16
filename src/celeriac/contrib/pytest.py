"""Fixtures and a marker for pytest, under Celery's names and under ours.

Switched on by `pytest_plugins = ("celeriac.contrib.pytest",)` in a `conftest.py`, or by PYTEST_PLUGINS. Celery documents the
fixtures `celery_…`; `celeriac_app`, `celeriac_worker` and `celeriac_sent` are ours. Where NO_WORKER is set, tests that need a
worker are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from celeriac.contrib.testing.app import TestApp, setup_default_app
from celeriac.contrib.testing.worker import start_worker
from celeriac.testing.clock import VirtualClock, virtual_clock
from celeriac.testing.sent import SentTasks, record_sent

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.testing.worker import EmbeddedWorker

__all__: list[str] = []

NO_WORKER = os.environ.get("NO_WORKER")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    for name in ("celery", "celeriac"):
        config.addinivalue_line("markers", f"{name}(**settings): settings of the app of this test or class.")


# what a conftest.py overrides


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    """Whether a test that reaches for the current app is an error. Override to return True."""
    return False


@pytest.fixture(scope="session")
def celery_config() -> Mapping[str, Any]:
    """Settings of the test apps. Override to return a dict."""
    return {}


@pytest.fixture(scope="session")
def celery_parameters() -> Mapping[str, Any]:
    """Further arguments of the app's class. Override to return a dict."""
    return {}


@pytest.fixture(scope="session")
def celery_worker_parameters() -> Mapping[str, Any]:
    """Arguments of `start_worker`, such as {"queues": [...]} or {"shutdown_timeout": 60}. Override to return a dict."""
    return {}


@pytest.fixture(scope="session")
def celery_enable_logging() -> bool:
    """Celery's; without effect here, since a worker inside a program leaves its logging alone."""
    return False


@pytest.fixture(scope="session")
def celery_includes() -> Sequence[str]:
    """Modules that `celery_session_worker` imports. Override to return a list."""
    return ()


@pytest.fixture(scope="session")
def celery_worker_pool() -> str:
    """Pool of the workers: "solo" or "threads"."""
    return "solo"


@pytest.fixture(scope="session")
def celery_class_tasks() -> list[Any]:
    """Classes of tasks that are registered with the session's app. Override to return a list."""
    return []


# apps


@contextmanager
def _make_app(
    config: Mapping[str, Any], parameters: Mapping[str, Any], *, use_trap: bool, enable_logging: bool = False
) -> Iterator[Celeriac]:
    app = TestApp(config=config, enable_logging=enable_logging, **parameters)
    with setup_default_app(app, use_trap=use_trap):
        yield app
    app.close()


@pytest.fixture(scope="session")
def celery_session_app(
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Celeriac]:
    """An app for the whole session."""
    with _make_app(
        celery_config, celery_parameters, use_trap=use_celery_app_trap, enable_logging=celery_enable_logging
    ) as app:
        yield app


@pytest.fixture
def celery_app(
    request: pytest.FixtureRequest,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[Celeriac]:
    """An app for this test, with a broker and a result store in memory."""
    marked: dict[str, Any] = {}
    for name in ("celery", "celeriac"):
        for mark in reversed(list(request.node.iter_markers(name))):  # the nearest one wins
            marked.update(mark.kwargs)
    config = {**celery_config, **marked}
    with _make_app(
        config, celery_parameters, use_trap=use_celery_app_trap, enable_logging=celery_enable_logging
    ) as app:
        yield app


@pytest.fixture
def depends_on_current_app(celery_app: Celeriac) -> Iterator[None]:
    """Lift the trap for this test: its app is the current one."""
    with setup_default_app(celery_app):
        yield


@pytest.fixture
def celeriac_app(celery_app: Celeriac) -> Celeriac:
    """The same as `celery_app`."""
    return celery_app


@pytest.fixture
def celeriac_sent(celery_app: Celeriac) -> Iterator[SentTasks]:
    """What this test has sent, for assertions."""
    with record_sent(celery_app) as sent:
        yield sent


@pytest.fixture
def celeriac_clock(celery_app: Celeriac) -> Iterator[VirtualClock]:
    """Time that stands still until `celeriac_clock.advance(seconds)` moves it."""
    with virtual_clock(celery_app) as clock:
        yield clock


# workers


def _need_worker() -> None:
    if NO_WORKER:
        pytest.skip("NO_WORKER is set")


@pytest.fixture(scope="session")
def celery_session_worker(
    celery_session_app: Celeriac,
    celery_includes: Sequence[str],
    celery_class_tasks: list[Any],
    celery_worker_pool: str,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[EmbeddedWorker]:
    """A worker of the session's app, in a thread, until the session ends."""
    _need_worker()
    for module in celery_includes:
        celery_session_app.conf.include = [*celery_session_app.conf.include, module]
    celery_session_app.import_modules()
    for task in celery_class_tasks:
        celery_session_app.register_task(task)
    with start_worker(celery_session_app, pool=celery_worker_pool, **celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def celery_worker(
    celery_app: Celeriac,
    celery_includes: Sequence[str],
    celery_worker_pool: str,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[EmbeddedWorker]:
    """A worker of this test's app, in a thread. After tasks were defined in the test: `celery_worker.reload()`."""
    _need_worker()
    with start_worker(celery_app, pool=celery_worker_pool, **celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def celeriac_worker(celery_worker: EmbeddedWorker) -> EmbeddedWorker:
    """The same as `celery_worker`."""
    return celery_worker
