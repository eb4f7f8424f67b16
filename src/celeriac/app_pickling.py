"""Pickling an app: it comes back in another process as an app of the same class with the same settings.

Tasks are not part of it: the process that unpickles imports or defines them. What is pickled has the settings as they are,
those of the environment and of a configuration module too, so passwords of URLs among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["AppPickler", "reduced"]

#: Arguments of the constructor, in the order in which Celery's older pickles had them.
_STANDARD = ("main", "changes", "loader", "backend", "amqp", "events", "log", "control")
#: Attributes of an app that are arguments of its constructor, and the argument's name.
_CLASSES = {
    "amqp_cls": "amqp", "control_cls": "control", "loader_cls": "loader", "log_cls": "log", "task_cls": "task_cls",
}  # fmt: skip


class AppPickler:
    """Takes apps apart and puts them together. A subclass may be put in the place of `app.Pickler`."""

    def state(self, app: Celeriac) -> dict[str, Any]:
        """The arguments that make the app again."""
        source, namespace, silent = app._config
        kwargs: dict[str, Any] = {
            "main": app.main, "autofinalize": app.autofinalize, "strict_typing": app.strict_typing,
            "middleware": list(app.middleware),
        }  # fmt: skip
        for attribute, argument in _CLASSES.items():
            if attribute in vars(app) and getattr(app, attribute) != getattr(type(app), attribute):
                kwargs[argument] = getattr(app, attribute)
        if "conf" not in vars(app) and (source is None or isinstance(source, str)):
            where = {"config_source": source, "namespace": namespace, "config_source_silent": silent}
            return {**kwargs, **where, "changes": dict(app._changes)}
        return {**kwargs, "changes": app.conf.without_defaults()}

    def __call__(self, cls: type[Celeriac], *args: Any) -> Celeriac:
        """Make the app of what was pickled."""
        kwargs = self.build_kwargs(*args)
        app = self.construct(cls, **kwargs)
        self.prepare(app, **kwargs)
        return app

    def build_kwargs(self, *args: Any) -> dict[str, Any]:
        """The arguments of the constructor, out of a mapping, or of positions as older pickles have them."""
        if len(args) == 1 and isinstance(args[0], Mapping):
            return dict(args[0])
        return self.build_standard_kwargs(*args)

    def build_standard_kwargs(self, *args: Any) -> dict[str, Any]:
        """Arguments by name: main, changes, loader, backend, amqp, events, log, control."""
        return dict(zip(_STANDARD, args, strict=False))

    def construct(self, cls: type[Celeriac], **kwargs: Any) -> Celeriac:
        """The app."""
        return cls(**{**kwargs, "set_as_current": False})

    def prepare(self, app: Celeriac, **kwargs: Any) -> None:
        """Override: called with each app that was made."""


def reduced(app: Celeriac) -> tuple[Any, ...]:
    """What pickle is to write."""
    pickler = app.Pickler()
    return _again, (type(pickler), type(app), pickler.state(app))


def _again(pickler: type[AppPickler], cls: type[Celeriac], state: dict[str, Any]) -> Celeriac:
    return pickler()(cls, state)
