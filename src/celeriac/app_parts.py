"""What an app makes when somebody asks for it: remote control, logging, the loader. A base of `app.Celeriac`.

Each is imported then and not before: programs that only send tasks need none of them.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from celeriac.loading import import_object

if TYPE_CHECKING:
    from celeriac.control import Control
    from celeriac.loader import Loader
    from celeriac.log_names import Logging

__all__ = ["AppParts"]


class AppParts:
    """What an app makes when it is first used."""

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

    def bugreport(self) -> str:
        """Versions, platform and changed settings, for a bug report; secrets are masked."""
        return str(import_object("celeriac.bug_report:bug_report", "bugreport")(self))

    def setup_security(self, *args: Any, **kwargs: Any) -> None:
        """Sign all messages: `security.setup_security` has the arguments."""
        import_object("celeriac.security:setup_security", "setup_security() (pip install celeriac[auth])")(
            *args, app=self, **kwargs
        )
