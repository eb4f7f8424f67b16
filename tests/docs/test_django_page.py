"""Who follows the page about Django, from an empty folder, has a project whose tasks run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.django_project import run_python
from tests.support.worker import WorkerProcess

PAGE = (Path(__file__).parents[2] / "docs" / "django.md").read_text("utf-8")
#: What the page leaves to the reader.
MODEL = """
from django.db import models

class Order(models.Model):
    is_shipped = models.BooleanField(default=False)
"""
USE = """
import django; django.setup()
from django.test import RequestFactory
from orders.views import buy
print(buy(RequestFactory().post("/")).content.decode())
"""


def test_it_leads_to_tasks_that_run(tmp_path: Path, worker_process: Callable[..., WorkerProcess]) -> None:
    run_python(tmp_path, "-m", "django", "startproject", "shop", ".")
    run_python(tmp_path, "-m", "django", "startapp", "orders")
    for where, text in re.findall(r"```python\n# (.*?)\n(.*?)```", PAGE, re.DOTALL):
        path = tmp_path / where.removeprefix("added to ")
        path.write_text(path.read_text() + text if where.startswith("added to ") else text)
    with (tmp_path / "shop/settings.py").open("a") as settings:
        settings.write("INSTALLED_APPS += ['orders']\n")
    (tmp_path / "orders/models.py").write_text(MODEL)
    run_python(tmp_path, "manage.py", "makemigrations", "orders", "-v", "0")
    run_python(tmp_path, "manage.py", "migrate", "-v", "0")
    command = re.search(r"\$ celeriac (.*worker.*)", PAGE)
    assert command is not None
    options = command[1].split()
    worker = worker_process(options[1], *options[3:], "-c", "1")
    worker.wait_ready()
    assert run_python(tmp_path, "-c", USE, env={"DJANGO_SETTINGS_MODULE": "shop.settings"}).strip() == "1"
    worker.wait_output(r"Task orders\.tasks\.ship\[.*\] succeeded")
    assert worker.stop() == 0


@pytest.mark.parametrize(
    "name", ["delay_on_commit", "apply_async_on_commit", "CELERY_DB_REUSE_MAX", "CELERY_SKIP_CHECKS"]
)
def test_it_names_what_there_is(name: str) -> None:
    assert name in PAGE
