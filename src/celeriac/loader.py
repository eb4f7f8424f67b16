"""What imports an app's modules and reads its configuration, under Celery's documented names: `app.loader`.

celeriac has one way to do both, so there is one class. Programs that call it (to import the task modules without a
worker, say) work; a subclass takes part with what it overrides of `import_module`, `import_task_module` and
`read_configuration` only when it calls them itself. Hooks around tasks and workers are signals: see docs/hooks.md.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celeriac.config import Settings, from_cmdline
from celeriac.loading import autodiscover, import_object
from celeriac.objects import import_from_cwd

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["DEFAULT_CONFIG_MODULE", "Loader", "get_loader_cls"]

#: Where `Loader.read_configuration` looks if nothing is named.
DEFAULT_CONFIG_MODULE = "celeryconfig"


class Loader:
    """Imports and configures for one app."""

    builtin_modules: frozenset[str] = frozenset()
    override_backends: dict[str, str] = {}

    def __init__(self, app: Celeriac, **kwargs: Any) -> None:
        self.app = app
        self.task_modules: set[str] = set()

    # settings

    @property
    def conf(self) -> Settings:
        """The settings of the app."""
        return self.app.conf

    @property
    def configured(self) -> bool:
        """Whether they were read."""
        return "conf" in self.app.__dict__

    def config_from_object(self, obj: Any, silent: bool = False) -> bool:
        """Read settings from an object, a module or their path; False if there is none and `silent` says so."""
        try:
            self.app.config_from_object(obj, force=True)
        except ImportError:
            if not silent:
                raise
            return False
        return True

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> dict[str, Any]:
        """The names of the module that the variable names, else of `celeryconfig`; empty if that is not there."""
        name = os.environ.get(env)
        if name is None and importlib.util.find_spec(DEFAULT_CONFIG_MODULE) is None:
            return {}
        module = import_from_cwd(name or DEFAULT_CONFIG_MODULE)
        return {key: value for key, value in vars(module).items() if not key.startswith("_")}

    def cmdline_config_parser(
        self, args: Sequence[str], namespace: str = "celery", re_type: Any = None, extra_types: Any = None,
        override_types: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Settings from arguments such as `worker.prefetch_multiplier=10`; types are known, nothing needs to name them."""
        return from_cmdline(args)

    # modules

    @property
    def default_modules(self) -> set[str]:
        """The modules that settings name."""
        return {*self.builtin_modules, *self.conf.imports, *self.conf.include}

    def import_default_modules(self) -> list[Any]:
        """Import what a worker imports: the modules that settings name, and what `autodiscover_tasks` asked for."""
        self.app.import_modules()
        return [importlib.import_module(module) for module in sorted(self.default_modules)]

    def import_task_module(self, module: str) -> Any:
        """Import a module of tasks."""
        self.task_modules.add(module)
        return self.import_from_cwd(module)

    def import_module(self, module: str, package: str | None = None) -> Any:
        """Import a module."""
        return importlib.import_module(module, package=package)

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> Any:
        """Import a module that may be in the working directory."""
        return import_from_cwd(module, imp or self.import_module, package)

    def find_module(self, module: str) -> Any:
        """Where a module is, without importing it; None if nowhere."""
        return importlib.util.find_spec(module)

    def autodiscover_tasks(self, packages: Iterable[str], related_name: str | None = "tasks") -> None:
        """Import `<package>.<related_name>` of each package that has it."""
        self.task_modules.update(module.__name__ for module in autodiscover(packages, related_name))

    def now(self, utc: bool = True) -> datetime:
        """The present moment, in UTC or in local time, without a zone."""
        return datetime.now(UTC).replace(tzinfo=None) if utc else datetime.now()


def get_loader_cls(loader: Any) -> type[Loader]:
    """The class of this name: "app" and "default" are `Loader`, another one is a path."""
    if loader in ("app", "default", None):
        return Loader
    found: type[Loader] = import_object(loader, "loader") if isinstance(loader, str) else loader
    return found
