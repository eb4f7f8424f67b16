"""What an app has beside settings, tasks and connections: remote control, logging, the loader, small questions about it.

A base of `app.Celeriac`. What is made is imported when somebody asks for it and not before: programs that only send tasks need
none of it.
"""

from __future__ import annotations

import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, tzinfo
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from celeriac.config import from_cmdline
from celeriac.loading import import_object

if TYPE_CHECKING:
    from celeriac.config import Settings
    from celeriac.control import Control
    from celeriac.loader import Loader
    from celeriac.log_names import Logging

__all__ = ["AppParts"]


class AppParts:
    """What an app makes when it is first used, and what can be asked of it."""

    #: Which system this is.
    SYSTEM = {"darwin": "Darwin", "win32": "Windows"}.get(sys.platform, sys.platform.capitalize())
    IS_macOS = sys.platform == "darwin"  # noqa: N815 -- Celery's documented name
    IS_WINDOWS = sys.platform == "win32"
    #: What takes part in making an app, as "module:function". It is called with the app, and what it returns, if anything, is
    #: told of the app's life: `on_import_modules()`, `autodiscover_tasks()` (which gives names of packages), `before_fork()`.
    builtin_fixups: ClassVar[Iterable[str]] = frozenset({"celeriac.contrib.django:fixup"})
    _fixups: Sequence[Any] = ()

    if TYPE_CHECKING:

        @cached_property
        def conf(self) -> Settings:
            """The settings."""

        @cached_property
        def timezone(self) -> tzinfo:
            """Time zone of naive times."""

    def fix_up(self, paths: Iterable[str] | None) -> None:
        """Let fixups take part in this app; without paths those of its class."""
        made = [import_object(path, "fixups")(self) for path in (self.builtin_fixups if paths is None else paths)]
        self._fixups = [fixup for fixup in made if fixup is not None]

    def tell_fixups(self, method: str) -> list[Any]:
        """Call this method of each fixup that has it; returns what they gave."""
        return [getattr(fixup, method)() for fixup in self._fixups if hasattr(fixup, method)]

    @cached_property
    def control(self) -> Control:
        """Remote control of workers; see `celeriac.control.Control`."""
        made: Control = import_object("celeriac.control:Control", "app.control")(self)
        return made

    @cached_property
    def log(self) -> Logging:
        """Sets up the logging of a program that is no worker; see `celeriac.log_names.Logging`."""
        made: Logging = import_object("celeriac.log_names:Logging", "app.log")(self)
        return made

    @cached_property
    def loader(self) -> Loader:
        """Imports the modules of tasks: `app.loader.import_default_modules()`; see `celeriac.loader.Loader`."""
        made: Loader = import_object("celeriac.loader:Loader", "app.loader")(self)
        return made

    @cached_property
    def user_options(self) -> dict[str, set[Any]]:
        """Options of your own on the command line: add a `click.Option` to `app.user_options["preload"]`."""
        return {"worker": set(), "beat": set(), "events": set(), "preload": set()}

    def tell_preload_options(self, command: str, arguments: Sequence[str]) -> None:
        """Send the signal `user_preload_options`, if the app has such options. The command line calls it."""
        if self.user_options["preload"]:
            import_object("celeriac.preload:tell_preload_options", "user_options")(self, command, arguments)

    def bugreport(self) -> str:
        """Versions, platform and changed settings, for a bug report; secrets are masked."""
        return str(import_object("celeriac.bug_report:bug_report", "bugreport")(self))

    def setup_security(self, *args: Any, **kwargs: Any) -> None:
        """Sign all messages: `security.setup_security` has the arguments."""
        import_object("celeriac.security:setup_security", "setup_security() (pip install celeriac[auth])")(
            *args, app=self, **kwargs
        )

    def config_from_cmdline(self, argv: Sequence[str], namespace: str = "celery") -> None:
        """Change settings by arguments such as `worker.prefetch_multiplier=10` or `task_acks_late=true`.

        Raises:
            ImproperlyConfigured: One is no setting, or its value is not allowed.
        """
        self.conf.update(from_cmdline(argv))

    def uses_utc_timezone(self) -> bool:
        """Whether naive times are in UTC."""
        return self.timezone is UTC or str(self.timezone).upper() == "UTC"

    def type_checker(self, fun: Callable[..., Any], bound: bool = False) -> Callable[..., None]:
        """A function that takes the arguments of `fun`, and raises TypeError for others."""
        check: Callable[..., None] = import_object("celeriac.arguments:argument_checker", "typing")(fun, bound=bound)
        return check

    def subclass_with_self(
        self, Class: Any, name: str | None = None, attribute: str = "app", reverse: str | None = None,  # noqa: N803
        keep_reduce: bool = False, **kw: Any,
    ) -> Any:  # fmt: skip
        """A subclass that has this app as an attribute.

        Args:
            Class: A class, or its path.
            name: Its name; by default the same.
            attribute: Which attribute that is.
            reverse: An attribute of the app that holds the subclass: pickled instances find their class there.
            keep_reduce: Instances are pickled as those of `Class` are.
            kw: Further attributes.
        """
        base = import_object(Class, "subclass_with_self") if isinstance(Class, str) else Class
        body = {attribute: self, "__module__": base.__module__, "__doc__": base.__doc__, **kw}
        if not keep_reduce:
            found = reverse or base.__name__
            body["__reduce__"] = lambda instance: (_again, (self, found), vars(instance))
        return type(name or base.__name__, (base,), body)

    @property
    def thread_oid(self) -> str:
        """Id of this thread in this app and process."""
        local = vars(self).setdefault("_thread_local", threading.local())
        if not hasattr(local, "oid"):
            local.oid = str(uuid.uuid4())
        return str(local.oid)


def _again(app: Any, attribute: str) -> Any:
    cls = getattr(app, attribute)
    return cls.__new__(cls)
