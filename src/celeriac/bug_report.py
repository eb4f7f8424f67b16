"""What a bug report should say about an installation: versions, platform, and the changed settings of an app.

`celeriac report`, `app.bugreport()` and `celeriac.bugreport()` show it. Passwords and keys are masked.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from celeriac.config_mask import mask_url

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["appstr", "bug_report", "installed_packages"]

#: Packages whose version matters; those that are not installed are left out.
_PACKAGES = (
    "click", "msgspec", "redis", "hiredis", "pika", "psycopg", "sqlalchemy", "boto3", "pymongo", "kazoo", "httpx",
    "gevent", "eventlet", "uvloop", "pydantic", "cryptography", "django",
)  # fmt: skip


def appstr(app: Celeriac) -> str:
    """Which app this is, for logs: its main name and where it is."""
    return f"{app.main or '__main__'} at {id(app):#x}"


def bug_report(app: Celeriac | None = None) -> str:
    """Lines about this installation and, if there is one, about an app."""
    lines = [
        f"python     {platform.python_version()} ({platform.python_implementation()})",
        f"platform   {platform.system()} {platform.release()}, {platform.machine()}",
        f"packages   {', '.join(installed_packages())}",
    ]
    if app is not None:
        store = app.conf.result_backend
        lines += [
            f"app        {app.main or '__main__'} ({len(app.tasks)} tasks)",
            f"broker     {_masked(app.conf.broker_url)}",
            f"results    {_masked(store) if store else 'disabled'}",
            "",
            app.conf.humanize(),
        ]
    return "\n".join(lines).rstrip()


def _masked(url: str | list[str]) -> str:
    return ", ".join(map(mask_url, [url] if isinstance(url, str) else url))


def installed_packages() -> list[str]:
    """The packages that matter and are here, with their versions."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found
