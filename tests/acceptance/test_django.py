"""An app in a Django project: when it knows Django, and what a worker then does with settings, tasks, checks and connections."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from tests.support.django_project import DjangoProject
from tests.support.files import eventually
from tests.support.worker import WorkerProcess

Start = Callable[..., WorkerProcess]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the project's tables: to make them takes Django seconds."""
    project = DjangoProject(tmp_path_factory.mktemp("tables"))
    project.migrate()
    return project.folder / "shop.db"


@pytest.fixture
def project(tmp_path: Path, database: Path) -> DjangoProject:
    shutil.copy(database, tmp_path)
    return DjangoProject(tmp_path)


@pytest.fixture
def client(project: DjangoProject) -> Iterator[Celeriac]:
    with project.client() as app:
        yield app


def result(app: Celeriac, name: str, *args: Any) -> Any:
    return app.send_task(name, args).get(timeout=30)


# when


@pytest.mark.behaviour("B-DJANGO-001")
def test_without_the_variable_an_app_knows_nothing_of_django(project: DjangoProject) -> None:
    """[B-DJANGO-001] the fixup is active only with DJANGO_SETTINGS_MODULE"""
    program = (
        "import sys; from celeriac import Celeriac, Task\n"
        "app = Celeriac('a'); app.conf.timezone; app.task(lambda: 1, name='t')\n"
        "assert app.Task is Task\n"
        "print([name for name in sys.modules if name.startswith(('django', 'celeriac.contrib.django.'))])"
    )
    assert project.run("-c", program, is_project=False).strip() == "[]"


@pytest.mark.behaviour("B-DJANGO-001")
def test_to_make_an_app_imports_nothing_of_django(project: DjangoProject) -> None:
    """It may be the settings that import it."""
    program = "import sys, shop.celeriac; print([name for name in sys.modules if name.partition('.')[0] == 'django'])"
    assert project.run("-c", program).strip() == "[]"


@pytest.mark.behaviour("B-DJANGO-001")
def test_where_django_is_missing_there_is_a_warning(project: DjangoProject) -> None:
    """[B-DJANGO-001] with the variable and without Django there is a FixupWarning"""
    program = (
        "import sys; sys.modules['django'] = None\n"
        "from celeriac import Celeriac, Task\n"
        "app = Celeriac('a'); assert app.Task is Task; print(app.conf.timezone)"
    )
    said = project.run("-c", program)
    assert "FixupWarning: DJANGO_SETTINGS_MODULE names the settings 'shop.settings' of a Django project, but" in said
    assert said.startswith("None\n") or "\nNone\n" in said


def test_settings_that_are_not_there_are_one_clear_line(project: DjangoProject) -> None:
    program = (
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'nowhere.settings'\n"
        "from celeriac import Celeriac\nfrom celeriac.errors import ImproperlyConfigured\n"
        "try:\n    Celeriac('a').conf\nexcept ImproperlyConfigured as exc:\n    print(exc)"
    )
    said = project.run("-c", program).strip()
    assert said == "DJANGO_SETTINGS_MODULE is 'nowhere.settings', and there is no module 'nowhere'"


def test_an_app_can_do_without(project: DjangoProject) -> None:
    program = "from celeriac import Celeriac, Task; app = Celeriac('a', fixups=()); assert app.Task is Task"
    project.run("-c", program)


@pytest.mark.behaviour("B-DJANGO-006")
def test_the_class_of_tasks_is_djangos_unless_the_app_has_its_own(project: DjangoProject) -> None:
    """[B-DJANGO-006] DjangoTask is the default class, a custom task_cls ranks above it"""
    program = """
from celeriac import Celeriac, Task
from celeriac.contrib.django.task import DjangoTask

class Own(Task): ...
class OwnApp(Celeriac):
    task_cls = Own

assert Celeriac("a").Task is DjangoTask
assert isinstance(Celeriac("a").task(lambda: 1, name="t"), DjangoTask)
assert Celeriac("a", task_cls=Own).Task is Own
assert Celeriac("a", task_cls="celeriac.task:Task").Task is Task
assert OwnApp("a").Task is Own
"""
    project.run("-c", program)


@pytest.mark.behaviour("B-DJANGO-002", "B-DJANGO-007")
def test_settings_are_djangos(project: DjangoProject) -> None:
    """[B-DJANGO-002] names with CELERY_ are settings
    [B-DJANGO-007] TIME_ZONE is the time zone unless there is another
    """
    project.add("shop/settings.py", "CELERY_DB_REUSE_MAX = 7")
    program = (
        "from shop.celeriac import app; from celeriac import Celeriac\n"
        "print(app.conf.task_default_priority, app.conf.db_reuse_max, app.timezone)\n"
        "print(Celeriac('b').timezone, Celeriac('b', timezone='UTC').timezone)"
    )
    assert project.run("-c", program).splitlines() == ["4 7 Asia/Tokyo", "Asia/Tokyo UTC"]
    project.add("shop/settings.py", "CELERY_TIMEZONE = 'Europe/London'")
    assert project.run("-c", "from shop.celeriac import app; print(app.timezone)").strip() == "Europe/London"


# a worker


@pytest.mark.behaviour("B-DJANGO-001", "B-DJANGO-003", "B-DJANGO-004")
def test_a_worker_of_a_project(project: DjangoProject, client: Celeriac, worker_process: Start) -> None:
    """[B-DJANGO-003] autodiscover_tasks() finds the tasks of installed apps
    [B-DJANGO-004] a task that is sent in a transaction finds what was written there
    """
    worker = worker_process("shop", "-c", "2")
    worker.wait_ready()
    result(client, "orders.tasks.write", "hat")
    result(client, "orders.tasks.order", "coat")
    expected = ["hat", "coat is confirmed"]
    eventually(lambda: (texts := result(client, "orders.tasks.texts")) == expected and texts)
    assert worker.stop() == 0
    assert "Error" not in worker.output


@pytest.mark.behaviour("B-DJANGO-003")
def test_names_of_classes_of_apps_are_understood(project: DjangoProject) -> None:
    """`autodiscover_tasks(lambda: settings.INSTALLED_APPS)`, as many projects have it."""
    project.write(
        "shop/celeriac.py",
        "from celeriac import Celeriac\nfrom django.conf import settings\napp = Celeriac('shop')\n"
        "app.autodiscover_tasks(lambda: settings.INSTALLED_APPS)\n",
    )
    program = "from shop.celeriac import app; app.loader.import_default_modules(); app.tasks['orders.tasks.write']"
    project.run("-c", program)


@pytest.mark.behaviour("B-DJANGO-001", "B-DJANGO-003")
def test_a_project_that_is_written_for_celery_runs_under_the_import_hook(
    project: DjangoProject, client: Celeriac, worker_process: Start
) -> None:
    text = (project.folder / "shop/celeriac.py").read_text()
    (project.folder / "shop/celeriac.py").unlink()
    project.write("shop/celery.py", text.replace("from celeriac", "from celery").replace("Celeriac", "Celery"))
    project.write("shop/__init__.py", "from .celery import app as celery_app\n__all__ = ('celery_app',)\n")
    tasks = (project.folder / "orders/tasks.py").read_text()
    project.write("orders/tasks.py", tasks.replace("from celeriac import", "from celery import"))
    command = [sys.executable, "-m", "celeriac.as_celery", "-A", "shop", "worker", "-c", "1"]
    worker = worker_process(command=command)
    worker.wait_ready()
    result(client, "orders.tasks.write", "hat")
    assert result(client, "orders.tasks.texts") == ["hat"]
    assert worker.stop() == 0


def test_a_projects_logging_does_not_silence_the_worker(
    project: DjangoProject, client: Celeriac, worker_process: Start
) -> None:
    """Django's LOGGING disables the loggers that are there already, unless it says otherwise."""
    project.add("shop/settings.py", "LOGGING = {'version': 1}")
    worker = worker_process("shop", "-c", "1", "-l", "INFO")
    worker.wait_ready()
    result(client, "orders.tasks.write", "hat")
    worker.wait_output(r"Task orders\.tasks\.write\[.*\] succeeded")


# checks

CHECKS = """
from django.apps import AppConfig
from django.core import checks

@checks.register
def look(app_configs, **_):
    with open("looked", "a") as file:
        file.write("x")
    return [checks.Warning("hats are thin", id="orders.W1"), %s]

class OrdersConfig(AppConfig):
    name = "orders"
"""


@pytest.mark.behaviour("B-DJANGO-009", "B-CLI-024")
def test_system_checks_can_keep_a_worker_from_starting(project: DjangoProject, worker_process: Start) -> None:
    """[B-DJANGO-009] system checks run when a worker starts, unless --skip-checks or CELERY_SKIP_CHECKS says no"""
    project.write("orders/apps.py", CHECKS % "checks.Error('no\\nhats', id='orders.E1')")
    worker = worker_process("shop", "-c", "1")
    assert worker.wait() == 1
    [line] = [line for line in worker.output.splitlines() if line.startswith("Error: ")]
    expected = "Django's system checks found 1 error: no hats (orders.E1) (celeriac --skip-checks starts without them)"
    assert line == f"Error: {expected}"
    assert "Traceback" not in worker.output
    assert (project.folder / "looked").read_text() == "x"
    for command, env in ((["--skip-checks"], {}), ([], {"CELERY_SKIP_CHECKS": "1"}), ([], {"SKIP_CHECKS": "1"})):
        full = [sys.executable, "-m", "celeriac", "-A", "shop", *command, "worker", "-c", "1"]
        started = worker_process(command=full, env=env)
        started.wait_ready()
        assert started.stop() == 0
    assert (project.folder / "looked").read_text() == "x"


@pytest.mark.behaviour("B-DJANGO-009")
@pytest.mark.parametrize("pool", ["prefork", "gevent", "solo"])
def test_system_checks_run_once_and_their_warnings_are_logged(
    project: DjangoProject, client: Celeriac, worker_process: Start, pool: str
) -> None:
    """[B-DJANGO-009] one run, whatever the number of processes"""
    project.write("orders/apps.py", CHECKS % "checks.Debug('nothing')")
    worker = worker_process("shop", "-c", "2", "--processes", "2", "-P", pool)
    worker.wait_ready()
    worker.wait_output(r"Django's system checks: hats are thin \(orders\.W1\)")
    result(client, "orders.tasks.write", "hat")
    assert worker.stop() == 0
    assert (project.folder / "looked").read_text() == "x"


def test_nothing_is_checked_where_tasks_are_only_sent(project: DjangoProject) -> None:
    project.write("orders/apps.py", CHECKS % "checks.Error('no hats')")
    project.run("-c", "from shop.celeriac import app; app.loader.import_default_modules()")
    assert not (project.folder / "looked").exists()


# connections


@pytest.mark.behaviour("B-DJANGO-008")
def test_connections_are_closed_between_tasks(project: DjangoProject, client: Celeriac, worker_process: Start) -> None:
    """[B-DJANGO-008] after a task, in every thread"""
    worker = worker_process("shop", "-c", "2", "-P", "threads")
    worker.wait_ready()
    assert [result(client, "orders.tasks.connects") for _ in range(4)] == [False] * 4
    assert worker.stop() == 0


@pytest.mark.behaviour("B-DJANGO-008")
def test_connections_that_may_live_longer_are_kept(
    project: DjangoProject, client: Celeriac, worker_process: Start
) -> None:
    """[B-DJANGO-008] as CONN_MAX_AGE says"""
    project.add("shop/settings.py", "DATABASES['default']['CONN_MAX_AGE'] = None")
    worker = worker_process("shop", "-c", "1")
    worker.wait_ready()
    assert [result(client, "orders.tasks.connects") for _ in range(3)] == [False, True, True]


@pytest.mark.behaviour("B-DJANGO-008")
def test_connections_serve_as_many_tasks_as_the_setting_says(
    project: DjangoProject, client: Celeriac, worker_process: Start
) -> None:
    """[B-DJANGO-008] CELERY_DB_REUSE_MAX"""
    project.add("shop/settings.py", "CELERY_DB_REUSE_MAX = 3")
    worker = worker_process("shop", "-c", "1")
    worker.wait_ready()
    found = [result(client, "orders.tasks.connects") for _ in range(7)]
    assert found == [False, True, True, False, True, True, False]


ASYNC = """
from asgiref.sync import sync_to_async

@shared_task
async def connects_later():
    was_connected = await sync_to_async(lambda: connection.connection is not None)()
    await Order.objects.acount()
    return was_connected
"""


@pytest.mark.behaviour("B-DJANGO-008")
@pytest.mark.parametrize("pool", ["prefork", "asyncio"])
@pytest.mark.parametrize(("age", "expected"), [(0, [False, False, False]), (None, [False, True, True])])
def test_the_connections_of_coroutines_are_closed_too(
    project: DjangoProject, client: Celeriac, worker_process: Start, pool: str, age: float | None, expected: list[bool]
) -> None:
    """[B-DJANGO-008] they are opened in another thread than the task's"""
    project.add("orders/tasks.py", ASYNC)
    project.add("shop/settings.py", f"DATABASES['default']['CONN_MAX_AGE'] = {age}")
    worker = worker_process("shop", "-P", pool, "-c", "1")
    worker.wait_ready()
    assert [result(client, "orders.tasks.connects_later") for _ in range(3)] == expected
    assert worker.stop() == 0


@pytest.mark.behaviour("B-DJANGO-008")
def test_eager_tasks_leave_the_connections_of_their_caller_alone(project: DjangoProject) -> None:
    """[B-DJANGO-008] they are non-eager tasks'"""
    program = """
import django; django.setup()
from django.db import connection
from shop.celeriac import app
from orders.tasks import connects
connection.ensure_connection()
before = connection.connection
assert connects.apply().get() is True
assert connection.connection is before
"""
    project.run("-c", program)


@pytest.mark.behaviour("B-DJANGO-008")
def test_caches_are_closed_after_a_task_and_what_the_import_opened_before_runners_start(
    project: DjangoProject, client: Celeriac, worker_process: Start
) -> None:
    """[B-DJANGO-008] caches, and connections in new processes"""
    project.write(
        "shop/cache.py",
        "from django.core.cache.backends.locmem import LocMemCache\n"
        "class Cache(LocMemCache):\n"
        "    def close(self, **_):\n"
        "        open('closed', 'a').write('x')\n",
    )
    project.add("shop/settings.py", "CACHES = {'default': {'BACKEND': 'shop.cache.Cache'}}")
    project.add("shop/settings.py", "DATABASES['default']['CONN_MAX_AGE'] = None")
    project.add("orders/tasks.py", "CHOICES = list(Order.objects.all())\nassert connection.connection is not None")
    project.add(
        "orders/tasks.py",
        "from django.core.cache import cache\n@shared_task\ndef cached():\n"
        "    cache.set('a', 1)\n    return len(open('closed').read())",
    )
    worker = worker_process("shop", "-c", "1")
    worker.wait_ready()
    assert result(client, "orders.tasks.connects") is False
    first, second, third = (result(client, "orders.tasks.cached") for _ in range(3))
    assert (second, third) == (first + 1, first + 2)
