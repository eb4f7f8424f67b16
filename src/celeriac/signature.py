"""A call that is not yet sent: task name, arguments and options, as a dict that travels as it is.

Follows Celery's documented `Signature` and its wire form (six keys). The app is only needed to send it and is found late:
the one it was made with, else the current app. Layer 1: it never imports the app.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from celeriac.current import get_current_app
from celeriac.loading import import_object

__all__ = ["Signature", "maybe_signature", "signature"]

S = TypeVar("S", bound="type[Signature]")


class Signature(dict[str, Any]):
    """One call, not yet sent.

    Args:
        task: Name of the task, a task, or the dict form of a signature.
        args: Positional arguments; those given when it is called come in front.
        kwargs: Keyword arguments; those given when it is called win.
        options: Options of `apply_async`.
        immutable: Ignore arguments given when it is called.
        app: The app that sends it; default: the current app at that moment.

    Example:
        >>> add.s(2).apply_async((3,))  # add(3, 2)
    """

    #: Classes of composites by `subtask_type`; the modules of `canvas` put theirs in.
    TYPES: ClassVar[dict[str, Any]] = {}

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[S], S]:
        """Class decorator: signatures whose `subtask_type` is `name` become instances of that class."""

        def register(subclass: S) -> S:
            Signature.TYPES[name or subclass.__name__] = subclass
            return subclass

        return register

    def __init__(
        self,
        task: Any = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Any = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Any = None,
        **ex: Any,
    ) -> None:
        self._app = app
        if not isinstance(task, str):  # first, since asking for a Mapping takes as long as all the rest
            if isinstance(task, Mapping):
                super().__init__(copy.deepcopy(dict(task)))
                self["options"] = {**(self.get("options") or {}), **ex}
                for key, value in _EMPTY.items():
                    self.setdefault(key, copy.copy(value))
                return
            if task is not None:
                self._app = app or task.app
                task = task.name
        super().__init__(
            task=task,
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            options={**options, **ex} if options else ex,
            subtask_type=subtask_type,
            immutable=immutable,
        )

    @classmethod
    def of_call(
        cls, task: str, args: tuple[Any, ...], kwargs: dict[str, Any], app: Any, *, immutable: bool = False
    ) -> Signature:
        """The signature of a call that was just written down: its tables are its own, so none is copied (half the time)."""
        made = cls.__new__(cls)
        made._app = app
        made["task"], made["args"], made["kwargs"], made["options"] = task, args, kwargs, {}
        made["subtask_type"], made["immutable"] = None, immutable
        return made

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        """The signature whose dict form this is: of a composite, an instance of its class."""
        kind = Signature.TYPES.get(d.get("subtask_type") or "")
        if kind is not None and kind is not cls:
            found: Signature = kind.from_dict(d, app=app)
            return found
        twin = Signature.__new__(Signature)
        dict.__init__(twin, d)
        twin._app = app
        for key, value in _EMPTY.items():
            twin.setdefault(key, value)
        for key in (
            "kwargs",
            "options",
        ):  # a worker makes one for each step of a chain: no more is copied than may change
            twin[key] = dict(d.get(key) or {})
        return twin

    # what it holds

    @property
    def app(self) -> Any:
        """The app that would send it."""
        return self._app or get_current_app()

    @property
    def AsyncResult(self) -> Any:  # noqa: N802 -- Celery's documented name
        """Makes results of its task: `signature.AsyncResult(task_id)`."""
        task = self.app.tasks.get(self["task"])
        return self.app.AsyncResult if task is None else task.AsyncResult

    def election(self) -> Any:
        """Let stock workers choose one of them to send it; see `Control.election`. Returns the result to come."""
        task_id = self.options.get("task_id") or import_object("celeriac.sending:new_id", "election")()
        self.app.control.election(task_id, "task", self.clone(task_id=task_id))
        return self.AsyncResult(task_id)

    @property
    def type(self) -> Any:
        """The task, as registered with the app."""
        return self.app.tasks[self["task"]]

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self["task"])

    name = task

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments."""
        return tuple(self["args"] or ())

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments."""
        found: dict[str, Any] = self["kwargs"] or {}
        return found

    @property
    def options(self) -> dict[str, Any]:
        """Options of `apply_async`."""
        found: dict[str, Any] = self["options"]
        return found

    @property
    def immutable(self) -> bool:
        """Whether further arguments are ignored."""
        return bool(self["immutable"])

    @property
    def subtask_type(self) -> str | None:
        """Kind of a composite: "chain", "group", …; None for a single task."""
        kind: str | None = self["subtask_type"]
        return kind

    @property
    def id(self) -> str | None:
        """Task id, once frozen or set."""
        return self.options.get("task_id")

    @property
    def root_id(self) -> str | None:
        """Id of the workflow's first task."""
        return self.options.get("root_id")

    @property
    def parent_id(self) -> str | None:
        """Id of the task that sends it."""
        return self.options.get("parent_id")

    # sending

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Run the task here, in this process, with these arguments added."""
        args, kwargs, _ = self.merge(partial_args, partial_kwargs, None)
        return self.type(*args, **kwargs)

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Send it with these arguments added."""
        return self.apply_async(partial_args, partial_kwargs)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run it here as a worker would; returns an EagerResult."""
        args, kwargs, options = self.merge(args, kwargs, options)
        return self.type.apply(args, kwargs, **options)

    def apply_async(self, args: Any = None, kwargs: Any = None, route_name: str | None = None, **options: Any) -> Any:
        """Send it; returns an AsyncResult."""
        args, kwargs, options = self.merge(args, kwargs, options)
        app = self.app
        task = app.tasks.get(self["task"])
        if task is None:
            return app.send_task(self["task"], args, kwargs, **options)
        return task.apply_async(args, kwargs, **options)

    async def adelay(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """`delay` for coroutines."""
        return await self.aapply_async(partial_args, partial_kwargs)

    async def aapply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """`apply_async` for coroutines. A workflow is sent by a thread."""
        if type(self) is not Signature:
            run = import_object("celeriac.batching:run_aside", "aapply_async")
            return await run(self.apply_async, args, kwargs, **options)
        args, kwargs, options = self.merge(args, kwargs, options)
        return await self.app.asend_task(self["task"], args, kwargs, **options)

    def merge(
        self, args: Any, kwargs: Any, options: Any, force: bool = False
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        """Arguments and options of a call with these added: args in front, kwargs and options win."""
        merged_options = {**self.options, **options} if options else dict(self.options)
        if self.immutable and not force:
            return self.args, dict(self.kwargs), merged_options
        return (
            tuple(args) + self.args if args else self.args,
            {**self.kwargs, **kwargs} if kwargs else dict(self.kwargs),
            merged_options,
        )

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give it the ids with which it will be sent; returns its result to come."""
        given = {"group_id": group_id, "chord": chord, "root_id": root_id, "parent_id": parent_id}
        self.options.update({key: value for key, value in given.items() if value is not None})
        if group_index is not None:
            self.options["group_index"] = group_index
        return import_object("celeriac.canvas.freezing:freeze", "freeze")(self, self.app, _id)

    # stamps

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> None:
        """Put stamps on this signature and on those inside it and linked to it.

        Args:
            visitor: A `StampingVisitor`, asked for the stamps of each.
            append_stamps: Add to the stamps that are there instead of replacing those of the same name.
            headers: Stamps for all of them.
        """
        import_object("celeriac.canvas.stamping:stamp", "stamp")(self, visitor, append_stamps, headers)

    def stamp_links(self, visitor: Any, append_stamps: bool = False, **headers: Any) -> None:
        """Put stamps on what is linked to this signature."""
        import_object("celeriac.canvas.stamping:stamp_links", "stamp")(self, visitor, append_stamps, headers)

    # composing

    def __or__(self, other: Any) -> Any:
        """`a | b`: b is called with what a returns."""
        if not isinstance(other, Signature):
            raise TypeError(f"a signature can be chained with another signature only, not with {other!r}")
        return import_object("celeriac.canvas.composing:join", "|")(self, other)

    def __ior__(self, other: Any) -> Any:
        return self.__or__(other)

    def __invert__(self) -> Any:
        """`~s`: send it and wait for its value."""
        return self.apply_async().get()

    # making others of it

    def clone(self, args: Any = None, kwargs: Any = None, **opts: Any) -> Signature:
        """A copy with these arguments and options added."""
        merged_args, merged_kwargs, merged_options = self.merge(args, kwargs, opts)
        twin = copy.deepcopy(self)
        twin["args"] = copy.deepcopy(merged_args)
        twin["kwargs"] = copy.deepcopy(merged_kwargs)
        twin["options"] = copy.deepcopy(merged_options)
        return twin

    partial = clone

    def replace(self, args: Any = None, kwargs: Any = None, options: Any = None) -> Signature:
        """A copy with these arguments and options in place of its own."""
        twin = self.clone()
        if args is not None:
            twin["args"] = args
        if kwargs is not None:
            twin["kwargs"] = kwargs
        if options is not None:
            twin["options"] = options
        return twin

    def set(self, immutable: bool | None = None, **options: Any) -> Signature:
        """Set options; returns itself."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Whether further arguments are to be ignored."""
        self["immutable"] = immutable

    def link(self, callback: Any) -> Any:
        """Run `callback` with the result when the task succeeds; returns the callback."""
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Run `errback` when the task fails; returns the errback."""
        return self.append_to_list_option("link_error", errback)

    def on_error(self, errback: Any) -> Signature:
        """`link_error` that returns itself."""
        self.link_error(errback)
        return self

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Add to an option that is a list, unless it is there already; returns the value."""
        entries = self.options.setdefault(key, [])
        if not isinstance(entries, list):
            entries = self.options[key] = [entries]
        if value not in entries:
            entries.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Add one or several values to an option that is a list."""
        for each in value if isinstance(value, (list, tuple)) else [value]:
            self.append_to_list_option(key, each)

    def flatten_links(self) -> list[Any]:
        """Itself and its callbacks, recursively."""
        links = self.options.get("link") or []
        links = links if isinstance(links, list) else [links]
        return [self, *(found for link in links for found in maybe_signature(link, self._app).flatten_links())]

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """How the call would look in Python."""
        merged_args, merged_kwargs, _ = self.merge(args, kwargs, None, force=True)
        secrets = self._secrets()
        if secrets:
            hide = import_object("celeriac.hiding:masked", "Secret")
            merged_args, merged_kwargs = hide(secrets, merged_args, merged_kwargs)
        parts = [repr(arg) for arg in merged_args] + [f"{key}={value!r}" for key, value in merged_kwargs.items()]
        return f"{self['task']}({', '.join(parts)})"

    def _secrets(self) -> Any:
        """The secret arguments of its task, as far as that is known here; None if there are none."""
        task = None if self._app is None else self._app._tasks.get(self["task"])
        return None if task is None else task.secrets

    def __repr__(self) -> str:
        return self.reprcall()

    def __deepcopy__(self, memo: dict[int, Any]) -> Signature:
        twin = self.__class__.__new__(self.__class__)
        dict.__init__(twin, {key: copy.deepcopy(value, memo) for key, value in self.items()})
        twin._app = self._app
        return twin

    def __copy__(self) -> Signature:
        return self.clone()

    def __reduce__(self) -> tuple[Any, ...]:
        return Signature, (dict(self),)

    def __json__(self) -> dict[str, Any]:
        return dict(self)


_EMPTY: dict[str, Any] = {
    "task": None, "args": (), "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False,
}  # fmt: skip


def signature(varies: Any, *args: Any, **kwargs: Any) -> Signature:
    """A signature of a task (by name or itself), or the one whose dict form is given."""
    app = kwargs.pop("app", None)
    if isinstance(varies, Mapping):
        if isinstance(varies, Signature):
            return varies.clone()
        return Signature.from_dict(varies, app=app)
    made = Signature(varies, *args, **kwargs)
    made._app = app or made._app
    return made


def maybe_signature(d: Any, app: Any = None, clone: bool = False) -> Any:
    """`d` as a signature: a dict becomes one; a signature is given the app; None stays None."""
    if isinstance(d, Signature):
        found = d.clone() if clone else d
        if app is not None and found._app is None:
            found._app = app
        return found
    return Signature.from_dict(d, app=app) if isinstance(d, Mapping) else d
