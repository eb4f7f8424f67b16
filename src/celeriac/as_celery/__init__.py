"""The import hook: after `install()`, what programs import from `celery` and `kombu` is celeriac's.

For programs that can't change their imports, their own or those of libraries. `names` is the table of what resolves to
what, `later` what this version does not have; `finder` makes the modules, `app` the class `Celery` with Celery's defaults.
`python -m celeriac.as_celery` runs a script, a module or the command line under the hook. Nothing of ours imports this.
"""

from __future__ import annotations

import os
import sys

from celeriac import current
from celeriac.app import Celeriac
from celeriac.as_celery.app import Celery
from celeriac.as_celery.finder import ROOTS, AliasFinder, AliasModule
from celeriac.errors import ImproperlyConfigured
from celeriac.loading import PRELOAD

__all__ = ["install", "is_installed", "uninstall"]

#: How the processes of a worker are told to install the hook before they import the app.
_ITSELF = "celeriac.as_celery:install"


def install() -> None:
    """Make `celery` and `kombu` ours in this process, and in the processes of workers that it starts.

    Cheap: modules are made when they are imported, and their names are looked up when they are used. Calling it again
    changes nothing.

    Raises:
        ImproperlyConfigured: Celery or kombu themselves were imported before.
    """
    if is_installed():
        return
    stock = next((name for name in sys.modules if _is_stock(name)), None)
    if stock is not None:
        where = getattr(sys.modules[stock], "__file__", None) or "an unknown place"
        raise ImproperlyConfigured(
            f"celeriac.as_celery.install() comes too late: {stock!r} was imported already, from {where}. Call it before "
            "anything imports celery or kombu, or use python -m celeriac.as_celery."
        )
    sys.meta_path.insert(0, AliasFinder())
    current.set_app_class(Celery)
    preloads = os.environ.get(PRELOAD, "").split(",")
    if _ITSELF not in preloads:
        os.environ[PRELOAD] = ",".join(filter(None, [*preloads, _ITSELF]))


def is_installed() -> bool:
    """Whether the hook is in place."""
    return any(isinstance(finder, AliasFinder) for finder in sys.meta_path)


def uninstall() -> None:
    """Take the hook away. What was imported through it stays as it is where it was imported; for tests."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, AliasFinder)]
    for name, module in list(sys.modules.items()):
        if isinstance(module, AliasModule):
            del sys.modules[name]
    current.set_app_class(Celeriac)
    left = [entry for entry in os.environ.pop(PRELOAD, "").split(",") if entry not in ("", _ITSELF)]
    if left:
        os.environ[PRELOAD] = ",".join(left)


def _is_stock(name: str) -> bool:
    return name.partition(".")[0] in ROOTS and not isinstance(sys.modules[name], AliasModule)
