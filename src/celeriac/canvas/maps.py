"""`xmap`, `xstarmap` and `chunks`: one task over many items.

`Task.map` and `Task.starmap` are one message for all items; `Task.chunks` makes a group of such messages, each for a
part of them. The built-in tasks that run them are in `builtins`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from celeriac.canvas.groups import group
from celeriac.safe_repr import saferepr
from celeriac.signature import Signature, maybe_signature

__all__ = ["chunks", "xmap", "xstarmap"]


class _Map(Signature):
    """A call of a built-in task with another task and the items for it."""

    _task_name: str

    def __init__(self, task: Any, it: Iterable[Any], **options: Any) -> None:
        inner, items = _as_signature(task), list(it)
        if inner._secrets():
            options.setdefault("kwargsrepr", f"{{'task': {inner!r}, 'it': {_shown(inner, items)}}}")
        super().__init__(self._task_name, (), {"task": inner, "it": items}, immutable=True, **options)
        self._app = self._app or inner._app

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        """The map whose dict form this is."""
        inner = d["kwargs"]
        return cls(maybe_signature(inner["task"], app), inner["it"], app=app, **(d.get("options") or {}))


@Signature.register_type()
class xmap(_Map):  # noqa: N801 -- Celery's documented name
    """One message that calls a task with each of the items; its result is the list of what they return."""

    _task_name = "celery.map"

    def __repr__(self) -> str:
        inner = self["kwargs"]
        return f"[{inner['task']['task']}(x) for x in {_shown(inner['task'], inner['it'])}]"


@Signature.register_type()
class xstarmap(_Map):  # noqa: N801 -- Celery's documented name
    """Like `xmap`, for items that are lists of arguments."""

    _task_name = "celery.starmap"

    def __repr__(self) -> str:
        inner = self["kwargs"]
        return f"[{inner['task']['task']}(*x) for x in {_shown(inner['task'], inner['it'])}]"


@Signature.register_type()
class chunks(Signature):  # noqa: N801 -- Celery's documented name
    """Lists of arguments in parts of `n`, each part a message; its result is a GroupResult of lists.

    Raises:
        ValueError: `n` is not a whole number above 0.
    """

    def __init__(self, task: Any, it: Iterable[Any], n: int, **options: Any) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"chunks of n={n!r}: n is to be a whole number above 0")
        inner = {"task": _as_signature(task), "it": list(it), "n": n}
        super().__init__("celery.chunks", (), inner, immutable=True, **options)
        self._app = self._app or inner["task"]._app

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        """The chunks whose dict form this is."""
        inner = d["kwargs"]
        return cls(maybe_signature(inner["task"], app), inner["it"], inner["n"], app=app, **(d.get("options") or {}))

    def __call__(self, **options: Any) -> Any:
        """Send it."""
        return self.apply_async(**options)

    def apply_async(self, args: Any = None, kwargs: Any = None, route_name: str | None = None, **options: Any) -> Any:
        """Send a message for each part; returns a GroupResult."""
        return self.group().apply_async(args, kwargs, **{**self.options, **options})

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run it here; returns a GroupResult of EagerResults."""
        return self.group().apply(args, kwargs, **options)

    def group(self) -> group:
        """The same as a group of `starmap` calls."""
        inner = self["kwargs"]
        parts = [xstarmap(inner["task"], part, app=self._app) for part in _parts(inner["it"], inner["n"])]
        return group(parts, app=self._app)

    @classmethod
    def apply_chunks(cls, task: Any, it: Iterable[Any], n: int, app: Any = None) -> Any:
        """Send chunks of these."""
        return cls(task, it, n, app=app)()

    def __repr__(self) -> str:
        inner = self["kwargs"]
        return f"{inner['task']['task']}.chunks({_shown(inner['task'], inner['it'])}, {inner['n']})"


def _parts(items: Iterable[Any], n: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while part := list(islice(iterator, n)):
        yield part


def _shown(task: Any, items: Any) -> str:
    """Text of the items: they are arguments, which may be secret."""
    return "***" if maybe_signature(task)._secrets() else saferepr(items, 200)


def _as_signature(task: Any) -> Any:
    return maybe_signature(task) if isinstance(task, Mapping) else task.s()
