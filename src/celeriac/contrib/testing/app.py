"""Apps for tests: in memory, and with a trap for code that reaches for the current app by mistake.

Celery documents these names in `celery.contrib.testing.app`. The fixtures of `celeriac.contrib.pytest` are made of them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celeriac import current

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["TestApp", "Trap", "set_trap", "setup_default_app"]


def _settings() -> dict[str, Any]:
    """Celery's settings of test apps. Each has a broker and a result store of its own."""
    name = uuid.uuid4().hex
    return {
        "worker_hijack_root_logger": False,
        "worker_log_color": False,
        "accept_content": ["json"],
        "enable_utc": True,
        "timezone": "UTC",
        "broker_url": f"memory://{name}",
        "result_backend": f"cache+memory://{name}",
        "broker_heartbeat": 0,
    }


def TestApp(  # noqa: N802 -- Celery's documented name
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    enable_logging: bool = False,
    set_as_current: bool = False,
    log: Any = None,
    backend: str | None = None,
    broker: str | None = None,
    **kwargs: Any,
) -> Celeriac:
    """An app for one test.

    Args:
        config: Settings that rank above those of test apps.
        enable_logging, log: No effect: an app does not touch logging; a worker inside a program doesn't either.
    """
    settings = {**_settings(), **(config or {})}
    app: Celeriac = current.app_class()(
        name or "celeriac.tests",
        set_as_current=set_as_current,
        broker=broker,
        backend=backend,
        changes=settings,
        **kwargs,
    )
    return app


class Trap:
    """Stands for the current app, and raises RuntimeError whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(
            f"this test reaches for the current app ({name}): use the app of the test, or depends_on_current_app"
        )


@contextmanager
def set_trap(app: Celeriac) -> Iterator[None]:
    """While the block runs, whoever asks for the current app gets a trap.

    Args:
        app: No effect: after the block, the current app is what it was before.
    """
    with _current(Trap()):
        yield


@contextmanager
def setup_default_app(app: Celeriac, use_trap: bool = False) -> Iterator[None]:
    """While the block runs, `app` is the current one of this and of all threads, or a trap is."""
    with _current(Trap() if use_trap else app):
        yield


@contextmanager
def _current(app: Any) -> Iterator[None]:
    before = current.current_apps()
    current.set_current_app(app)
    current.set_default_app(app)
    try:
        yield
    finally:
        current.restore_apps(before)
