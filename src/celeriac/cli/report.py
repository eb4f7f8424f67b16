"""`celeriac report`: versions, platform and changed settings, for a bug report. Passwords and keys are masked."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import click

from celeriac import __version__
from celeriac.cli.command_context import CommandContext, settings_of
from celeriac.config_mask import mask_url

__all__ = ["installed_packages", "report"]

#: Packages whose version matters; those that are not installed are left out.
_PACKAGES = (
    "click", "msgspec", "redis", "hiredis", "pika", "psycopg", "sqlalchemy", "boto3", "pymongo", "kazoo", "httpx",
    "gevent", "eventlet", "uvloop", "pydantic", "cryptography", "django",
)  # fmt: skip


@click.command()
@click.argument("settings", nargs=-1, metavar="[-- SETTING=VALUE …]")
@click.pass_obj
def report(context: CommandContext, /, settings: tuple[str, ...]) -> int:
    """Print what a bug report should say about this installation."""
    lines = [
        f"celeriac   {__version__}",
        f"python     {platform.python_version()} ({platform.python_implementation()})",
        f"platform   {platform.system()} {platform.release()}, {platform.machine()}",
        f"packages   {', '.join(installed_packages())}",
    ]
    if context.app_name or context.app is not None or context.changes or settings:
        app = context.find_app(settings_of(settings))
        store = app.conf.result_backend
        lines += [
            f"app        {app.main or '__main__'} ({len(app.tasks)} tasks)",
            f"broker     {_masked(app.conf.broker_url)}",
            f"results    {_masked(store) if store else 'disabled'}",
            "",
            app.conf.humanize(),
        ]
    click.echo("\n".join(lines).rstrip())
    return 0


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
