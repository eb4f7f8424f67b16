"""Tasks: functions with options that can be called here, or sent to be run elsewhere.

Attributes and methods follow Celery's documented `Task`. Options that are not set on the task come from the app's
settings when they are first read. Sending is `sending.py`; running is `execution.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar, cast, overload

from celeriac.context import Context, RequestStack, running
from celeriac.current import get_current_app
from celeriac.errors import Ignore, MaxRetriesExceededError, OperationalError, Retry
from celeriac.loading import import_object
from celeriac.result import AsyncResult, EagerResult
from celeriac.retrying import exception_classes, next_delay, retry_options
from celeriac.signature import Signature

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["FromSetting", "Task"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class FromSetting(Generic[T]):
    """A task option whose default is a setting of the app: read once, then a plain attribute."""

    def __init__(self, setting: str) -> None:
        self.setting = setting
        self.attribute = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = name

    @overload
    def __get__(self, task: None, owner: type) -> FromSetting[T]: ...
    @overload
    def __get__(self, task: Any, owner: type) -> T: ...
    def __get__(self, task: Any, owner: type) -> FromSetting[T] | T:
        """The setting's value, kept on the task from now on."""
        if task is None:
            return self
        value: T = task.app.conf[self.setting]
        task.__dict__[self.attribute] = value
        task.__dict__.setdefault("_from_settings", {})[self.attribute] = value
        return value


class Task(Generic[P, R]):
    """A function that workers can run.

    Made by `@app.task`, or by a class of one's own with a method `run` and `app.register_task`.
    """

    name: str = ""
    typing: bool = True
    max_retries: int | None = 3
    default_retry_delay: float = 180
    rate_limit = FromSetting[Any]("task_default_rate_limit")
    rate_limit_scope: str = "worker"
    max_concurrency: int | None = None
    max_concurrency_per_worker: int | None = None
    concurrency_key: str | Callable[..., Any] | None = None
    unique: str | float | None = None
    unique_key: str | Callable[..., Any] | None = None
    on_conflict: str = "ignore"
    batch: int | None = None
    batch_wait: float = 1.0
    ignore_result = FromSetting[bool]("task_ignore_result")
    store_errors_even_if_ignored = FromSetting[bool]("task_store_errors_even_if_ignored")
    store_eager_result = FromSetting[bool]("task_store_eager_result")
    trail: bool = True
    send_events: bool = True
    serializer = FromSetting[str]("task_serializer")
    compression = FromSetting[str | None]("task_compression")
    time_limit = FromSetting[float | None]("task_time_limit")
    soft_time_limit = FromSetting[float | None]("task_soft_time_limit")
    track_started = FromSetting[bool]("task_track_started")
    acks_late = FromSetting[bool]("task_acks_late")
    acks_on_failure_or_timeout = FromSetting[bool]("task_acks_on_failure_or_timeout")
    acks_on_failure = FromSetting[bool | None]("task_acks_on_failure")
    acks_on_timeout = FromSetting[bool | None]("task_acks_on_timeout")
    reject_on_worker_lost = FromSetting[bool]("task_reject_on_worker_lost")
    retry_on_worker_lost = FromSetting[bool]("task_retry_on_worker_lost")
    priority = FromSetting[int | None]("task_default_priority")
    throws: Sequence[type[BaseException]] = ()
    expires: float | datetime | None = None
    resultrepr_maxsize: int = 1024
    autoretry_for: Sequence[type[BaseException]] = ()
    dont_autoretry_for: Sequence[type[BaseException]] = ()
    retry_kwargs: ClassVar[dict[str, Any]] = {}
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600
    retry_jitter: bool = True
    queue: str | None = None
    exchange: str | None = None
    exchange_type: str | None = None
    routing_key: str | None = None
    delivery_mode: int | str | None = None
    pydantic: bool = False
    #: Class whose methods the supervisor calls, or its path: a subclass of `celeriac.worker.request.Request`.
    Request: Any = "celeriac.worker.request:Request"
    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = OperationalError
    #: A mark of older versions; says nothing.
    abstract: bool = True
    #: Attributes whose default is a setting: pairs of both names. A class may add pairs of its own.
    from_config: ClassVar[tuple[tuple[str, str], ...]] = ()
    request_stack: ClassVar[RequestStack] = RequestStack()

    _app: Celeriac | None = None
    _bind: bool = False
    #: Whether the class overrides `shadow_name`: a call less for all that do not.
    has_shadow_name: bool = False
    _checker: Callable[..., None] | None = None
    __wrapped__: Callable[..., Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("throws", "autoretry_for", "dont_autoretry_for"):
            if name in cls.__dict__:
                setattr(cls, name, exception_classes(f"{name} of task {cls.name or cls.__name__}", cls.__dict__[name]))
        for name, setting in cls.__dict__.get("from_config", ()):
            if not hasattr(cls, name):
                option = FromSetting[Any](setting)
                option.__set_name__(cls, name)
                setattr(cls, name, option)
        for name in _LIMITS.intersection(cls.__dict__):
            value = cls.__dict__[name]
            if not isinstance(value, FromSetting):
                import_object("celeriac.task_limits:check_option", name)(cls.name or cls.__name__, name, value)
                if callable(value):  # a function of the call's arguments, not a method
                    setattr(cls, name, staticmethod(value))
        if "run" in cls.__dict__ and (cls.batch is not None or "batch_wait" in cls.__dict__):
            import_object("celeriac.batch_task:adapt", "batch")(cls)
        cls.has_shadow_name = cls.shadow_name is not Task.shadow_name

    def sets(self, option: str) -> bool:
        """Whether this task has a value of its own for an option, and not that of a setting."""
        value = self.__dict__.get(option, getattr(type(self), option, None))
        is_own = value is not None and not isinstance(value, FromSetting)
        return is_own and option not in self.__dict__.get("_from_settings", ())

    def forget_settings(self) -> None:
        """Read the options that come from settings anew; those that were set on the task since stay."""
        for name, value in self.__dict__.pop("_from_settings", {}).items():
            if self.__dict__.get(name) is value:
                del self.__dict__[name]

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The body of the task. `@app.task` puts the function here; class-based tasks define it."""
        raise TypeError(f"task class {type(self).__name__} defines no method 'run'")

    @property
    def app(self) -> Celeriac:
        """The app it belongs to; the current one for a task of none."""
        return self._app if self._app is not None else cast("Celeriac", get_current_app())

    @app.setter
    def app(self, app: Celeriac) -> None:
        self._app = app

    @cached_property
    def secrets(self) -> Any:
        """Which of its arguments are secret (`hiding.Secrets`); None if none is."""
        return import_object("celeriac.hiding:secrets_of", "Secret")(self)

    @property
    def request(self) -> Context:
        """What is known about its present execution."""
        context = running.get()
        if context is not None and context.task in (self.name, None):
            return context
        return Context()

    @property
    def backend(self) -> Any:
        """The result store."""
        return self.app.backend

    # calling

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it here, as a plain function."""
        context = running.get()
        is_overridden = type(self).__call__ is not Task.__call__
        if is_overridden and context is not None and context.owner is self and not context.is_entered:
            context.is_entered = True  # a worker runs it through the overridden __call__: keep its context
            return cast(R, self.run(*args, **kwargs))
        token = running.set(Context(task=self.name, args=list(args), kwargs=kwargs))
        try:
            return cast(R, self.run(*args, **kwargs))
        finally:
            running.reset(token)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send it to be run by a worker.

        Returns:
            The result to come.

        Raises:
            TypeError: The arguments do not fit the function.
            EncodeError: An argument can't be serialized; the message names it.
            OperationalError: The broker can't be reached.

        Example:
            >>> add.delay(2, 3).get()
            5
        """
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send it with options (Celery's documented calling options: `countdown`, `eta`, `queue`, `priority`, …).

        Raises:
            TypeError: The arguments do not fit the function.
            ValueError: The soft time limit is above the hard one.
            EncodeError: An argument can't be serialized; the message names it.
            OperationalError: The broker can't be reached within `publish_timeout`.
        """
        app = self.app
        if self.typing:
            self.check_arguments(args, kwargs)
        if app.conf.task_always_eager:
            return self._apply_eagerly(args, kwargs, task_id, link, link_error, shadow, options)
        if task_id:
            options["is_named"] = True
        message, result = app.prepare(self.name, args, kwargs, task_id, link, link_error, shadow, self, options)
        if self.unique:
            return cast(AsyncResult[R], import_object("celeriac.unique:send", "unique")(app, message, result, options))
        app.publish((message,), options)
        return result

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """`delay` for coroutines: calls that are made at the same time travel together."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> AsyncResult[R]:
        """`apply_async` for coroutines."""
        app = self.app
        if self.typing:
            self.check_arguments(args, kwargs)
        if app.conf.task_always_eager:
            run = import_object("celeriac.batching:run_aside", "task_always_eager")
            return cast(AsyncResult[R], await run(self.apply, args, kwargs, **options))
        return cast(AsyncResult[R], await app.asend_task(self.name, args, kwargs, task_type=self, **options))

    def check_arguments(self, args: Any, kwargs: Any) -> None:
        """Raise TypeError if the arguments do not fit the function."""
        if (args is not None and not isinstance(args, (list, tuple))) or not isinstance(kwargs, (dict, type(None))):
            raise TypeError(f"task args must be a list or tuple and kwargs a mapping, not {args!r} and {kwargs!r}")
        checker = self._checker
        if checker is None:
            make = import_object("celeriac.arguments:argument_checker", "typing")
            checker = self._checker = make(getattr(self, "__wrapped__", self.run), bound=self._bind)
        checker(*(args or ()), **(kwargs or {}))

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int | None = None,
        throw: bool | None = None,
        logfile: str | None = None,
        loglevel: int | None = None,
        headers: dict[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Run it here as a worker would, through serialization and all; retries and callbacks run here too.

        Args:
            throw: Raise the task's error instead of returning a failed result (default: `task_eager_propagates`).
        """
        options.update(headers=headers, retries=retries or 0)
        return cast(EagerResult[R], self.app.run_eagerly(self, args, kwargs, task_id, link, link_error, throw, options))

    def _apply_eagerly(
        self, args: Any, kwargs: Any, task_id: Any, link: Any, link_error: Any, shadow: Any, options: dict[str, Any]
    ) -> AsyncResult[R]:
        return self.apply(args, kwargs, link, link_error, task_id, shadow=shadow, **options)

    # signatures

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Signature:
        """A signature of this task: `t.signature((2, 2), countdown=10)`."""
        starkwargs.setdefault("app", self._app)
        return Signature(self.name, args, *starargs, **starkwargs)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """`signature` from star arguments."""
        return Signature.of_call(self.name, args, kwargs, self._app)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """`s` that ignores further arguments."""
        return Signature.of_call(self.name, args, kwargs, self._app, immutable=True)

    def map(self, it: Any) -> Signature:
        """One message that calls this task with each of the items."""
        return cast(Signature, import_object("celeriac.canvas.maps:xmap", "map")(self.s(), it, app=self._app))

    def starmap(self, it: Any) -> Signature:
        """One message that calls this task with each of the lists of arguments."""
        return cast(Signature, import_object("celeriac.canvas.maps:xstarmap", "starmap")(self.s(), it, app=self._app))

    def chunks(self, it: Any, n: int) -> Signature:
        """Lists of arguments in parts of `n`, each part a message."""
        return cast(Signature, import_object("celeriac.canvas.maps:chunks", "chunks")(self.s(), it, n, app=self._app))

    # inside a running task

    def replace(self, sig: Signature) -> Any:
        """Let another signature take the place of this execution: its id, its callbacks, its place in a workflow.

        Raises:
            Ignore: Always in a worker; nothing after this call runs. Run eagerly, it returns the value.
            ImproperlyConfigured: The signature is an empty chain or a part of a chord.
        """
        return self.on_replace(import_object("celeriac.canvas.replacing:checked", "replace")(self.app, sig))

    def add_to_chord(self, sig: Signature, lazy: bool = False) -> Any:
        """Add a signature to the header of the chord that this execution is a part of.

        Raises:
            ValueError: It is not a part of a chord.
        """
        return import_object("celeriac.canvas.growing:add_to_chord", "add_to_chord")(self.app, self.request, sig, lazy)

    def add_to_group(self, sig: Signature, lazy: bool = False) -> Any:
        """Add a signature to the group or chord header that this execution is a member of. `GroupResult.refresh` sees it.

        Raises:
            ValueError: It is not a member of a group.
        """
        return import_object("celeriac.canvas.growing:add_to_group", "add_to_group")(self.app, self.request, sig, lazy)

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Run this execution again later.

        Args:
            exc: The reason; raised when there are no retries left.
            throw: Raise `Retry`, so that nothing after this call runs; False returns it.
            countdown: Seconds until then (default: `default_retry_delay`); or `eta`, a moment.
            max_retries: Limit for this time (default: the task's).

        Raises:
            Retry: Always, unless `throw` is False.
            MaxRetriesExceededError: No retries are left and there is no `exc`.
        """
        retry, error = retry_options(self, self.request, args, kwargs, exc, eta, countdown, max_retries, options)
        if error is not None:
            raise error
        if throw:
            raise retry
        return retry

    def autoretry(self, exc: Exception) -> BaseException:
        """What an exception of the task becomes under `autoretry_for`: a Retry, or the final error."""
        if isinstance(exc, (Ignore, Retry, *self.dont_autoretry_for)):
            return exc
        if not isinstance(exc, tuple(self.autoretry_for)):
            return exc
        options = dict(self.retry_kwargs)
        if self.retry_backoff:
            options["countdown"] = next_delay(
                self.request.retries, self.retry_backoff, self.retry_backoff_max, jitter=self.retry_jitter
            )
        try:
            return self.retry(exc=exc, throw=False, **options)
        except BaseException as final:  # retry() says by raising that this is the end
            return final

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None:
        """Store a custom state (`PROGRESS`, …) with `meta`; seen as `result.state` and `result.info`."""
        context = self.request
        self.app.store_state(context, task_id or context.id, state, meta)

    def signature_from_request(
        self,
        request: Context | None = None,
        args: Any = None,
        kwargs: Any = None,
        queue: str | None = None,
        **extra: Any,
    ) -> Signature:
        """A signature that repeats the present execution."""
        context = request or self.request
        args = context.args if args is None else args
        kwargs = context.kwargs if kwargs is None else kwargs
        options = {**_options_of(context), **({"queue": queue} if queue else {}), **extra}
        return self.signature(args, kwargs, **options)

    subtask_from_request = signature_from_request

    def add_trail(self, result: Any) -> Any:
        """Record a result as a child of the present execution."""
        context = running.get()
        if self.trail and context is not None:
            context.children = [*(context.children or ()), result]
        return result

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[R]:  # noqa: N802 -- Celery's documented name
        """The result of this id."""
        return AsyncResult(task_id, app=self.app, **kwargs)

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
        """Override to show another name in logs and monitors."""
        return None

    # rarely used

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Let a request with these attributes be the present one, until `pop_request`; for tests of what tasks do with it."""
        known = {"task": self.name}
        for mapping in args:
            known.update(mapping)
        self.request_stack.push(Context(**{**known, **kwargs}))

    def pop_request(self) -> Context | None:
        """Undo the last `push_request`; returns its request."""
        return self.request_stack.pop()

    @classmethod
    def bind(cls, app: Celeriac) -> Celeriac:
        """Make this the app of all tasks of the class that have none of their own."""
        cls._app = app
        cls.on_bound(app)
        return app

    @classmethod
    def on_bound(cls, app: Celeriac) -> None:
        """Override: called when a task of the class is bound to an app."""

    def annotate(self) -> None:
        """Apply `task_annotations`, as it is done when a task is made."""
        import_object("celeriac.task_making:annotate", "annotate")(self.app, self)

    def add_around(self, attr: str, around: Callable[[Any], Any]) -> None:
        """Put what `around` makes of a method in its place, as the annotation `@method` does."""
        setattr(self, attr, around(getattr(self, attr)))

    def on_replace(self, sig: Any) -> Any:
        """Override: called by `replace` with the signature that takes the place of this execution.

        Raises:
            Ignore: Always in a worker.
        """
        return import_object("celeriac.canvas.replacing:replace", "replace")(self.app, self.request, sig)

    # handlers

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Override: called before `run`."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Override: called after success."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Override: called after failure."""

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Override: called when the task will be retried."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Override: called last, after success or failure."""

    def __repr__(self) -> str:
        return f"<@task: {self.name} of {self.app.main or '__main__'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _task_by_name, (self.name,)


Task.from_config = tuple((name, found.setting) for name, found in vars(Task).items() if isinstance(found, FromSetting))


def _task_by_name(name: str) -> Any:
    return get_current_app().tasks[name]


#: Options that are checked when a task is made.
_LIMITS = frozenset({
    "rate_limit", "rate_limit_scope", "max_concurrency", "max_concurrency_per_worker", "concurrency_key", "unique",
    "unique_key", "on_conflict",
})  # fmt: skip

_REQUEST_OPTIONS = (
    ("task_id", "id"), ("link", "callbacks"), ("link_error", "errbacks"), ("chord", "chord"), ("chain", "chain"),
    ("group_id", "group"), ("group_index", "group_index"), ("root_id", "root_id"), ("reply_to", "reply_to"),
    ("shadow", "shadow"), ("headers", "headers"), ("limits", "limits"),
    ("stamped_headers", "stamped_headers"), ("stamps", "stamps"), ("expires", "expires"), ("retries", "retries"),
    ("ignore_result", "ignore_result"), ("replaced_task_nesting", "replaced_task_nesting"),
    ("argsrepr", "argsrepr"), ("kwargsrepr", "kwargsrepr"),
)  # fmt: skip


def _options_of(context: Context) -> dict[str, Any]:
    """The options of `apply_async` that would give this execution again."""
    options = {option: value for option, name in _REQUEST_OPTIONS if (value := getattr(context, name)) is not None}
    options["time_limit"], options["soft_time_limit"] = context.time_limit, context.soft_time_limit
    info = context.delivery_info or {}
    if info.get("queue"):  # a worker's copy of a broadcast queue: this worker tries again, not all
        options["queue"] = info["queue"]
    elif info.get("exchange"):
        options.update(exchange=info["exchange"], routing_key=info.get("routing_key"))
    elif info.get("routing_key"):
        options["queue"] = info["routing_key"]
    if info.get("priority") is not None:
        options["priority"] = info["priority"]
    return options
