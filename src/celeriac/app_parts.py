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
from celeriac.safe_repr import MAX_LENGTH

if TYPE_CHECKING:
    from celeriac.amqp import AMQP
    from celeriac.app_pickling import AppPickler
    from celeriac.config import Settings
    from celeriac.control import Control
    from celeriac.hooks import Signal
    from celeriac.loader import Loader
    from celeriac.log_names import Logging

__all__ = ["AppParts"]

_AMQP = "celeriac.amqp:AMQP"


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
        plain_calls: dict[Any, Any]
        on_after_finalize: Signal

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

    # Classes of what is made below, or their paths: a subclass may name its own, or the constructor.

    amqp_cls: Any = _AMQP
    control_cls: Any = "celeriac.control:Control"
    loader_cls: Any = "celeriac.loader:Loader"
    log_cls: Any = "celeriac.log_names:Logging"

    def take_classes(self, **given: Any) -> None:
        """Use these classes, where they are not None: `amqp`, `control`, `loader`, `log`."""
        vars(self).update({f"{name}_cls": cls for name, cls in given.items() if cls is not None})
        if self.loader_cls not in ("app", "default", AppParts.loader_cls):
            self.on_after_finalize.connect(
                lambda **_: import_object("celeriac.loader:listen", "app.loader_cls")(self), weak=False
            )

    def _make(self, name: str) -> Any:
        given = getattr(self, f"{name}_cls")
        return (import_object(given, f"app.{name}_cls") if isinstance(given, str) else given)(self)

    @cached_property
    def amqp(self) -> AMQP:
        """Queues, routes and messages under Celery's names; see `celeriac.amqp.AMQP`."""
        made: AMQP = self._make("amqp")
        return made

    @cached_property
    def control(self) -> Control:
        """Remote control of workers; see `celeriac.control.Control`."""
        made: Control = self._make("control")
        return made

    @cached_property
    def log(self) -> Logging:
        """Sets up the logging of a program that is no worker; see `celeriac.log_names.Logging`."""
        made: Logging = self._make("log")
        return made

    @cached_property
    def loader(self) -> Loader:
        """Imports the modules of tasks: `app.loader.import_default_modules()`; see `celeriac.loader.Loader`."""
        if self.loader_cls in ("app", "default"):
            self.loader_cls = AppParts.loader_cls
        made: Loader = self._make("loader")
        return made

    @cached_property
    def Pickler(self) -> type[AppPickler]:  # noqa: N802 -- Celery's documented name
        """Class of what pickles this app; see `celeriac.app_pickling.AppPickler`."""
        made: type[AppPickler] = import_object("celeriac.app_pickling:AppPickler", "app.Pickler")
        return made

    @property
    def annotations(self) -> list[Any]:
        """The setting `task_annotations` as a list: what is applied to each task in turn."""
        given = self.conf.task_annotations
        return list(given) if isinstance(given, (list, tuple)) else [given] if given else []

    @cached_property
    def repr_sizes(self) -> tuple[int, int] | None:
        """Longest texts of arguments and of keyword arguments in headers; None for the usual ones. `app.amqp` sets them."""
        if self.amqp_cls == _AMQP:
            return None
        sizes = self.amqp.argsrepr_maxsize, self.amqp.kwargsrepr_maxsize
        return None if sizes == (MAX_LENGTH, MAX_LENGTH) else sizes

    def set_repr_sizes(self, args: int, kwargs: int) -> None:
        """Change them."""
        self.__dict__["repr_sizes"] = (args, kwargs)
        self.plain_calls.clear()

    @cached_property
    def user_options(self) -> dict[str, set[Any]]:
        """Options of your own on the command line: add a `click.Option` to the set of "preload" or of "worker"."""
        return {"worker": set(), "beat": set(), "events": set(), "preload": set()}

    def tell_preload_options(self, command: str, arguments: Sequence[str]) -> None:
        """Send the signal `user_preload_options`, if the app has such options. The command line calls it."""
        if self.user_options["preload"]:
            import_object("celeriac.preload:tell_preload_options", "user_options")(self, command, arguments)

    def command_options(self, command: str, arguments: Sequence[str]) -> dict[str, Any]:
        """What the options of your own say that this command alone takes. The command line calls it."""
        if not self.user_options[command]:
            return {}
        found: dict[str, Any] = import_object("celeriac.preload:command_options", "user_options")(
            self, command, arguments
        )
        return found

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
