"""The app: settings, task registry, connections. What a user constructs, under Celery's documented interface.

Constructing it reads nothing and connects to nothing: settings are loaded when first read, the transport and the result
store are opened when first used, tasks are bound when they are made.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import cached_property
from types import TracebackType
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar, cast, overload

from celeriac import current, sending, signals
from celeriac.app_connections import AppConnections, new_origin
from celeriac.app_parts import AppParts
from celeriac.config import Settings, load
from celeriac.context import Context, running
from celeriac.errors import (
    AlwaysEagerIgnored,
    CeleriacError,
    ImproperlyConfigured,
)
from celeriac.hooks import Signal
from celeriac.loading import autodiscover, import_object
from celeriac.middleware import Middleware
from celeriac.recording import make_record
from celeriac.registry import TaskRegistry
from celeriac.result import AsyncResult, GroupResult, ResultSet
from celeriac.routing import Queue
from celeriac.sending import own_fields, prepare, publish
from celeriac.signature import Signature, signature
from celeriac.task import Task as BaseTask
from celeriac.task_making import (
    AsyncTask,
    BatchDecorator,
    BoundBatchDecorator,
    BoundTaskDecorator,
    TaskDecorator,
    annotate,
    make_task,
)
from celeriac.wire.messages import CallForm
from celeriac.zones import zone_of

__all__ = ["Celeriac"]

P = ParamSpec("P")
R = TypeVar("R")


class Celeriac(AppConnections, AppParts):
    """A celeriac application.

    Args:
        main: Name of the main module; the prefix of tasks that are defined in `__main__`.
        broker: Broker URL (setting `broker_url`).
        backend: Result store URL (setting `result_backend`).
        include: Modules that a worker imports.
        changes: Settings that rank above the configuration.
        config_source: Object, mapping or module path to read settings from.
        namespace: Prefix of setting names in `config_source`, such as "CELERY".
        set_as_current: Make this the current app of the thread.
        autofinalize: False makes use of tasks before `finalize()` a RuntimeError.
        task_cls: Base class of tasks, or its path.
        fixups: Paths of functions that take part in making the app; default are `builtin_fixups`.
        strict_typing: Check arguments when a task is called.
        middleware: Objects that take part in sending and running tasks, outermost first; see `middleware.Middleware`.
        settings: Any further setting by name.

    Example:
        >>> app = Celeriac("tasks", broker="sqlite:///celeriac.db")
        >>> @app.task
        ... def add(x: int, y: int) -> int:
        ...     return x + y
    """

    #: Defaults of apps of this class, where they are not those of the table of settings.
    default_settings: ClassVar[Mapping[str, Any]] = {}
    #: URL of the result store of apps of this class, where the constructor names none.
    backend_cls: str | None = None
    #: Class of the registry of tasks, or its path.
    registry_cls: type[TaskRegistry] | str = TaskRegistry
    #: Base class of tasks, or its path.
    task_cls: type[BaseTask[..., Any]] | str = BaseTask

    def __init__(
        self,
        main: str | None = None,
        loader: Any = None,
        backend: str | None = None,
        amqp: Any = None,
        events: Any = None,
        log: Any = None,
        control: Any = None,
        set_as_current: bool = True,
        tasks: Any = None,
        broker: str | None = None,
        include: Sequence[str] | str | None = None,
        changes: Mapping[str, Any] | None = None,
        config_source: Any = None,
        fixups: Any = None,
        task_cls: type[BaseTask[..., Any]] | str | None = None,
        autofinalize: bool = True,
        namespace: str | None = None,
        strict_typing: bool = True,
        config_source_silent: bool = False,
        middleware: Sequence[Middleware] = (),
        **settings: Any,
    ) -> None:
        self.main = main
        self.autofinalize = autofinalize
        self.finalized = False
        self.strict_typing = strict_typing
        self.middleware = list(middleware)
        self._changes: dict[str, Any] = {**(changes or {}), **settings}
        if broker is not None:
            self._changes["broker_url"] = broker
        if backend is not None or self.backend_cls is not None:
            self._changes["result_backend"] = self.backend_cls if backend is None else backend
        if include is not None:
            self._changes["include"] = [include] if isinstance(include, str) else list(include)
        self._config: tuple[Any, str | None, bool] = (config_source, namespace, config_source_silent)
        self._defaults: list[Any] = []
        self.task_cls = task_cls or self.task_cls
        self._tasks = tasks if isinstance(tasks, TaskRegistry) else self._registry_class(tasks or {})
        self._discoveries: list[Callable[[], None]] = []
        self._plain_fields: dict[str, dict[str, Any]] = {}
        #: What is the same in all calls of a task without options, by its name. `sending.prepare` keeps it.
        self.plain_calls: dict[Any, CallForm] = {}
        self._lock = threading.RLock()
        self.on_configure = Signal(name="app.on_configure")
        self.on_after_configure = Signal({"source"}, name="app.on_after_configure")
        self.on_after_finalize = Signal(name="app.on_after_finalize")
        self.on_after_fork = Signal(name="app.on_after_fork")
        self.take_classes(amqp=amqp, control=control, loader=loader, log=log)
        self.undeclared: list[Queue] = []
        self.origin = new_origin()
        current.register_app(self)
        if set_as_current:
            self.set_current()
        self.fix_up(fixups)
        self.on_init()

    def on_init(self) -> None:
        """Override: called after construction."""

    def prepare_config(self, c: Settings) -> Settings:
        """Override: given the settings when they were read; returns those that count."""
        return c

    # current app

    def set_current(self) -> None:
        """Make this the current app of the thread."""
        current.set_current_app(self)

    def set_default(self) -> None:
        """Make this the app of all threads that have none of their own."""
        current.set_default_app(self)

    # settings

    @cached_property
    def conf(self) -> Settings:
        """The settings; loaded when first read."""
        with self._lock:
            self.on_configure.send(sender=self)
            source, namespace, silent = self._config
            if source is None:
                source = os.environ.get("CELERIAC_CONFIG_MODULE") or os.environ.get("CELERY_CONFIG_MODULE")
            settings = load(source, namespace=namespace, changes=self._changes, environ=os.environ, silent=silent)
            settings = self.prepare_config(settings)
            for defaults in filter(None, (self.default_settings, *self._defaults)):
                settings.add_defaults(defaults)
            self._settings_changed()
            settings.on_change(self._settings_changed)
            self.__dict__["conf"] = settings
            self.on_after_configure.send(sender=self, source=settings)
            return settings

    def _settings_changed(self) -> None:
        """Forget what was made of the settings. Connections that are open stay as they are."""
        self._forget("router", "accept", "result_accept", "result_cache", "timezone")
        self._plain_fields.clear()
        self.plain_calls.clear()
        for task in self._tasks.values():
            task.forget_settings()

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Read settings from an object, mapping, module, or their path; replaces an earlier source."""
        self._config = (obj, namespace, silent)
        self._forget("conf")
        if force:
            _ = self.conf

    def config_from_envvar(self, variable_name: str, silent: bool = False, force: bool = False) -> bool:
        """Read settings from the module that an environment variable names.

        Raises:
            ImproperlyConfigured: The variable is not set, unless `silent`.
        """
        module = os.environ.get(variable_name)
        if not module:
            if silent:
                return False
            raise ImproperlyConfigured(
                f"The environment variable {variable_name!r} is not set, so no settings can be read from it."
            )
        self.config_from_object(module, silent=silent, force=force)
        return True

    def add_defaults(self, fun: Any) -> Any:
        """Add default settings (a mapping, or a function that makes one); they rank below configured values."""
        self._defaults.append(fun)
        if "conf" in self.__dict__:
            self.conf.add_defaults(fun)
        return fun

    def either(self, default_key: str, *defaults: Any) -> Any:
        """The first of the setting and the defaults that is not None."""
        return next((v for v in (self.conf.get(default_key), *defaults) if v is not None), None)

    @cached_property
    def timezone(self) -> tzinfo:
        """Time zone of naive times."""
        return zone_of(self.conf)

    def now(self) -> datetime:
        """The present time in the app's time zone."""
        return datetime.now(self.timezone)

    # tasks

    @property
    def _registry_class(self) -> type[TaskRegistry]:
        given = self.registry_cls
        return import_object(given, "registry_cls") if isinstance(given, str) else given

    @property
    def tasks(self) -> TaskRegistry:
        """The registered tasks by name."""
        if not self.finalized:
            self.finalize(auto=True)
        return self._tasks

    def finalize(self, auto: bool = False) -> None:
        """Take in shared tasks; called when tasks are first looked up."""
        with self._lock:
            if self.finalized:
                return
            if auto and not self.autofinalize:
                raise RuntimeError("the app is not finalized: call app.finalize() first (autofinalize is off)")
            self.finalized = True
            for share in list(current.on_app_finalize):
                share(self)
            self.on_after_finalize.send(sender=self)

    @cached_property
    def Task(self) -> type[BaseTask[..., Any]]:  # noqa: N802 -- Celery's documented name
        """Base class of tasks; may be replaced by a subclass."""
        base = import_object(self.task_cls, "task_cls") if isinstance(self.task_cls, str) else self.task_cls
        return cast("type[BaseTask[..., Any]]", base)

    def create_task_cls(self) -> type[BaseTask[..., Any]]:
        """The base class of this app's tasks."""
        return self.Task

    @overload
    def task(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, fun: Callable[P, R], /) -> BaseTask[P, R]: ...
    @overload
    def task(self, *, bind: Literal[True], batch: int, **options: Any) -> BoundBatchDecorator: ...
    @overload
    def task(self, *, bind: Literal[False] = False, batch: int, **options: Any) -> BatchDecorator: ...
    @overload
    def task(self, *, bind: Literal[True], **options: Any) -> BoundTaskDecorator: ...
    @overload
    def task(self, *, bind: Literal[False] = False, **options: Any) -> TaskDecorator: ...
    @overload
    def task(self, fun: Callable[P, R], /, **options: Any) -> BaseTask[P, R]: ...
    def task(self, *args: Any, **options: Any) -> Any:  # type: ignore[misc]  # it does accept the last one
        """Make a task of a function: `@app.task`, `@app.task(bind=True, …)`.

        Args:
            name: Task name (default: module.function).
            bind: Pass the task itself as first argument.
            base: Class of the task.
            batch: Call the function with up to so many calls at once, as a list of `Call`.
            pydantic: Validate arguments, and dump the returned model, by their annotations.
            options: Any attribute of `Task`.
        """
        if not args:
            return lambda fun: make_task(self, fun, **options)
        if len(args) > 1 or not callable(args[0]):
            raise TypeError(f"@app.task takes one function and keyword options, not {args!r}")
        return make_task(self, args[0], **options)

    def register_task(self, task: Any, **options: Any) -> Any:
        """Register a class-based task (an instance or its class)."""
        if isinstance(task, type):
            task = task()
        for key, value in options.items():
            setattr(task, key, value)
        if not task.name:
            task.name = self.gen_task_name(type(task).__name__, type(task).__module__)
        return self.add_task(task)

    def registered(self, name: str) -> Any:
        """The task of this name, or None; unlike `tasks` this does not finalize the app."""
        return self._tasks.get(name)

    def add_task(self, task: Any) -> Any:
        """Put a finished task into the registry and bind it to this app."""
        task.app = self
        self._tasks[task.name] = task
        self._plain_fields.pop(task.name, None)
        self.plain_calls.pop(task.name, None)
        annotate(self, task)
        type(task).on_bound(self)
        return task

    def gen_task_name(self, name: str, module: str) -> str:
        """Name of a task that is given none; may be overridden."""
        if module == "__main__" and self.main:
            module = self.main
        return f"{module}.{name}" if module else name

    def autodiscover_tasks(self, packages: Any = None, related_name: str | None = "tasks", force: bool = False) -> None:
        """Import `<package>.<related_name>` of each package when a worker starts (or now, with `force`).

        Args:
            packages: A list, a name, or a function that gives these; None is what fixups know, such as Django's apps.
        """

        def discover() -> None:
            found = packages() if callable(packages) else packages
            if found is None:
                found = [package for each in self.tell_fixups("autodiscover_tasks") for package in each]
            autodiscover([found] if isinstance(found, str) else found or (), related_name)

        if force:
            discover()
        else:
            self._discoveries.append(discover)

    def import_modules(self) -> None:
        """Import what a worker needs: `imports`, `include` and what `autodiscover_tasks` asked for."""
        self.tell_fixups("on_import_modules")
        for _receiver, answer in signals.import_modules.send(sender=self):
            if isinstance(answer, Exception):  # a worker without some of its modules must not start
                raise answer
        for module in (*self.conf.imports, *self.conf.include):
            import_object(module, "include")
        for discover in self._discoveries:
            discover()

    # sending

    def plain_fields(self, task: Any) -> dict[str, Any]:
        """The fields of a call that has no options: the task's own. Kept, since they are the same each time."""
        name = task.name if task is not None else ""
        fields = self._plain_fields.get(name)
        if fields is None:
            fields = self._plain_fields[name] = own_fields(self, task)
        return fields

    prepare = sending.prepare
    publish = sending.publish

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        countdown: float | None = None,
        eta: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        connection: Any = None,
        router: Any = None,
        result_cls: Any = None,
        expires: Any = None,
        publisher: Any = None,
        link: Any = None,
        link_error: Any = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send a task by name; it need not be registered here. Options as for `Task.apply_async`."""
        if self.conf.task_always_eager:
            warnings.warn(AlwaysEagerIgnored("task_always_eager has no effect on send_task"), stacklevel=2)
        options.update(countdown=countdown, eta=eta, expires=expires, connection=connection)
        options = {key: value for key, value in options.items() if value is not None}
        task = options.pop("task_type", None) or self.tasks.get(name)
        if task_id:
            options["is_named"] = True
        message, result = prepare(self, name, args, kwargs, task_id, link, link_error, None, task, options)
        if task is not None and task.unique:
            return cast(
                "AsyncResult[Any]", import_object("celeriac.unique:send", "unique")(self, message, result, options)
            )
        publish(self, (message,), options)
        return result

    async def asend_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        task_id: str | None = None,
        link: Any = None,
        link_error: Any = None,
        task_type: Any = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """`send_task` for coroutines: messages that are sent at the same time travel together."""
        task = task_type or self.tasks.get(name)
        if task is not None and task.unique:  # its lock is taken first, which blocks
            run = import_object("celeriac.batching:run_aside", "unique")
            options.update(task_id=task_id, link=link, link_error=link_error, task_type=task)
            return cast("AsyncResult[Any]", await run(self.send_task, name, args, kwargs, **options))
        if task_id:
            options["is_named"] = True
        message, result = prepare(self, name, args, kwargs, task_id, link, link_error, None, task, options)
        await self._batcher.publish(message, options)
        return result

    def publish_many(self, signatures: Iterable[Signature]) -> list[AsyncResult[Any]]:
        """Send many calls, in batches of some hundred. A generator is taken from as they are sent.

        Returns:
            Their results to come, in order.

        Raises:
            OperationalError: The broker can't be reached; what was sent before stays sent.
        """
        if self.conf.task_always_eager:
            return [sig.apply_async() for sig in signatures]
        send: Callable[[Celeriac, Iterable[Signature]], list[AsyncResult[Any]]] = import_object(
            "celeriac.many:publish_many", "publish_many"
        )
        return send(self, signatures)

    def run_eagerly(self, *args: Any) -> Any:
        """Run a call here; see `eager.run_eagerly`."""
        return import_object("celeriac.eager:run_eagerly", "apply")(self, *args)

    def signature(self, *args: Any, **kwargs: Any) -> Signature:
        """A signature that this app sends."""
        kwargs["app"] = self
        return signature(*args, **kwargs)

    # states and results

    def store_state(self, context: Context, task_id: str | None, state: str | None, meta: Any) -> None:
        """Store a custom state: through the worker in a running task, so that states keep their order."""
        if not isinstance(state, str) or not isinstance(task_id, (str, type(None))):
            raise TypeError(f"update_state takes a state and a task id as text, not {state!r} and {task_id!r}")
        if task_id is None:
            if running.get() is not None:
                return  # the task is called as a plain function: nobody can ask for its state
            raise CeleriacError("update_state needs a task id outside a running task")
        if context.is_eager and not (context.owner is None or context.owner.store_eager_result):
            return
        record = make_record(self, context, state, meta, task_id=task_id)
        send = context.store_state
        if send is not None:
            send(record)
        elif self.backend is not None:
            self.backend.store([record])

    def AsyncResult(self, id: str, **kwargs: Any) -> AsyncResult[Any]:  # noqa: N802 -- Celery's documented name
        """The result of this id."""
        return AsyncResult(id, app=self, **kwargs)

    @cached_property
    def GroupResult(self) -> type[GroupResult]:  # noqa: N802 -- Celery's documented name
        """Class of this app's results of groups: `app.GroupResult(id, results)`, `app.GroupResult.restore(id)`."""
        return type("GroupResult", (GroupResult,), {"bound_app": self, "__doc__": GroupResult.__doc__})

    @cached_property
    def ResultSet(self) -> type[ResultSet]:  # noqa: N802 -- Celery's documented name
        """Class of this app's sets of results: `app.ResultSet(results)`."""
        return type("ResultSet", (ResultSet,), {"bound_app": self, "__doc__": ResultSet.__doc__})

    @property
    def current_worker_task(self) -> Any:
        """The task that a worker (or `apply`) runs in this thread; None for one that is called as a plain function."""
        context = running.get()
        return None if context is None or context.called_directly else self.current_task

    @property
    def current_task(self) -> Any:
        """The task that runs in this thread, or None."""
        context = running.get()
        return None if context is None or context.task is None else self._tasks.get(context.task)

    # running

    def worker_main(self, argv: Sequence[str] | None = None) -> int:
        """Run the `worker` command with these arguments.

        Raises:
            ValueError: "worker" is not among them.
        """
        argv = list(sys.argv[1:] if argv is None else argv)
        if "worker" not in argv:
            raise ValueError("app.worker_main() needs 'worker' among its arguments, for example ['worker', '-c', '2']")
        return self.start(argv)

    def start(self, argv: Sequence[str] | None = None) -> int:
        """Run the command line with this app."""
        code: int = import_object("celeriac.cli:main", "start")(list(argv) if argv is not None else None, app=self)
        return code

    def __enter__(self) -> Celeriac:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.main or '__main__'} at {hex(id(self))}>"

    def __reduce__(self) -> tuple[Any, ...]:
        reduce: tuple[Any, ...] = import_object("celeriac.app_pickling:reduced", "pickle")(self)
        return reduce
