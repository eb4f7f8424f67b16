"""A small Django project in a folder, with an app of its own, a database in a file, and a celeriac app as users have it.

`DjangoProject` writes it; tests add settings, and modules of their own, before they start a worker.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from celeriac import Celeriac
from tests.support.command import environment

__all__ = ["DjangoProject", "run_python"]

SETTINGS = """
SECRET_KEY = "s"
USE_TZ = True
TIME_ZONE = "Asia/Tokyo"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["orders.apps.OrdersConfig", "plain"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "%(folder)s/shop.db"}}
CELERY_BROKER_URL = CELERY_RESULT_BACKEND = "%(url)s"
CELERY_TASK_DEFAULT_PRIORITY = 4
"""
APP = """
import os
from celeriac import Celeriac

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
app = Celeriac("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""
APPS = """
from django.apps import AppConfig

class OrdersConfig(AppConfig):
    name = "orders"
"""
MODELS = """
from django.db import models

class Order(models.Model):
    text = models.TextField()
"""
TASKS = """
from celeriac import shared_task
from django.db import connection, transaction
from orders.models import Order

@shared_task
def texts():
    return [order.text for order in Order.objects.order_by("pk")]

@shared_task
def write(text):
    Order.objects.create(text=text)

@shared_task
def order(text):
    with transaction.atomic():
        Order.objects.create(text=text)
        confirm.delay_on_commit(text)

@shared_task
def confirm(text):
    Order.objects.filter(text=text).update(text=f"{text} is confirmed")

@shared_task
def connects():
    was_connected = connection.connection is not None
    Order.objects.count()
    return was_connected
"""


def run_python(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What Python prints that is run with these arguments in a folder, whose modules it finds; with all warnings."""
    given = {**environment(), **(env or {})}
    given["PYTHONPATH"] = os.pathsep.join([str(folder), given["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-W", "always", *arguments],
        cwd=folder, env=given, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class DjangoProject:
    """The project `shop`, with the apps `orders` and `plain`.

    Args:
        folder: Where it is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/q.db"
        self.write("shop/__init__.py", "")
        self.write("shop/settings.py", SETTINGS % {"folder": folder, "url": self.url})
        self.write("shop/celeriac.py", APP)
        self.write("orders/apps.py", APPS)
        self.write("orders/models.py", MODELS)
        self.write("orders/tasks.py", TASKS)
        self.write("plain/__init__.py", "")

    def write(self, path: str, text: str) -> None:
        """Write a file of the project."""
        place = self.folder / path
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)

    def add(self, path: str, text: str) -> None:
        """Add lines to a file of the project."""
        with (self.folder / path).open("a") as file:
            file.write(f"\n{text}\n")

    def migrate(self) -> None:
        """Make the tables."""
        self.run("-m", "django", "migrate", "--run-syncdb", "-v", "0")

    def run(self, *arguments: str, is_project: bool = True) -> str:
        """What Python prints that is run with these arguments in the project's folder."""
        env = {"DJANGO_SETTINGS_MODULE": "shop.settings"} if is_project else {}
        return run_python(self.folder, *arguments, env=env)

    def client(self) -> Celeriac:
        """An app that sends tasks to the project's workers."""
        return Celeriac("client", broker=self.url, backend=self.url, set_as_current=False)
